"""`python -m kling_nb.sandbox`: the sandbox as a process, without the rest of the command line."""

from __future__ import annotations

import argparse

from kling_nb.sandbox.faults.board import parse_faults
from kling_nb.sandbox.serve import serve


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and serve until a signal comes.

    Args:
        arguments: Instead of those of the process.

    Raises:
        SystemExit: 2 for a wrong option.
    """
    parser = argparse.ArgumentParser(prog="python -m kling_nb.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--wait-scale", type=float, default=1.0, help="multiplies every simulated wait")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=RATE", help="set a switch")
    parser.add_argument("--seed", type=int, default=None, help="make ids and dice repeatable")
    options = parser.parse_args(arguments)
    try:
        serve(options.port, options.wait_scale, parse_faults(options.fault), options.seed)
    except (ValueError, OSError) as wrong:
        parser.error(str(wrong))


if __name__ == "__main__":
    main()
