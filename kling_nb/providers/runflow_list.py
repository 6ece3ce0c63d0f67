"""Runflow's list of runs: its pages, newest first.

Invariants: the address of a page is built on our own base; a row without a usable id is none.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kling_nb.providers.base import RunList
from kling_nb.providers.messages import Call, Reply
from kling_nb.providers.parsing import fields, moment, usable_id

__all__ = ["MANY", "NEWEST_FIRST", "next_page", "reaches", "read_page"]

NEWEST_FIRST = {"limit": "100", "sort_by": "created_at:desc"}
#: Of a list that is read for many runs at once; 500 is the most that is documented.
MANY = {**NEWEST_FIRST, "limit": "500"}


def read_page(reply: Reply, base_url: str, since: str) -> RunList | None:
    """Read a page of `MANY` runs back to `since` (RFC 3339); None where it cannot be read."""
    page = fields(reply) if reply.ok else None
    items = page.get("items") if page is not None else None
    if page is None or not isinstance(items, list):
        return None
    runs = [row for row in items if isinstance(row, Mapping)]
    rows = {run_id: row for row in runs if (run_id := usable_id(row.get("id"))) is not None}
    done = not rows or reaches(runs, since)
    return RunList(rows=rows, more=None if done else next_page(base_url, page.get("next"), MANY))


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


def reaches(runs: list[Mapping[str, Any]], since: str) -> bool:
    """Whether this page is in order, newest first, and its oldest row is older than `since`."""
    times = [moment(run.get("created_at")) for run in runs]
    known = [t for t in times if t is not None]
    limit = moment(since)
    if not known or limit is None or len(known) < len(times):
        return False
    return known == sorted(known, reverse=True) and known[-1] < limit
