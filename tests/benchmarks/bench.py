"""The benchmarks: `python tests/benchmarks/bench.py [SCENARIO ...] [--quick] [--rounds N]`.

Not tests: machines differ, so that each figure stands beside a peer's from the same rounds, in rotated order,
as medians. Results are kept as JSON in `tests/benchmarks/results/`, and `docs/benchmarks.md` is written from
them (`--report`); those of `--quick` go to `build/benchmarks/`, and nowhere else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clips
import growth
import measure
import report
import startup
import workers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CLIP, LARGE = 262_144, 20_000_000
IN_FLIGHT = 100_000
WIRES = ("runflow", "runcomfy")
PEERS = ("aiohttp", "clips", "durable", "threads", "fal", "runway")


class Stage:
    """The server, and clients in processes of their own beside it."""

    def __init__(self, folder: Path, origin: str, *, scale: float) -> None:
        self.folder, self.origin, self.scale = folder, origin, scale
        self.made = 0

    def call(self, what: str, given: dict | None = None) -> dict:
        """Speak to the server itself."""
        body = None if given is None else json.dumps(given).encode()
        with urllib.request.urlopen(f"{self.origin}/bench/{what}", data=body, timeout=60) as reply:
            return json.load(reply)

    def reset(self, **plan: Any) -> None:
        """Begin a measurement; runs take 5 to 20 s times the scale unless said otherwise."""
        self.call("reset", {"low_s": 5 * self.scale, "high_s": 20 * self.scale, **plan})

    def environment(self, *, folder: Path | None = None) -> dict[str, str]:
        """Variables of a client with nothing of the user's, and a ledger and a folder of its own."""
        self.made += 1
        folder = folder or self.folder / f"client{self.made}"
        folder.mkdir(parents=True, exist_ok=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            # Without bytecode each process would compile what it imports.
            if not name.startswith(("KLING_NB_", "RUNFLOW_", "RUNCOMFY_", "PYTHONDONTWRITE"))
        }
        return {
            **kept,
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "RUNFLOW_API_KEY": "made-up",
            "RUNCOMFY_API_TOKEN": "made-up",
            "KLING_NB_LEDGER": str(folder / "ledger.db"),
            "KLING_NB_MEDIA": str(folder / "kling_media"),
            "KLING_NB_RUNFLOW_URL": f"{self.origin}/runflow",
            "KLING_NB_RUNCOMFY_URL": f"{self.origin}/runcomfy",
            "KLING_NB_BUDGET": "900000",
            "KLING_NB_YES": "1",
            "KLING_NB_MAX_IN_FLIGHT": str(IN_FLIGHT),
            # The prior of a server on this machine is for runs of 3 to 12 s.
            "KLING_NB_SANDBOX_WAIT": str(round(self.scale * 5 / 3, 3)),
        }

    def client(self, script: str, name: str, *, folder: Path | None = None, **given: Any) -> dict:
        """Run a client to its end."""
        env = self.environment(folder=folder)
        given = {"origin": self.origin, "scale": self.scale, **given}
        command = [sys.executable, str(HERE / script), name, json.dumps(given)]
        done = subprocess.run(
            command, env=env, cwd=env["HOME"], capture_output=True, text=True, timeout=3600, check=False
        )
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise RuntimeError(f"{name}: {done.stdout[-500:]}\n{done.stderr[-3000:]}") from None


@contextmanager
def stage(*, scale: float) -> Iterator[Stage]:
    """Start the server; everything is gone afterwards."""
    clip = clips.make(ROOT / "build" / "benchmarks" / "clip.mp4", CLIP)
    with tempfile.TemporaryDirectory(prefix="kling-nb-bench-") as folder:
        server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(clip)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            yield Stage(Path(folder), json.loads(server.stdout.readline())["origin"], scale=scale)
        finally:
            server.kill()
            server.wait()


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _followed(scene: Stage, who: str, wire: str, runs: int) -> dict[str, Any]:
    """One client, so many runs; figures of the client and of the server together."""
    scene.reset()
    if who == "kling_nb":
        # The warm run is the first that the server sees.
        used, warm = scene.client("ours.py", "follow", wire=wire, runs=runs), 1
    else:
        used, warm = scene.client("peers.py", who, wire=wire, runs=runs), 0
    stats = scene.call("stats")
    made = stats["runs"][warm:]
    ideal = max((ends - born for _, born, ends, *_ in made), default=0)
    late = [seen - ends for _, _, ends, seen, *_ in made if seen]
    got = {int(number): moment for number, moment in used["got"].items()}
    last = max(got.values(), default=used["begun"] + used["wall_s"])
    if who == "kling_nb":
        number_of = {_id_number(run_id): number for run_id, number in used["ids"].items() if run_id}
        hand = [
            got[number_of[number]] - ends
            for number, _, ends, *_ in made
            if number in number_of and number_of[number] in got
        ]
    else:
        hand = []
    api = sum(count for kind, count in stats["requests"].items() if kind != "clip")
    # The warm run's own few requests are not the burst's.
    api = api * runs / (runs + warm)
    return {
        "right": len(got),
        "wall_ratio": (last - used["begun"]) / ideal if ideal else None,
        "cpu_ms": used["cpu_s"] / runs * 1000,
        "requests": api / runs,
        "late_p50_s": _median(late),
        "hand_p95_s": measure.p95(hand),
        "memory_mb": used["memory_mb"],
        "over_import_mb": used.get("over_import_mb"),
    }


def _id_number(run_id: str) -> int:
    return int(run_id[4:], 16)


def _medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    names = {name for one in rounds for name in one}
    return {n: _median([one[n] for one in rounds if one.get(n) is not None]) for n in sorted(names)}


def follow(options: argparse.Namespace, runs: int) -> dict[str, Any]:
    """So many runs at once, kling_nb on both wires beside the peers."""
    clients = [("kling_nb", wire) for wire in WIRES] + [("aiohttp", wire) for wire in WIRES]
    clients += [(who, "runcomfy") for who in PEERS if who != "aiohttp" and _fits(who, runs)]
    if options.only:
        clients = [pair for pair in clients if any(word in pair[0] for word in options.only.split(","))]
    found: dict[str, list[dict[str, Any]]] = {}
    with stage(scale=options.scale) as scene:
        for number in range(options.rounds):
            turn = number % len(clients)
            for who, wire in clients[turn:] + clients[:turn]:
                name = f"{who} {wire}" if who not in {"fal", "runway"} else who
                try:
                    one = _followed(scene, who, wire, runs)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    print(f"  {name}: {str(error)[-600:]}", file=sys.stderr)
                    one = {"right": 0}
                found.setdefault(name, []).append(one)
                print(f"  {name}: {json.dumps(one)}", file=sys.stderr, flush=True)
    return {"runs": runs, "clients": {name: _medians(rounds) for name, rounds in found.items()}}


def _fits(who: str, runs: int) -> bool:
    """Whether a peer can be asked for so many: reading every 0.1 s, or a thread each, has an end."""
    return runs <= {"fal": 1000, "threads": 1000, "runway": 1000}.get(who, 5000)


def submit(options: argparse.Namespace) -> dict[str, Any]:
    """One submit, also after the process idled, and bursts by one call and by many; no run ends meanwhile."""
    found: dict[str, list[dict[str, Any]]] = {}
    runs = options.runs or (100 if options.quick else 1000)
    with stage(scale=options.scale) as scene:
        for number in range(options.rounds):
            for wire in WIRES[number % 2 :] + WIRES[: number % 2]:
                scene.reset(low_s=600, high_s=610)
                floor = scene.client("peers.py", "durable", wire=wire, runs=runs, submit=True)
                scene.reset(low_s=600, high_s=610, first_s=0.2)
                used = scene.client("ours.py", "submit", wire=wire, runs=runs)
                found.setdefault(wire, []).append(
                    {
                        "single_ms": used["singles"][0],
                        "idle_single_ms": used["singles"][1],
                        "idle_usual": used["usual"][1] / used["usual"][0],
                        "burst_cpu_ms": used["burst"]["cpu_s"] / runs * 1000,
                        "floor_cpu_ms": floor["cpu_s"] / runs * 1000,
                        "burst_wall_s": used["burst"]["wall_s"],
                        "burst_opened_s": used["opened_s"],
                        "calls_cpu_ms": used["calls"]["cpu_s"] / runs * 1000,
                        "calls_wall_s": used["calls"]["wall_s"],
                        "call_ms": used["called_s"] / runs * 1000,
                    }
                )
    return {"runs": runs, "wires": {wire: _medians(rounds) for wire, rounds in found.items()}}


def faults(options: argparse.Namespace) -> dict[str, Any]:
    """5 % of all answers 500, 5 % 429, 2 % cut off: who has the clip, who paid twice, what is missing."""
    runs = options.runs or (100 if options.quick else 1000)
    found = {}
    with stage(scale=options.scale) as scene:
        for wire in WIRES:
            scene.reset(failing=0.05, limited=0.05, dropped=0.02)
            used = scene.client("ours.py", "faults", wire=wire, runs=runs, limit_s=900)
            words = [words for *_, words in scene.call("stats")["runs"]]
            delivered, lost = set(used["delivered"]), set(used["lost"])
            found[wire] = {
                "right": len(delivered),
                "doubled": len(words) - len(set(words)),
                "not_delivered": len(set(words) - delivered - lost),
                "lost": len(lost),
                "lost_and_paid": len(lost & set(words)),
                "ends": used["ends"],
                "refused": used["refused"],
                "wall_s": used["wall_s"],
            }
    return {"runs": runs, "wires": found}


def download(options: argparse.Namespace) -> dict[str, Any]:
    """A clip of 20 MB: from the request for it to the verified file, beside a raw socket.

    The request is timed by the server. The file is there once it was hashed, checked, synced and has its name
    alone, of which the system keeps the time; the run ends later: its cost is asked for once more, its
    receipt is written, and the ledger commits. The raw socket checks and syncs nothing.
    """
    large = clips.make(ROOT / "build" / "benchmarks" / "large.mp4", LARGE)
    ours, done, raw = [], [], []
    with stage(scale=options.scale) as scene:
        for number in range(max(5, options.rounds)):
            for who in ("ours", "raw") if number % 2 else ("raw", "ours"):
                scene.reset(low_s=0.2, high_s=0.3, clip=str(large))
                if who == "ours":
                    used = scene.client("ours.py", "download", wire="runcomfy", round=number)
                    asked = scene.call("stats")["runs"][-1][4]
                    ours.append(used["kept"] - asked)
                    done.append(used["got"] - asked)
                else:
                    raw.append(scene.client("startup.py", "raw")["seconds"])
    mine, theirs = statistics.median(ours), statistics.median(raw)
    ended = statistics.median(done)
    return {"ours_s": mine, "done_s": ended, "raw_s": theirs, "ratio": theirs / mine, "rounds": len(ours)}


def disk(options: argparse.Namespace) -> dict[str, Any]:
    """Commits and syncs a run."""
    runs = options.runs or (50 if options.quick else 1000)
    found = {}
    with stage(scale=options.scale) as scene:
        for wire in WIRES:
            scene.reset()
            used = scene.client("ours.py", "follow", wire=wire, runs=runs, count=True)
            found[wire] = {name: count / runs for name, count in used["disk"].items()}
    return {"runs": runs, "wires": found}


def _worked(options: argparse.Namespace) -> dict[str, Any]:
    with stage(scale=options.scale) as scene:
        return workers.measure(
            scene, rounds=options.rounds, runs=options.runs or (100 if options.quick else 2000)
        )


def _grown(options: argparse.Namespace) -> dict[str, Any]:
    with stage(scale=options.scale) as scene:
        return growth.measure(scene, quick=options.quick, rows=options.runs)


def _started(options: argparse.Namespace) -> dict[str, Any]:
    with stage(scale=options.scale) as scene:
        return startup.measure(scene, rounds=options.rounds)


def _called(options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "callbacks.py"), "--times", "20" if options.quick else "2"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


SCENARIOS = {
    "startup": _started,
    "submit": submit,
    "runs100": lambda options: follow(options, options.runs or (20 if options.quick else 100)),
    "runs1000": lambda options: follow(options, options.runs or (100 if options.quick else 1000)),
    "runs5000": lambda options: follow(options, options.runs or (200 if options.quick else 5000)),
    "faults": faults,
    "download": download,
    "growth": _grown,
    "disk": disk,
    "workers": _worked,
    "callbacks": _called,
}


def main() -> None:
    """Run the scenarios that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="fewer runs of a fifth of the length, one round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--runs", type=int, help="how many, instead of the scenario's own number")
    parser.add_argument("--only", help="of the clients, only those whose names hold one of these words")
    parser.add_argument("--scale", type=float, help="multiplies the length of the runs")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md from what is kept")
    parser.add_argument("--check", action="store_true", help="say whether docs/benchmarks.md is up to date")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    if options.check:
        sys.exit(0 if report.is_current(HERE / "results") else "docs/benchmarks.md is not what was measured")
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.scale = options.scale or (0.2 if options.quick else 1.0)
    folder = ROOT / "build" / "benchmarks" / "results" if options.quick else HERE / "results"
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.scenarios or ([] if options.report else SCENARIOS):
        print(f"== {name}", file=sys.stderr, flush=True)
        result = {
            "scenario": name,
            "scale": options.scale,
            "rounds": options.rounds,
            **report.machine(),
            **SCENARIOS[name](options),
        }
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
        print(report.table(result), flush=True)
    if options.report or not (options.quick or options.scenarios):
        report.write(HERE / "results")


if __name__ == "__main__":
    main()
