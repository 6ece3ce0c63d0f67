"""`%kling cost`: the line read, and the report shown.

Invariants: it sends no run; without `--reconcile` it asks nobody; what it shows and what it gives back are
one report.
"""

from kling_nb.notebook.order import Order
from kling_nb.notebook.shown import Shown
from kling_nb.notebook.values import wrong
from kling_nb.spending.reconcile import costs
from kling_nb.spending.sums import DIMENSIONS, read_day
from kling_nb.views.html import Html

__all__ = ["cost"]


def cost(order: Order) -> Shown:
    """Show what was spent, and give the report.

    Args:
        order: The line, with the flags `--all`, `--by`, `--since`, `--until`, `--project` and `--reconcile`.

    Returns:
        The answer; its value is a `CostReport`.

    Raises:
        UsageError: A flag makes no sense.
    """
    flags = order.flags
    for name in ("--by", "--project"):
        if name in flags and not flags[name].strip():
            cure = f"It takes some of {', '.join(DIMENSIONS)}." if name == "--by" else "It takes a name."
            raise wrong(f"`%kling cost` needs something after {name}.", cure)
    report = costs(
        by=flags.get("--by"),
        everything="--all" in flags,
        since=read_day(flags["--since"], "--since") if "--since" in flags else None,
        until=read_day(flags["--until"], "--until") if "--until" in flags else None,
        project=flags.get("--project"),
        reconcile="--reconcile" in flags,
        session=order.session,
    )
    return Shown(html=Html(report._repr_html_()), text=repr(report), value=report)
