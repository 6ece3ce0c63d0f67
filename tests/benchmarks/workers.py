"""Detached runs on a PostgreSQL ledger: how fast one worker is, and several."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.databases import look, schema, server  # noqa: E402 - it stands beside this folder

if TYPE_CHECKING:
    from bench import Stage

WORKERS = (1, 4)


def measure(scene: "Stage", *, rounds: int, runs: int) -> dict[str, Any]:
    """Have the same number of runs sent by one worker and by four, in turns.

    Args:
        scene: The server and the clients beside it.
        rounds: How often.
        runs: How many each time.

    Returns:
        Medians by number of workers.
    """
    postgres = server(scene.folder)
    found: dict[int, list[dict[str, float]]] = {}
    for number in range(rounds):
        for count in WORKERS if number % 2 else reversed(WORKERS):
            with schema(postgres.get_uri()) as address:
                found.setdefault(count, []).append(_once(scene, address, runs, count))
    return {
        "runs": runs,
        "workers": {
            str(count): {
                name: statistics.median([one[name] for one in found[count]]) for name in found[count][0]
            }
            for count in WORKERS
        },
    }


def _once(scene: "Stage", address: str, runs: int, count: int) -> dict[str, float]:
    scene.reset()
    env = {**scene.environment(), "KLING_NB_LEDGER": address}
    left = subprocess.run(
        [sys.executable, str(HERE / "ours.py"), "leave", json.dumps({"wire": "runflow", "runs": runs})],
        env=env,
        cwd=env["HOME"],
        capture_output=True,
        text=True,
        check=True,
    )
    begun = time.time()
    command = [sys.executable, "-m", "kling_nb", "worker", "--until-empty", "--concurrency", str(runs)]
    workers = [
        subprocess.Popen(command, env=env, cwd=env["HOME"], stderr=subprocess.DEVNULL) for _ in range(count)
    ]
    cpu_s = 0.0
    for worker in workers:
        _, _, used = os.wait4(worker.pid, 0)
        cpu_s += used.ru_utime + used.ru_stime
    wall_s = time.time() - begun
    [(right,)] = look(address, "SELECT count(*) FROM runs WHERE status = 'succeeded'")
    one = {
        "right": right,
        "a_second": runs / wall_s,
        "cpu_ms": cpu_s / runs * 1000,
        "left_ms": json.loads(left.stdout.splitlines()[-1])["left_s"] / runs * 1000,
    }
    print(f"  {count} workers: {json.dumps(one)}", file=sys.stderr, flush=True)
    return one
