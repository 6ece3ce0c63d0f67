"""The goals that the figures are held against, and where kling_nb loses: derived from the results."""

from collections.abc import Iterator
from typing import Any

#: By scenario and figure: the most, or with a minus sign the least, that it should be.
_FOLLOWED = {
    "runs1000": {"runflow": {"wall_ratio": 1.05, "hand_p95_s": 0.6, "requests": 1.5}},
    "runs5000": {"runflow": {"wall_ratio": 1.10}, "runcomfy": {"wall_ratio": 1.3}},
}
_FOLLOWED["runs1000"]["runcomfy"] = {"wall_ratio": 1.3, "hand_p95_s": 2.2, "requests": 8.0}
_CPU_OVER_BARE = {"runflow": 1.5, "runcomfy": 2.5}
_MEMORY_MB = 20.0
_START_MS = {
    "%load_ext kling_nb": 10.0,
    "first %%kling, typed for 2 s": 200.0,
    "kling-nb --version": 150.0,
    "kling-nb --help": 150.0,
    "kling-nb runs": 400.0,
}
_WORDS = {
    "wall_ratio": "wall over ideal",
    "hand_p95_s": "done to clip in hand, p95 s",
    "requests": "requests a run",
    "cpu_ms": "CPU ms a run",
    "memory_mb": "memory, MB",
    "late_p50_s": "late, p50 s",
}
#: Acts that list everything: what they show grows with it.
_LISTINGS = {"cost --all", "spend --json"}
Goal = tuple[str, str, float, float, bool]


def _followed(result: dict[str, Any]) -> Iterator[Goal]:
    name, clients = result["scenario"], result["clients"]
    where = f"{result['runs']:,} at once"
    for wire, goals in _FOLLOWED.get(name, {}).items():
        mine = clients[f"kling_nb {wire}"]
        for figure, most in goals.items():
            value = mine.get(figure)
            yield f"{where}, {wire}", _WORDS[figure], value, most, value is not None and value <= most
    for wire, most in _CPU_OVER_BARE.items() if name == "runs1000" else ():
        ratio = clients[f"kling_nb {wire}"]["cpu_ms"] / clients[f"aiohttp {wire}"]["cpu_ms"]
        yield f"{where}, {wire}", "CPU over bare aiohttp", ratio, most, ratio <= most
        memory = clients[f"kling_nb {wire}"]["over_import_mb"]
        yield f"{where}, {wire}", "memory over the import, MB", memory, _MEMORY_MB, memory <= _MEMORY_MB
    if name == "runs1000":
        mine = clients["kling_nb runcomfy"]
        product = (mine["requests"] - 2) * mine["late_p50_s"]
        yield f"{where}, runcomfy", "(requests - 2) x p50 lateness", product, 5.0, product <= 5
    for who, found in clients.items():
        if who.startswith("kling_nb"):
            yield (
                f"{where}, {who[9:]}",
                "right",
                found["right"],
                result["runs"],
                found["right"] >= result["runs"],
            )


def _started(result: dict[str, Any]) -> Iterator[Goal]:
    for act, most in _START_MS.items():
        value = result["wall_ms"][act]
        yield "start", f"{act}, ms", value, most, value <= most


def _submitted(result: dict[str, Any]) -> Iterator[Goal]:
    for wire, found in result["wires"].items():
        single, burst = found["single_ms"], found["burst_cpu_ms"]
        yield f"submit, {wire}", "one submit, ms", single, 5.0, single <= 5
        yield f"submit, {wire}", "CPU ms a submit in a burst", burst, 1.5, burst <= 1.5


def _failed(result: dict[str, Any]) -> Iterator[Goal]:
    for wire, found in result["wires"].items():
        for figure in ("doubled", "not_delivered"):
            yield f"faults, {wire}", figure.replace("_", " "), found[figure], 0, not found[figure]
        # RunComfy has no list in which a lost answer could be looked for.
        comfy = wire == "runcomfy"
        right = found["right"] + (found["lost"] if comfy else 0)
        words = "right, or shown as lost" if comfy else "right"
        yield f"faults, {wire}", words, right, result["runs"], right >= result["runs"]


def _downloaded(result: dict[str, Any]) -> Iterator[Goal]:
    yield "20 MB", "speed over a raw socket", result["ratio"], 0.6, result["ratio"] >= 0.6


def _grown(result: dict[str, Any]) -> Iterator[Goal]:
    for kind, sizes in result["sizes"].items():
        none, *_, most = sizes
        for act in sizes[none]:
            if act in _LISTINGS and kind == "runs":
                each = sizes[most][act] * 1000 / int(most)
                yield f"{int(most):,} {kind}", f"{act}, CPU us a run", each, 10.0, each <= 10
            elif act != "first_submit":
                ratio = sizes[most][act] / max(sizes[none][act], 0.1)
                yield f"{int(most):,} {kind}", f"{act} over {int(none):,}", ratio, 2.0, ratio <= 2


def _synced(result: dict[str, Any]) -> Iterator[Goal]:
    for wire, found in result["wires"].items():
        yield f"disk, {wire}", "synced commits a run", found["synced"], 2.0, found["synced"] <= 2


def _called(result: dict[str, Any]) -> Iterator[Goal]:
    ratio = result["ways"]["called"]["mean_s"] / result["ways"]["polled"]["mean_s"]
    yield "callbacks", "late on average, over that of polling", ratio, 1.0, ratio <= 1


_OTHERS = {
    "startup": _started,
    "submit": _submitted,
    "faults": _failed,
    "download": _downloaded,
    "growth": _grown,
    "disk": _synced,
    # Beside themselves: one worker and several.
    "workers": lambda _result: iter(()),
    "callbacks": _called,
}


def _behind(result: dict[str, Any]) -> Iterator[str]:
    """Figures of one round in which a peer does better."""
    if not result["scenario"].startswith("runs"):
        return
    clients = result["clients"]
    for wire in ("runflow", "runcomfy"):
        mine = clients[f"kling_nb {wire}"]
        for figure in ("wall_ratio", "cpu_ms", "requests", "late_p50_s", "memory_mb"):
            peers = {
                who: found[figure]
                for who, found in clients.items()
                if not who.startswith("kling_nb") and found.get(figure) is not None
            }
            best = min(peers, key=lambda who: peers[who], default=None)
            if best is not None and mine.get(figure) is not None and mine[figure] > peers[best]:
                yield (
                    f"- {result['runs']:,} at once, {wire}, {_WORDS[figure]}:"
                    f" {mine[figure]:.2f}, and {best} {peers[best]:.2f}"
                )


def losses(results: list[dict[str, Any]]) -> str:
    """The goals, met and missed, and every figure in which a peer does better."""
    lines = [
        "## Goals",
        "",
        "| where | figure | measured | goal | met |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    behind: list[str] = []
    for result in results:
        goals = _OTHERS.get(result["scenario"], _followed)(result)
        for where, figure, value, most, met in goals:
            shown = "-" if value is None else f"{value:,.2f}".removesuffix(".00")
            lines.append(f"| {where} | {figure} | {shown} | {most:g} | {'yes' if met else '**no**'} |")
        behind += _behind(result)
    lines += ["", "## Where we lose", ""]
    lines += ["Every figure of a table below in which a peer, without ledger or clips, does better:", ""]
    return "\n".join([*lines, *(behind or ["- none"]), ""])
