"""A prompt that is easy to find again, and the search for it in everything that was shown or written."""

import base64
import html
import json
import unicodedata
from pathlib import Path
from urllib.parse import quote, quote_plus

#: Odd characters of every kind; no word of it is one that anybody would say by chance.
PROMPT = (
    'A Plumfjord, "Zwölfkätzchen" & <b>morkvassel</b>; $4.50 \\thornquist\\ 狐狸踏雪而行 🦩 100% [drofnibs]'
)
NEGATIVE = "no wexlithe'n haze"
SHOTS = ("Brindlesop gate at dusk", "Two ökvorst hands 霜夜鐘聲")
PIECES = (
    *("Plumfjord", "Zwölfkätzchen", "morkvassel", "thornquist", "狐狸", "drofnibs", "🦩 100%"),
    *("wexlithe", "Brindlesop", "ökvorst", "霜夜鐘"),
)


def _base64(piece):
    """Every way in which a piece stands in base64, wherever the text around it begins."""
    data = piece.encode()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + data).decode()
        yield coded[0 if before == 0 else before + 1 : len(coded) - (4 if (before + len(data)) % 3 else 0)]


def _forms(piece):
    folded = unicodedata.normalize("NFKD", piece.casefold()).encode("ascii", "ignore").decode()
    yield from (piece, piece.casefold(), piece.upper(), quote(piece), quote_plus(piece), html.escape(piece))
    yield json.dumps(piece)[1:-1]
    yield piece.encode("ascii", "xmlcharrefreplace").decode()
    yield from (form for form in _base64(piece) if len(form) >= 8)
    # As in the name of a file.
    yield from [folded] if len(folded) >= 6 else []


FORMS = {form.encode(): piece for piece in PIECES for form in _forms(piece)}
# Fewer bytes than that a clip may hold by chance.
FORMS |= {wide: piece for piece in PIECES if len(wide := piece.encode("utf-16-le")) >= 12}


def pieces_in(*surfaces):
    """Give the pieces that stand in texts or bytes, however they are spelt, and where the first one does."""
    found = {}
    for surface in surfaces:
        data = surface if isinstance(surface, bytes) else str(surface).encode("utf-8", "replace")
        for form, piece in FORMS.items():
            at = data.find(form)
            if at >= 0:
                found.setdefault(piece, data[max(0, at - 160) : at + 60])
    return found


def files_below(folder):
    """Every file of a folder with its name, also what is hidden."""
    return {
        path.relative_to(folder).as_posix(): f"{path.relative_to(folder)}\n".encode() + path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }
