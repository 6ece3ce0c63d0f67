"""A ledger moved into another one, e.g. a file into the PostgreSQL of a team.

Invariants: a run is there with all of its events or not at all; what was there already is left as it is, so
that a copy that was broken off goes on; counts and sums are compared before they are committed; nobody waits
for more than a page of it; private words do not get onto a shared ledger.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases.statements import is_postgresql, ledger_now
from kling_nb.ledger.rows import read_row
from kling_nb.ledger.schema import EVENTS, LIVE, RUNS, SWEEP_MEMBERS, SWEEPS, VOTES, row_of
from kling_nb.ledger.work.detached import unsent_runs
from kling_nb.ledger.work.uploads import note_upload
from kling_nb.records.privacy import redacted

__all__ = ["copy_ledger"]

_PAGE = 500


def copy_ledger(source: Ledger, target: Ledger) -> dict[str, int]:
    """Copy runs, events, votes and sweeps into another ledger.

    Args:
        source: Where they are; nothing is changed there.
        target: Where they go; what it has already stays as it is.

    Returns:
        How many of each are there now that came from the source, and the micro-dollars of the runs.

    Raises:
        LedgerError: A kernel still drives a run, a row cannot be read, or the two do not agree; what was
            copied before that stays.
    """
    if unreadable := source.unreadable():
        raise _refused(f"{unreadable} of its runs cannot be read", "Upgrade kling_nb first.")
    with source.reading() as before:
        old = before.connection
        driven = sa.select(sa.func.count()).where(RUNS.c.owned_until > ledger_now(old).isoformat())
        if count := old.scalar(driven):
            raise _refused(f"{count} of its runs are driven by a kernel", "End its kernels first.")
        if count := len(unsent_runs(before)):
            raise _refused(f"{count} of its runs wait for a worker", "Let workers send them, or cancel them.")
        copied = Counter(runs=0, events=0, settled_micros=0, reserved_micros=0)
        for rows in _pages(old):
            with target.writing() as after:
                _copy_runs(old, after.connection, rows)
                here, there = (_sums(one, [row["id"] for row in rows]) for one in (old, after.connection))
                if here != there:
                    raise _refused(
                        f"runs went on after they were copied: {here} here, {there} there",
                        "The other ledger has the truth by now; go on with one of the two.",
                    )
            copied.update(there)
        with target.writing() as after:
            for run_id, address in old.exec_driver_sql("SELECT run_id, address FROM uploads"):
                note_upload(after, run_id, address)
            votes = _copy_votes(old, after.connection)
            return {**copied, "votes": votes, "sweeps": _copy_sweeps(old, after.connection)}


def _refused(why: str, cure: str) -> LedgerError:
    return LedgerError(
        f"The ledger was not copied whole: {why}.",
        cure="Nothing was sent, and what was copied before stays; copying again goes on where it was left. "
        f"{cure}",
    )


def _pages(old: sa.Connection) -> Iterator[list[dict[str, Any]]]:
    last = ""
    while True:
        query = sa.select(RUNS).where(RUNS.c.id > last).order_by(RUNS.c.id).limit(_PAGE)
        rows = [dict(row) for row in old.execute(query).mappings()]
        if not rows:
            return
        yield rows
        last = rows[-1]["id"]


def _copy_runs(old: sa.Connection, new: sa.Connection, rows: list[dict[str, Any]]) -> None:
    ids = [row["id"] for row in rows]
    known = set(new.scalars(sa.select(RUNS.c.id).where(RUNS.c.id.in_(ids))))
    fresh = {row["id"]: {**row, "owner": None, "owned_until": None} for row in rows if row["id"] not in known}
    if not fresh:
        return
    private = set()
    if is_postgresql(new):
        for run_id, row in fresh.items():
            record = read_row(run_id, row["record"])
            if record.private:
                private.add(run_id)
                row.update(row_of(redacted(record)))
    live = {row["run_key"]: row["id"] for row in fresh.values() if row["status"] in LIVE}
    both = sa.select(RUNS.c.run_key, RUNS.c.id).where(RUNS.c.run_key.in_(live), RUNS.c.status.in_(LIVE))
    if rivals := [(live[key], run_id) for key, run_id in new.execute(both)]:
        raise _refused(
            f"of one request both ledgers have a run that is on its way, or lost: {rivals[0][0]} here, "
            f"{rivals[0][1]} there",
            "Wait for them, or `%kling resolve` them.",
        )
    new.execute(sa.insert(RUNS), list(fresh.values()))
    query = sa.select(EVENTS).where(EVENTS.c.run_id.in_(fresh)).order_by(EVENTS.c.number)
    events = [dict(row) for row in old.execute(query).mappings()]
    for event in events:
        del event["number"]
        if event["run_id"] in private:
            event["data"] = json.dumps(_money_of(json.loads(event["data"])), sort_keys=True)
    if events:
        new.execute(sa.insert(EVENTS), events)


def _money_of(data: dict[str, Any]) -> dict[str, Any]:
    """Keep what proves where a private run was and what it held."""
    return {name: data[name] for name in ("status", "reserved_micros", "settled_micros") if name in data}


def _sums(connection: sa.Connection, ids: list[str]) -> dict[str, int]:
    amounts = [sa.func.coalesce(sa.func.sum(c), 0) for c in (RUNS.c.settled_micros, RUNS.c.reserved_micros)]
    runs = connection.execute(sa.select(sa.func.count(), *amounts).where(RUNS.c.id.in_(ids))).one()
    events = connection.scalar(sa.select(sa.func.count()).where(EVENTS.c.run_id.in_(ids))) or 0
    names = ("runs", "events", "settled_micros", "reserved_micros")
    return dict(zip(names, map(int, (runs[0], events, runs[1], runs[2])), strict=True))


def _copy_votes(old: sa.Connection, new: sa.Connection) -> int:
    columns = [column for column in VOTES.columns if column.name != "number"]
    there = {tuple(row) for row in new.execute(sa.select(*columns))}
    votes = [tuple(row) for row in old.execute(sa.select(*columns).order_by(VOTES.c.number))]
    fresh = [vote for vote in votes if vote not in there]
    if fresh:
        names = [column.name for column in columns]
        new.execute(sa.insert(VOTES), [dict(zip(names, vote, strict=True)) for vote in fresh])
    return len(votes)


def _copy_sweeps(old: sa.Connection, new: sa.Connection) -> int:
    """Copy sweeps that are not there; a private one stays out of a shared ledger, but its runs do not."""
    there = set(new.scalars(sa.select(SWEEPS.c.name)))
    copied = 0
    for row in old.execute(sa.select(SWEEPS)).mappings().all():
        if is_postgresql(new) and any(one.get("private") for one in json.loads(row["grid"])):
            continue
        copied += 1
        if row["name"] in there:
            continue
        new.execute(sa.insert(SWEEPS), dict(row))
        members = old.execute(sa.select(SWEEP_MEMBERS).where(SWEEP_MEMBERS.c.sweep == row["name"]))
        if found := [dict(member) for member in members.mappings()]:
            new.execute(sa.insert(SWEEP_MEMBERS), found)
    return copied
