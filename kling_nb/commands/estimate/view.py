"""The bill of a notebook as a table and sentences, and as plain data for programs.

Invariants: a sum with an unknown part says so; play money stands apart; what is foreign is escaped.
"""

from typing import TYPE_CHECKING, Any, Literal

from kling_nb.commands.answer import Answer, answer
from kling_nb.commands.estimate.bill import CellBill, NotebookBill, estimate_notebook
from kling_nb.commands.models import whole_days
from kling_nb.commands.order import CommandCall
from kling_nb.commands.syntax.values import wrong
from kling_nb.errors import one_line
from kling_nb.pricing.estimate import Quote
from kling_nb.records.money import Totals, plain_usd, usd
from kling_nb.views.html import AMBER, BLUE, GREEN, GREY, RED, pill, prose
from kling_nb.views.tables import filled
from kling_nb.views.words import clock, counted, session_words, short

if TYPE_CHECKING:
    from kling_nb.views.tables import Part

__all__ = ["estimate", "show_bill"]

_HEADS = ["cell", "would be", "cost", "what", "name", "takes", "why"]
_ALIGN = "rlrgllg"
#: The other states end Run All.
_COLOURS = {"new": BLUE, "pending": BLUE, "reused": GREEN, "dry run": GREY, "unknown": AMBER}
#: What says nothing of whether real money would be spent.
_COSTLESS = {"unknown", "invalid", "dry run"}


def estimate(call: CommandCall) -> Answer:
    """Say what running a notebook would cost: the one that is open, or the one that is named."""
    path = call.notebook("%kling estimate")
    if not path.is_file():
        raise wrong(f"There is no file {path}.", "Save the notebook, or name another one.")
    return show_bill(estimate_notebook(call.session, path, headless="--headless" in call.flags))


def show_bill(bill: NotebookBill) -> Answer:
    """Show a bill.

    Args:
        bill: Of a notebook.

    Returns:
        The answer; its value is plain data.
    """
    parts: list[Part] = [*_facts(bill)]
    if rows := [_row(cell) for cell in bill.cells]:
        parts += ["", filled(_HEADS, rows, _ALIGN, "name")]
    return answer(parts, value=_value(bill))


def _row(cell: CellBill) -> list[object]:
    counts = ((cell.new, "new"), (cell.pending, "pending"), (cell.reused, "reused"))
    basis = cell.price.basis if cell.price is not None and cell.state == "new" else ""
    why = "; ".join(part for part in (one_line(cell.why), basis) if part)
    cost = "" if cell.state in {"blocked", "invalid"} else str(cell.quote) + (" play" if cell.play else "")
    return [
        f"{cell.cell}:{cell.line}" if cell.line > 1 else str(cell.cell),
        pill(cell.state, _COLOURS.get(cell.state, RED)),
        "unknown" if cell.quote.unknown else cost,
        short(cell.words.replace("`", ""), 40),
        cell.name or "",
        ", ".join(f"{count} {word}" for count, word in counts if count),
        prose(why) if "`" in why else whole_days(why),
    ]


def _facts(bill: NotebookBill) -> list[str]:
    file = f"`{one_line(bill.notebook.name)}` as saved at {clock(bill.saved_at, date=True)}"
    facts = [f"{file}: nothing was run, nothing was sent. What has changed since is not in it; save first."]
    if not bill.cells:
        return [*facts, "No cell of it asks for a clip.", *bill.notes]
    for totals in bill.totals:
        play, quote = totals.play, bill.quote(play=totals.play)
        if not play and {cell.play or cell.state for cell in bill.cells} - _COSTLESS == {True}:
            facts.append(
                f"{'None' if bill.complete else 'Nothing that is known'} of it would cost real money."
            )
            continue
        cost = "In play money it" if play else "Running all of it"
        # Without a known sum the quote itself says "unknown".
        least = "at least " if not bill.complete and (quote.known_micros or not quote.unknown) else ""
        held = f", {usd(quote.reserve_micros)} reserved" if quote.reserve_micros != quote.known_micros else ""
        amount = (
            f"{least}**{quote}**{held}"
            if quote.known_micros or not quote.unknown
            else "an **unknown** amount"
        )
        facts.append(f"{cost} would cost {amount} ({_runs(bill, play=play)}).")
        facts.append(_budget(totals, quote))
    facts.append(_end(bill))
    if bill.consent is not None:
        facts.append(f"Where nobody is watching it would be refused: {bill.consent}")
    elif bill.quote().reserve_micros:
        facts.append("Where nobody is watching it needs no further consent.")
    return [*facts, *bill.notes]


def _runs(bill: NotebookBill, *, play: bool) -> str:
    whats: tuple[Literal["new", "pending", "reused"], ...] = ("new", "pending", "reused")
    counts = [(bill.count(what, play=play), what) for what in whats]
    words = [f"{count} {what}" for count, what in counts if count]
    if unknown := sum(cell.quote.unknown > 0 for cell in bill.cells if cell.play is play):
        words.append(f"{counted(unknown, 'cell')} unknown")
    return ", ".join(words) or "no runs"


def _budget(totals: Totals, quote: Quote) -> str:
    words = f"Now: {session_words(totals)}"
    if totals.left_micros is None:
        return f"{words}."
    after = totals.left_micros - quote.reserve_micros
    return f"{words}; " + (
        f"**{usd(after)}** left after it." if after >= 0 else f"**{usd(-after)} too little**."
    )


def _end(bill: NotebookBill) -> str:
    if (stop := bill.stops_at) is not None:
        why = one_line(f"{stop.why} {stop.cure.removeprefix('Nothing was sent.')}")
        return f"**Run All would stop at cell {stop.cell}**: {why}"
    if any(cell.state == "unknown" for cell in bill.cells):
        return "What is known of it fits every cap; what is unknown may not."
    return "It fits every cap."


def _value(bill: NotebookBill) -> dict[str, Any]:
    stop, left = bill.stops_at, bill.totals[0].left_micros
    return {
        "notebook": str(bill.notebook),
        "saved_at": bill.saved_at.isoformat(),
        "would_cost_usd": _dollars(bill.quote()),
        "play_usd": _dollars(bill.quote(play=True)) if any(cell.play for cell in bill.cells) else None,
        "runs": {what: bill.count(what) for what in ("new", "pending", "reused")},
        "complete": bill.complete,
        "refused": bill.refused,
        "stops_at_cell": None if stop is None else stop.cell,
        "needs_consent_headless": bill.consent is not None,
        "left_usd": plain_usd(left),
        "cells": [_cell_value(cell) for cell in bill.cells],
        "notes": list(bill.notes),
    }


def _cell_value(cell: CellBill) -> dict[str, Any]:
    same = ("cell", "line", "name", "state", "new", "pending", "reused", "provider", "model", "play")
    return {
        **{name: getattr(cell, name) for name in same},
        "prompt": cell.words,
        "cost": _dollars(cell.quote),
        "basis": cell.price.basis if cell.price else None,
        "why": cell.why or None,
        "cure": cell.cure or None,
    }


def _dollars(quote: Quote) -> dict[str, Any]:
    return {
        "known": plain_usd(quote.known_micros),
        "unknown": quote.unknown,
        "held": plain_usd(quote.reserve_micros),
    }
