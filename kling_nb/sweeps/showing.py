"""What a face does for a sweep: this package knows no notebook."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from kling_nb.views.stills import Grid

if TYPE_CHECKING:
    from kling_nb.engine.run import Run
    from kling_nb.engine.runs import Runs
    from kling_nb.sweeps.sweep import Sweep

__all__ = ["Views"]


class Views(Protocol):
    """What shows a sweep and its clips; a face fills it in."""

    @property
    def carded(self) -> bool:
        """Whether a page keeps the card of a sweep true while it is waited for."""
        ...

    def show(self, sweep: "Sweep") -> Callable[[], None]:
        """Draw its quote, or its card; gives what makes the output follow it from then on."""
        ...

    def gallery(self, grid: Grid, runs: "Mapping[int, Run]") -> Any:
        """Make a contact sheet in rows and columns."""
        ...

    def compare(self, runs: "Runs") -> Any:
        """Put clips side by side."""
        ...

    def rate(self, runs: "Runs", **options: Any) -> Any:
        """Vote on pairs."""
        ...
