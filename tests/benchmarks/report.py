"""The tables of the benchmarks, and `docs/benchmarks.md`, which holds nothing that was not measured."""

import json
import math
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
_PACKAGES = ("kling-nb", "aiohttp", "httpx", "requests", "fal-client", "runwayml", "ipywidgets", "sqlalchemy")
_ORDER = (
    "startup",
    "submit",
    "runs100",
    "runs1000",
    "runs5000",
    "faults",
    "download",
    "growth",
    "disk",
    "workers",
    "callbacks",
)
_NAMES = {
    "kling_nb runflow": "kling_nb, Runflow",
    "kling_nb runcomfy": "kling_nb, RunComfy",
    "aiohttp runflow": "bare aiohttp, Runflow",
    "aiohttp runcomfy": "bare aiohttp, RunComfy",
    "clips runcomfy": "bare aiohttp that fetches clips, RunComfy",
    "durable runcomfy": "bare aiohttp that writes down as much, RunComfy",
    "threads runcomfy": "a thread a run (requests), RunComfy",
    "fal": "fal-client",
    "runway": "runwayml",
}
_INTRO = """# Benchmarks

Written by `python tests/benchmarks/bench.py --report` from the results in `tests/benchmarks/results/`; no
figure here was typed. `make bench` measures everything again (about an hour); one scenario alone is
`python tests/benchmarks/bench.py runs1000`, and `--quick` gives a fast look that is not kept.

A queue server of its own process stands in for every provider, on the same machine: it answers both wires
and those of two peers, hands out MP4 files of 262,144 bytes, and its runs take 5 to 20 s, the same in the
same order for every client. kling_nb keeps its ledger and downloads, verifies and keeps every clip. The
peers keep no ledger, and but for the two that are named so they download nothing. The one that "writes down
as much" makes the same facts durable in the same order (rows, claims, receipts, the clip), without retries,
checks or caps: what the promises alone cost. `fal-client` and `runwayml` wait as they do by themselves,
every 0.1 s and every 6 s; the bare loops and the threads read once a second. Clients take turns within a
round, in rotated order, each in a process of its own; figures are medians of the rounds. Compare columns of
one table, and no milliseconds of two.
"""


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
    }


def _figure(value: Any, digits: int = 2) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(result: dict[str, Any]) -> str:
    """A scenario's result as a table."""
    name = result["scenario"]
    drawn = _followed if name.startswith("runs") else _DRAWN[name]
    load = f"load {result['load']} when it began; {result['day']}"
    title = _title(result)
    return f"## {title}\n\n{drawn(result)}\n\n`bench.py {name}`, rounds: {result['rounds']}, {load}.\n"


def _title(result: dict[str, Any]) -> str:
    name = result["scenario"]
    if name.startswith("runs"):
        low, high = 5 * result["scale"], 20 * result["scale"]
        return f"{result['runs']:,} runs at once, {low:g} to {high:g} s each"
    return {
        "startup": "Start: imports, first cells, command line",
        "submit": "Submit, until the provider's id is durable",
        "faults": "Faults: 5 % HTTP 500, 5 % HTTP 429, 2 % of connections cut",
        "download": "A clip of 20 MB, downloaded and verified",
        "growth": "Growth: what a call costs, in ms of processor",
        "disk": "Commits and syncs a run",
        "workers": "Workers: detached runs on a ledger in PostgreSQL",
        "callbacks": "Callbacks: how late the end of a run is noticed",
    }[name]


def _followed(result: dict[str, Any]) -> str:
    columns = ("right", "wall_ratio", "cpu_ms", "requests", "late_p50_s", "hand_p95_s", "memory_mb")
    head = [
        "client",
        "right",
        "wall over ideal",
        "CPU ms a run",
        "requests a run",
        "late, p50 s",
        "done to clip in hand, p95 s",
        "memory over a first run, MB",
    ]
    digits = {"right": 0, "cpu_ms": 1, "memory_mb": 0}
    rows = [
        [_NAMES[who], *(_figure(found.get(column), digits.get(column, 2)) for column in columns)]
        for who, found in result["clients"].items()
    ]
    lines = [_rows(head, rows), ""]
    for wire, name in (("runflow", "Runflow"), ("runcomfy", "RunComfy")):
        mine, bare = (result["clients"].get(f"{who} {wire}", {}) for who in ("kling_nb", "aiohttp"))
        if mine.get("cpu_ms") and bare.get("cpu_ms"):
            facts = [f"CPU over bare aiohttp: {mine['cpu_ms'] / bare['cpu_ms']:.1f} x"]
            if floor := result["clients"].get("durable runcomfy", {}).get("cpu_ms"):
                facts.append(f"over the one that writes down as much: {mine['cpu_ms'] / floor:.1f} x")
            if mine.get("late_p50_s") is not None and wire == "runcomfy":
                facts.append(
                    f"(requests - 2) x p50 lateness: {(mine['requests'] - 2) * mine['late_p50_s']:.1f}"
                )
            if mine.get("over_import_mb") is not None:
                facts.append(f"memory over the import of all it uses: {mine['over_import_mb']:.0f} MB")
            lines.append(f"{name}: {'; '.join(facts)}.")
    return "\n".join(lines)


def _submitted(result: dict[str, Any]) -> str:
    head = [
        "wire",
        "one `submit`, ms",
        "after 0.2 s idle, ms",
        "`argparse` after 0.2 s, over 0.02 s",
        "burst of one call: CPU ms each",
        "bare loop that writes down as much",
    ]
    head += ["opened, s", "durable, s"]
    head += ["burst of a call each: CPU ms each", "ms a call", "durable, s"]
    names = (
        "single_ms",
        "idle_single_ms",
        "idle_usual",
        "burst_cpu_ms",
        "floor_cpu_ms",
        "burst_opened_s",
        "burst_wall_s",
        "calls_cpu_ms",
        "call_ms",
    )
    rows = [
        [wire, *(_figure(found[name]) for name in (*names, "calls_wall_s"))]
        for wire, found in result["wires"].items()
    ]
    words = (
        f"Bursts of {result['runs']:,}. One `submit` begins 0.02 s after the one before, or after 0.2 s in "
        "which the process idles: whatever Python does then may take longer on this machine, as a parser of "
        "`argparse` that is built and printed shows beside it."
    )
    return f"{words}\n\n" + _rows(head, rows)


def _failed(result: dict[str, Any]) -> str:
    head = ["wire", "right", "doubled", "paid and not delivered", "shown as lost", "of these paid", "refused"]
    names = ("right", "doubled", "not_delivered", "lost", "lost_and_paid", "refused")
    rows = [[wire, *(_figure(found[name], 0) for name in names)] for wire, found in result["wires"].items()]
    return f"{result['runs']:,} runs of different prompts.\n\n" + _rows(head, rows)


def _downloaded(result: dict[str, Any]) -> str:
    rows = [
        ["kling_nb, hashed, checked and synced", _figure(result["ours_s"], 3)],
        ["kling_nb, until the run has ended", _figure(result["done_s"], 3)],
        ["raw socket into a file", _figure(result["raw_s"], 3)],
    ]
    return f"{_rows(['client', 'seconds'], rows)}\n\nSpeed over the raw socket: {result['ratio']:.2f}."


def _grown(result: dict[str, Any]) -> str:
    parts = []
    for kind, word in (("runs", "runs in the ledger"), ("clips", "clips in the folder")):
        sizes = result["sizes"][kind]
        none, *_, most = sizes
        head = ["call", *(f"{int(size):,} {word}" for size in sizes), "most over least"]
        rows = [
            [
                act.replace("first_submit", "first submit of a process"),
                *(_figure(sizes[size][act], 1) for size in sizes),
                f"{sizes[most][act] / max(sizes[none][act], 0.1):.1f} x",
            ]
            for act in sizes[none]
        ]
        parts.append(_rows(head, rows))
    return "\n\n".join(parts)


def _synced(result: dict[str, Any]) -> str:
    head = ["wire", "commits that write", "of these synced", "other syncs (`os.fsync`)"]
    rows = [
        [wire, *(_figure(float(found[name])) for name in ("commits", "synced", "syncs"))]
        for wire, found in result["wires"].items()
    ]
    return f"At {result['runs']:,} runs at once, a run.\n\n" + _rows(head, rows)


def _worked(result: dict[str, Any]) -> str:
    head = ["workers", "right", "runs a second", "CPU ms a run", "ms a run to leave them"]
    rows = [
        [
            count,
            _figure(found["right"], 0),
            *(_figure(found[name], 1) for name in ("a_second", "cpu_ms", "left_ms")),
        ]
        for count, found in result["workers"].items()
    ]
    words = (
        f"{result['runs']:,} runs at Runflow, until the last worker has ended; its start is part of the time."
    )
    return f"{words}\n\n{_rows(head, rows)}"


def _called(result: dict[str, Any]) -> str:
    head = ["way", "right", "late, mean s", "p50 s", "p95 s", "requests a run"]
    names = ("mean_s", "p50_s", "p95_s", "requests")
    rows = [
        [way, _figure(found["right"], 0), *(_figure(found[name]) for name in names)]
        for way, found in result["ways"].items()
    ]
    words = (
        f"{result['runs']} runs of 60 to 300 s at the sandbox, in ten kernels that know twenty earlier ones; "
        f"time runs {result['times']:g} x as fast, and seconds are the runs' own. What a real provider takes "
        "until it calls comes on top."
    )
    return f"{words}\n\n{_rows(head, rows)}"


def _begun(result: dict[str, Any]) -> str:
    wall, least, cpu = result["wall_ms"], result["least_ms"], result["cpu_ms"]
    least_of = {True: "import ipywidgets (kernel)", False: "python -c pass"}
    in_kernel = {name for name in wall if name.startswith(("%", "first", "second", least_of[True]))}
    head = ["what", "median ms", "least ms", "CPU ms", "CPU over `import ipywidgets`, or an empty Python"]
    rows = [
        [
            f"`{name}`" if "," not in name else name,
            _figure(wall[name], 1),
            _figure(least[name], 1),
            _figure(cpu.get(name), 1),
            _figure(cpu[name] / cpu[least_of[name in in_kernel]]),
        ]
        for name in wall
    ]
    return _rows(head, rows)


_DRAWN = {
    "startup": _begun,
    "submit": _submitted,
    "faults": _failed,
    "download": _downloaded,
    "growth": _grown,
    "disk": _synced,
    "workers": _worked,
    "callbacks": _called,
}


def page(results: list[dict[str, Any]]) -> str:
    """The whole page from the results."""
    from goals import losses

    newest = max(results, key=lambda one: one["day"])
    packages = ", ".join(f"{name} {number}" for name, number in newest["versions"].items())
    missing = [name for name in _ORDER if name not in {one["scenario"] for one in results}]
    load = max(one["load"] for one in results)
    notes = []
    if load > newest["cores"]:
        notes.append(
            f"The machine did other work meanwhile (load up to {load:g} on {newest['cores']} cores): seconds"
            " and what follows from them are too high, for every client; counts and ratios of processor"
            " time hold."
        )
    if missing:
        notes.append(f"Not measured here: {', '.join(missing)}.")
    facts = f"Python {newest['python']}, {newest['cores']} cores, {newest['memory_gb']} GB; {packages}."
    measured = [f"Measured with {facts}", *notes, ""]
    parts = [_INTRO, "\n".join(measured), losses(results), *(table(one) for one in results)]
    return "\n".join(parts)


def read(folder: Path) -> list[dict[str, Any]]:
    """Every result that is kept, in the order of the page."""
    paths = [folder / f"{name}.json" for name in _ORDER]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def write(folder: Path) -> None:
    """Write the page."""
    if results := read(folder):
        PAGE.write_text(page(results), encoding="utf-8")


def is_current(folder: Path) -> bool:
    """Whether the page says what was measured, and nothing else."""
    return PAGE.read_text(encoding="utf-8") == page(read(folder))
