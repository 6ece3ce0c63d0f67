"""Finished runs with a few bytes in the place of a clip: exports look at bytes and records, never inside."""

import json
from hashlib import sha256

from kling_nb.exports.naming import Sample
from kling_nb.records.request import request_key, run_key
from kling_nb.records.run import MediaFacts, RunStatus
from support.cards import DONE, record
from support.paths import TESTS

LIST = TESTS / "data" / "vbench_prompts.jsonl"
ROWS = [json.loads(line) for line in LIST.read_text(encoding="utf-8").splitlines()]
VBENCH = [row for row in ROWS if row["suite"] == "vbench"]
VBENCH2 = [row for row in ROWS if row["suite"] == "vbench2"]


class StandIns:
    """A folder of stand-ins, and runs that made them."""

    def __init__(self, folder):
        self.folder = folder / "store"
        self.folder.mkdir()
        self.clip = self.file("clip.mp4", b"stand-in")

    def file(self, name, data):
        """Put a stand-in there."""
        path = self.folder / name
        path.write_bytes(data)
        return path

    def __call__(self, prompt, take=0, number=0, *, data=None, **fields):
        """Make a run of a prompt and a take; with `data`, its clip is a file of its own."""
        path = self.clip if data is None else self.file(f"clip-{number}.mp4", data)
        media = MediaFacts(
            file=path.name,
            sha256=sha256(path.read_bytes()).hexdigest(),
            size=path.stat().st_size,
            fps=24.0,
            frames=121,
            duration_s=5.04,
        )
        model = record(**{**DONE, "media": media})
        changes = {"prompt": prompt, "duration": fields.pop("duration", model.request.duration)}
        request = model.request.model_copy(update=changes)
        names = fields.get("model", model.model), fields.get("provider", model.provider)
        keys = {
            "request_key": request_key(request, names[0], take),
            "run_key": run_key(request, *names, take),
        }
        update = {"id": f"k{number:06}", "take": take, "request": request, **keys, **fields}
        made = model.model_copy(update=update)
        return Sample(record=made, path=path if made.status is RunStatus.SUCCEEDED else None)


def names(folder):
    """List the files below a folder, as they are."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
