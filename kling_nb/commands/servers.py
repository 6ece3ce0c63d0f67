"""The commands that serve until they are interrupted: `sandbox serve` and `callbacks serve`.

Invariants: importing this imports nothing heavy, for `kling-nb --help` reads it; each prints one JSON line on
stdout, and only once it answers.
"""

from typing import Annotated

import typer

from kling_nb import errors

__all__ = ["callbacks_app", "sandbox_app"]

sandbox_app = typer.Typer(
    help="The loopback server that plays both providers.", no_args_is_help=True, rich_markup_mode=None
)
callbacks_app = typer.Typer(
    help="What Runflow calls when a run has ended.", no_args_is_help=True, rich_markup_mode=None
)


@sandbox_app.command("serve")
def sandbox_serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 0,
    wait_scale: Annotated[
        float | None, typer.Option(min=0, help="Multiplies every simulated wait; 0 = none.")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(metavar="NAME=RATE", help="A fault to inject.")] = None,
) -> None:
    """Serve both providers' wires on 127.0.0.1 until interrupted; prints one JSON line when ready."""
    from kling_nb.config.loading import load_settings
    from kling_nb.sandbox.faults.board import parse_faults
    from kling_nb.sandbox.serve import serve

    try:
        faults = parse_faults(fault or [])
    except ValueError as error:
        raise errors.UsageError(f"{error}.") from None
    try:
        serve(port, load_settings().sandbox_wait if wait_scale is None else wait_scale, faults)
    except OSError as error:
        raise errors.UsageError(
            f"The sandbox cannot listen on port {port}: {error.strerror}.", cure="Choose another one."
        ) from None


@callbacks_app.command("serve")
def callbacks_serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8790,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Take Runflow's signed callbacks until interrupted; prints one JSON line when ready.

    Runs that the ledger knows are then read at once. The secrets stand in KLING_NB_CALLBACK_SECRETS.
    """
    from kling_nb.team.callback_server import serve_callbacks

    serve_callbacks(host, port)
