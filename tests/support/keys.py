"""Made-up keys, and the search for them in everything that was written or shown."""

import hashlib
import re
from pathlib import Path

from support.stage import WIRES

#: One for each provider, unlike any pattern of a key, in parts that must not show alone either.
KEYS = {wire: f"Canary{wire}.Zx7Qm2Vn+Ht4Wp9Ks~Jd3Rb6Ly" for wire in WIRES}
PARTS = ("Zx7Qm2Vn", "Ht4Wp9Ks", "Jd3Rb6Ly", "Canaryrun")
VARIABLES = {"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}

#: The word may stand beside a variable's name or dots, in code for the user, and beside nothing else.
BEARER = re.compile(r"Bearer (?!\.\.\.|(<span>)?\$(</span>)?\{?[A-Z_]+\b|\{os\.environ)", re.IGNORECASE)


def assert_clean(*surfaces):
    """Nothing of a key, of a signed link or of a real header; give how many letters were looked at."""
    looked = 0
    for surface in surfaces:
        text = surface if isinstance(surface, str) else surface.decode("latin-1")
        looked += len(text)
        for bad in (*PARTS, "kling_sig=", "kling_sig%3D", "0123456789abcdef"):
            at = text.find(bad)
            assert at < 0, f"{bad!r} in ...{text[max(0, at - 300) : at + 100]}"
        found = BEARER.search(text)
        assert not found, text[found.start() : found.end() + 60]
    return looked


def mark(key):
    """How the sandbox names a key in its counts."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def files_below(folder):
    """Every file with its name: ledger, its journal, sidecars, clips, what was set aside."""
    found = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in found]
