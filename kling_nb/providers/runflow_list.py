"""Runflow's list of runs: its pages, newest first.

Invariants: the address of a page is built on our own base; a row without a usable id is none; a row that says
what it said before is not read again.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kling_nb.providers.base import Row, RunList
from kling_nb.providers.messages import Call, Reply
from kling_nb.providers.parsing import DECODER, moment, said_once, text_of, usable_id

__all__ = ["MANY", "NEWEST_FIRST", "next_page", "reaches", "read_page"]

NEWEST_FIRST = {"limit": "100", "sort_by": "created_at:desc"}
#: Of a list that is read for many runs at once; 500 is the most that is documented.
MANY = {**NEWEST_FIRST, "limit": "500"}
_MARK = re.compile(r"[ \t\n\r]*([][{}:,])[ \t\n\r]*")


def read_page(reply: Reply, base_url: str, since: str, before: Mapping[str, Row]) -> RunList | None:
    """Read a page of `MANY` runs back to `since` (RFC 3339); None where it cannot be read.

    Args:
        reply: The answer.
        base_url: Where the next page is asked for.
        since: How far back to read.
        before: The rows of the list before, in their order.
    """
    try:
        page = _page(text_of(reply), list(before.values())) if reply.ok else None
    except (ValueError, RecursionError):
        page = None
    items = page.get("items") if page is not None else None
    if page is None or not isinstance(items, list):
        return None
    rows = {row.run_id: row for row in items if row.run_id is not None}
    done = not rows or reaches([row.created_at for row in items], since)
    return RunList(rows=rows, more=None if done else next_page(base_url, page.get("next"), MANY))


def _page(text: str, before: Sequence[Row]) -> dict[str, Any]:
    """Read a JSON object whose `items` become rows.

    Raises:
        ValueError: It is none, or says twice what its items are.
    """
    pairs: list[tuple[str, Any]] = []
    mark, at = _mark(text, 0, "{")
    if text.startswith("}", at):
        mark, at = _mark(text, at, "}")
    while mark != "}":
        name, at = DECODER.raw_decode(text, at)
        _, at = _mark(text, at, ":")
        if not isinstance(name, str) or (name == "items" and any(known == name for known, _ in pairs)):
            raise ValueError(name)
        is_list = name == "items" and text.startswith("[", at)
        value, at = _rows(text, at, before) if is_list else DECODER.raw_decode(text, at)
        pairs.append((name, value))
        mark, at = _mark(text, at, ",}")
    if at < len(text):
        raise ValueError(text[at])
    return said_once(pairs)


def _rows(text: str, at: int, before: Sequence[Row]) -> tuple[list[Row], int]:
    """Read a list; an object of the list before that stands here word for word is not read again.

    No whole object is the beginning of another one, so that it is enough to compare as much text.
    """
    rows: list[Row] = []
    places: dict[str | None, int] = {}
    place = 0
    mark, at = _mark(text, at, "[")
    if text.startswith("]", at):
        mark, at = _mark(text, at, "]")
    while mark != "]":
        row = before[place] if place < len(before) else None
        if row is not None and text.startswith(row.text, at):
            end = at + len(row.text)
        else:
            run, end = DECODER.raw_decode(text, at)
            if row := _row(run, text[at:end]):
                places = places or {known.run_id: n for n, known in enumerate(before)}
                place = places.get(row.run_id, place - 1)
                if place in range(len(before)) and before[place].text == row.text:
                    row = before[place]
        if row is not None:
            rows.append(row)
            place += 1
        mark, at = _mark(text, end, ",]")
    return rows, at


def _row(run: object, text: str) -> Row | None:
    if not isinstance(run, Mapping):
        return None
    return Row(text, usable_id(run.get("id")), moment(run.get("created_at")))


def _mark(text: str, at: int, wanted: str) -> tuple[str, int]:
    """Read one of some marks with the space around it; which it is, and where the text goes on."""
    found = _MARK.match(text, at)
    if found is None or found[1] not in wanted:
        raise ValueError(text[at : at + 1])
    return found[1], found.end()


def next_page(base_url: str, link: object, order: Mapping[str, str]) -> Call | None:
    """Rebuild the next page on our own base: a reply never says where the key goes."""
    if not isinstance(link, str) or len(link) > 4000:
        return None
    try:
        query = urlsplit(link).query
    except ValueError:
        return None
    is_address = "/" in link or "?" in link
    params = dict(parse_qsl(query)) if is_address else {"pq": link, **order}
    return Call(method="GET", url=f"{base_url}/v1/runs", params=params) if params else None


def reaches(times: Sequence[datetime | None], since: str) -> bool:
    """Whether this page is in order, newest first, and its oldest row is older than `since`."""
    known = [t for t in times if t is not None]
    limit = moment(since)
    if not known or limit is None or len(known) < len(times):
        return False
    return known == sorted(known, reverse=True) and known[-1] < limit
