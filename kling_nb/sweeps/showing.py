"""What a face does for a sweep: this package knows no notebook."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kling_nb.engine.runs import Runs
    from kling_nb.sweeps.sweep import Sweep

__all__ = ["Views"]


class Views(Protocol):
    """What shows a sweep and its clips; a face fills it in."""

    def show(self, sweep: "Sweep") -> None:
        """Draw its quote, or its card."""
        ...

    def gallery(self, runs: "Runs") -> Any:
        """Make a contact sheet."""
        ...

    def compare(self, runs: "Runs") -> Any:
        """Put clips side by side."""
        ...

    def rate(self, runs: "Runs", **options: Any) -> Any:
        """Vote on pairs."""
        ...
