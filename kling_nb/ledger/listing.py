"""All runs of a ledger as one sequence that is read in pages: it costs what is looked at.

Invariants: importing this loads no SQLAlchemy: a terminal that lists runs would wait for that longer than for
all else.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from kling_nb.ledger.databases.file_systems import file_system, is_network
from kling_nb.ledger.rows import Records, read_row, read_rows, read_text
from kling_nb.records.run import RunRecord

if TYPE_CHECKING:
    from kling_nb.ledger.connection import LedgerFile

__all__ = ["SCHEMA", "Listing", "newest_runs"]

#: How many steps of `schema.py` a file has seen that can be read without it.
SCHEMA = 9
_PAGE = 200
_SOUND = "rowid <= ? AND id NOT IN (SELECT run_id FROM figures WHERE readable = 0)"


class Listing(Sequence[RunRecord]):
    """The runs that were in the ledger when it was made, newest first, each as it is when it is read.

    Args:
        ledger: Whose runs.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kling_nb.ledger.database import Ledger
        >>> len(Ledger(Path(tempfile.mkdtemp()) / "ledger.db").listing())
        0
    """

    def __init__(self, ledger: "LedgerFile") -> None:
        self._ledger = ledger
        [row] = self._read(
            "SELECT (SELECT coalesce(max(rowid), 0) FROM runs), "
            "(SELECT coalesce(sum(runs), 0) FROM sums WHERE scope = 'user') - "
            "(SELECT count(*) FROM figures WHERE readable = 0)"
        )
        self._last, self._length = int(row[0]), int(row[1])

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> RunRecord | Records:
        if isinstance(index, slice):
            if index.start in {None, 0} and index.step is None and (index.stop or -1) >= 0:
                return read_rows(self._rows(0, index.stop))  # whose length nobody needs to know
            places = range(*index.indices(len(self)))
            low = min(places, default=0)
            rows = self._rows(low, max(places, default=-1) + 1 - low)
            return read_rows(rows[place - low] for place in places if place - low < len(rows))
        place = index if index >= 0 else index + len(self)
        rows = self._rows(place, 1) if place >= 0 else []
        if not rows:
            raise IndexError(f"there is no run {index} in a listing of {len(self)}")
        return read_row(*rows[0])

    def __iter__(self) -> Iterator[RunRecord]:
        after: tuple[str, str] | None = None
        while True:
            page = self._page(after)
            yield from read_rows((run_id, text) for run_id, text, _ in page)
            if len(page) < _PAGE:
                return
            after = page[-1][2], page[-1][0]

    def _rows(self, first: int, most: int) -> list[tuple[str, str]]:
        query = f"SELECT id FROM runs WHERE {_SOUND} ORDER BY created_at DESC, id LIMIT ? OFFSET ?"
        # The ids come from the index alone: the rows before the first are never read.
        return self._read(
            f"SELECT runs.id, record FROM ({query}) AS found JOIN runs ON runs.id = found.id "
            "ORDER BY created_at DESC, runs.id",
            (self._last, most, first),
        )

    def _page(self, after: tuple[str, str] | None) -> list[tuple[str, str, str]]:
        query, values = f"SELECT id, record, created_at FROM runs WHERE {_SOUND}", [self._last]
        ordered = "ORDER BY created_at DESC, id LIMIT ?"
        if after is None:
            return self._read(f"{query} {ordered}", (*values, _PAGE))
        created_at, run_id = after
        return self._read(
            f"{query} AND created_at <= ? AND (created_at < ? OR id > ?) {ordered}",
            (*values, created_at, created_at, run_id, _PAGE),
        )

    def _read(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        return self._ledger.read(
            lambda transaction: [*map(tuple, transaction.connection.exec_driver_sql(query, values))]
        )


def newest_runs(where: str, most: int) -> Records:
    """Read the newest runs of a ledger, from its file alone if that is one of this version.

    Args:
        where: Its path or address.
        most: At most so many.

    Returns:
        Records, newest first.

    Raises:
        LedgerError: It cannot be opened or read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> newest_runs(str(Path(tempfile.mkdtemp()) / "ledger.db"), 20)
        []
    """
    found = _newest_in_file(where, most)
    if found is None:
        from kling_nb.ledger.database import Ledger

        with closing(Ledger(where)) as ledger:
            found = ledger.runs(limit=most)
    return found


def _newest_in_file(where: str, most: int) -> Records | None:
    """Read the newest runs, or nothing where only `Ledger` knows what to do or to say."""
    if "://" in where or is_network(file_system(Path(where))):
        return None
    query = "SELECT id, record FROM runs ORDER BY created_at DESC, id LIMIT ?"
    try:
        # One that may not write would leave the files of the journal beside it.
        with closing(sqlite3.connect(f"{Path(where).absolute().as_uri()}?mode=rw", uri=True)) as file:
            file.text_factory = read_text
            [(steps,)] = file.execute("SELECT max(number) FROM migrations")
            rows = [*file.execute(query, (most,))] if steps == SCHEMA else None
    except sqlite3.Error:
        return None
    return None if rows is None else read_rows(rows)
