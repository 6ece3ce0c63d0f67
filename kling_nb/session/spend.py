"""The money of one session, in dollars."""

from dataclasses import dataclass
from decimal import Decimal

from kling_nb.records.money import Totals, dollars, usd_of
from kling_nb.views.html import tag

__all__ = ["Spend"]


@dataclass(frozen=True, kw_only=True)
class Spend:
    """A session's money in dollars.

    Args:
        spent: On the books.
        reserved: Reserved for runs that are not settled.
        unknown: Ended runs whose charge nobody knows.
        cap: What this session may spend, or None.
        left: What may still be spent under the tightest cap (`%kling budget` names it), or None.
        play: The same for the sandbox's play money.

    Example:
        >>> Spend.of(Totals()).unknown
        0
    """

    spent: Decimal
    reserved: Decimal
    unknown: int
    cap: Decimal | None
    left: Decimal | None
    play: "Spend | None" = None

    @classmethod
    def of(cls, totals: Totals, play: "Spend | None" = None) -> "Spend":
        """Turn totals into dollars."""
        return cls(
            spent=dollars(totals.settled_micros) or Decimal(0),
            reserved=dollars(totals.reserved_micros) or Decimal(0),
            unknown=totals.unknown,
            cap=dollars(totals.cap_micros),
            left=dollars(totals.left_micros),
            play=play,
        )

    def __repr__(self) -> str:
        held = f" + {usd_of(self.reserved)} reserved" if self.reserved else ""
        unknown = f" + {self.unknown} unknown" if self.unknown else ""
        cap = ", no cap" if self.cap is None else f" of {usd_of(self.cap)}"
        left = "" if self.left is None else f", {usd_of(self.left)} left"
        play = f"; play money: {self.play}" if self.play else ""
        return f"{usd_of(self.spent)} spent{held}{unknown}{cap}{left}{play}"

    def _repr_html_(self) -> str:
        return tag("div", repr(self))
