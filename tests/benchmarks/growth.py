"""What a call costs as a ledger and a folder grow: `measure` makes them, and runs itself as the client.

A ledger of years is made of one real run whose row, with its events, is copied under other ids; a folder of
clips of one real clip and its sidecar files. Every act is timed by the processor in a process that has done
one submit before, and the median of some calls counts.
"""

import contextlib
import io
import json
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips

_HERE = Path(__file__).parent
_FIRST = "A red fox crosses fresh snow at dawn, number 0"
_ALPHABET = "23456789bcdfghjkmnpqrstvwxz"


def measure(scene: Any, *, quick: bool, rows: int | None = None) -> dict[str, Any]:
    """Time every act at each size of the ledger, then at each size of the folder."""
    small = clips.make(scene.folder / "small.mp4", 12_000)
    most = rows or (10_000 if quick else 100_000)
    # Of runs at the least as many as the longest look shows, or the rows it returns would be compared.
    sizes, files = (100, most // 10, most), (0, most // 100, most // 10)
    found: dict[str, dict[str, dict[str, float]]] = {"runs": {}, "clips": {}}
    for kind, counts in (("runs", sizes), ("clips", files)):
        for count in counts:
            scene.reset(low_s=0.05, high_s=0.1, clip=str(small))
            folder = scene.folder / f"{kind}{count}"
            scene.client("growth.py", "first", folder=folder, wire="runcomfy")
            if kind == "runs":
                copy_runs(folder / "ledger.db", count)
            else:
                copy_clips(folder / "kling_media", count)
            # The first look at a grown folder hashes it once; that is a figure of its own.
            first = scene.client("growth.py", "act", folder=folder, wire="runcomfy", calls=1)
            again = scene.client("growth.py", "act", folder=folder, wire="runcomfy", calls=3 if quick else 5)
            found[kind][str(count)] = {**again, "first_submit": first["submit"]}
            shutil.rmtree(folder)
    return {"sizes": found}


def _id(number: int) -> str:
    """A run's id that no run has: our ids are of seven after the first."""
    text = ""
    for _ in range(8):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return "k" + text


def _changes(record: dict[str, Any], number: int) -> dict[str, str]:
    """What is another's in a copy: old text to new, the words and the keys that follow from them among it."""
    from kling_nb.records.request import make_request, request_key, run_key

    prompt = f"A red fox crosses fresh snow at dawn, copy {number}"
    request = make_request(prompt=prompt, duration=3)
    return {
        record["id"]: _id(number),
        _FIRST: prompt,
        record["request_key"]: request_key(request, record["model"], 0),
        record["run_key"]: run_key(request, record["model"], record["provider"], 0),
        record["provider_run_id"]: f"copy{number:012x}",
    }


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def copy_runs(path: Path, count: int) -> None:
    """Copy the first run's row and events under so many other ids, over the days of three years before."""
    with contextlib.closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.row_factory = sqlite3.Row
        row = dict(ledger.execute("SELECT * FROM runs ORDER BY created_at LIMIT 1").fetchone())
        found = ledger.execute("SELECT at, kind, data FROM events WHERE run_id = ?", [row["id"]])
        events = [tuple(event) for event in found]
        today = row["created_at"][:10]

        def copies() -> Iterator[dict[str, Any]]:
            for number in range(count):
                day = f"{2023 + number % 3}-{number // 3 % 12 + 1:02d}-{number // 36 % 28 + 1:02d}"
                changes = {**_changes(row, number), today: day}
                yield {
                    name: _changed(value, changes) if isinstance(value, str) else value
                    for name, value in row.items()
                }

        names = list(row)
        ledger.executemany(
            f"INSERT INTO runs ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})",
            copies(),
        )
        for event in events:
            ledger.executemany(
                "INSERT INTO events (run_id, at, kind, data) VALUES (?, ?, ?, ?)",
                ((_id(number), *event) for number in range(count)),
            )


def copy_clips(folder: Path, count: int) -> None:
    """Copy the first run's clip and the files beside it under so many other ids."""
    sidecar = next(folder.glob("[!.]*.json"))
    record = json.loads(sidecar.read_text(encoding="utf-8"))
    beside = [path for path in folder.rglob(f"*{record['id']}*") if path.is_file()]
    for number in range(count):
        changes = _changes(record, number)
        for path in beside:
            target = path.with_name(path.name.replace(record["id"], _id(number)))
            if path.suffix == ".json":
                target.write_text(_changed(path.read_text(encoding="utf-8"), changes), encoding="utf-8")
            else:
                shutil.copyfile(path, target)


def _timed(act: Any, calls: int) -> float:
    used = []
    for number in range(calls):
        begun = time.process_time()
        act(number)
        used.append(time.process_time() - begun)
    return statistics.median(used) * 1000


def _acts(given: dict) -> dict[str, float]:
    import kling_nb as kling
    from kling_nb.commands.run_line import run_words
    from kling_nb.session.api import current

    def asked(number: object) -> Any:
        return kling.submit(f"{_FIRST}{number}", duration=3, provider=given["wire"])

    mark = time.time_ns()
    calls = given["calls"]
    # Before anything is warm, so that a first look counts where it falls.
    first = _timed(lambda _: asked(f"first {mark}").wait(60), 1)

    def said(*words: str) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return run_words(current(), list(words)).text

    def spend_json(_: int) -> None:
        from kling_nb.spending.reconcile import costs

        json.dumps(costs(everything=True).data(), default=str)

    submit = _timed(lambda number: asked(f"{mark} {number}"), calls) if calls > 1 else first
    # The background carries those: it must be idle again before the next act is timed.
    for run in kling.runs(limit=calls):
        run.wait(60)
    return {
        "submit": submit,
        "re-run": _timed(lambda _: kling.submit(_FIRST, duration=3, provider=given["wire"]), calls),
        "runs()[:20]": _timed(lambda _: repr(kling.runs()[:20]), calls),
        "cost": _timed(lambda _: said("cost"), calls),
        "cost --all": _timed(lambda _: said("cost", "--all"), calls),
        "spend --json": _timed(spend_json, calls),
        "gallery": _timed(lambda _: repr(kling.gallery()), calls),
    }


if __name__ == "__main__":
    import measure as usage

    import kling_nb

    given = json.loads(sys.argv[2])
    if sys.argv[1] == "first":
        kling_nb.submit(_FIRST, duration=3, provider=given["wire"]).wait(60)
        usage.reply({})
    usage.reply(_acts(given))
