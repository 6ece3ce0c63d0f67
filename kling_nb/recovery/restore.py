"""Bringing back clips whose receipts are there and whose files are not; and checking those that are.

Invariants: nothing is bought, and no ledger changes; a clip counts only with its recorded size and SHA-256,
wherever it comes from; what cannot be brought back is said run by run, with the reason.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from kling_nb.addresses import is_address
from kling_nb.config.environment import media_folder
from kling_nb.errors import KlingError, UsageError
from kling_nb.files import file_sha256
from kling_nb.media.bringing import bring_from, take_in
from kling_nb.media.disk import link_or_copy
from kling_nb.media.folder import Store
from kling_nb.media.remote import Depot
from kling_nb.records.privacy import redact_error
from kling_nb.records.receipt_model import CLIP_SUFFIXES
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.records.saved_notebook import read_receipts
from kling_nb.recovery.verify import Found, Word, existing_folder, missing_clip
from kling_nb.session.api import current
from kling_nb.session.session import Session

__all__ = ["relink", "restore"]


def restore(
    notebook: str | Path | None = None, *, look_in: str | Path | None = None, session: Session | None = None
) -> list[Found]:
    """Bring back the clips that a notebook's receipts tell of; costs nothing.

    First from this machine (the folders the ledger knows, and `look_in`), by size and SHA-256; then from
    `look_in` where that is an address, else from the team's store; then from the provider, as long as it has
    the run and the key that made it is set.

    Args:
        notebook: A saved notebook; the present one unless given.
        look_in: A further place to search for the files, with what is below it: a folder, or any address that
            fsspec opens, e.g. `s3://team/clips`.
        session: Whose ledger and keys; the process's own unless given.

    Returns:
        What became of each clip.

    Raises:
        UsageError: The notebook cannot be read, or the place to look in is none.
        StoreError: The address cannot be read.

    Example:
        >>> restore("fox.ipynb")   # doctest: +SKIP
    """
    session = session or current()
    where = session.surroundings()
    path = Path(notebook) if notebook is not None else where.notebook
    if path is None:
        raise UsageError(
            "Where this notebook is saved is not known here.",
            cure="Name it: `%kling restore NOTEBOOK.ipynb`.",
        )
    records, bad = read_receipts(path)
    records = [_as_kept(record, session) for record in records]
    store = session.engine().store(media_folder(session.settings(), path, path.parent))
    depot: Depot | None = session.engine().uploads.team
    nearby: dict[int, list[Path]] = {}
    if look_in is not None and is_address(str(look_in)):
        depot = Depot(str(look_in))
    elif look_in is not None:
        nearby = _files(existing_folder(look_in))
    found = [_restore(record, store, nearby, depot, session) for record in records]
    unbelieved = f"{bad} receipts in it are damaged, or were changed"
    return [*found, *([Found(word="unreadable", file=path.name, why=unbelieved)] if bad else [])]


def relink(folder: str | Path | None = None, *, session: Session | None = None) -> list[Found]:
    """Find the clips of this notebook's folder again after files were moved or renamed, by their bytes.

    Args:
        folder: Where to search, with what is below it; the notebook's own folder unless given.
        session: Whose folders; the process's own unless given.

    Returns:
        What became of each clip that a receipt beside it, or the ledger, knows.

    Raises:
        UsageError: There is no such folder.
    """
    session = session or current()
    here = session.surroundings().folder or Path.cwd()
    store = session.engine().store(session.media_folder())
    nearby = _files(existing_folder(folder) if folder is not None else here)
    known = {record.id: record for record in store.sidecars()}
    known |= {r.id: r for r in session.ledger().runs() if Path(r.folder) == store.folder}
    return [
        _from_here(record, store, nearby, session) or missing_clip(record)
        for record in known.values()
        if record.media is not None
    ]


def _as_kept(record: RunRecord, session: Session) -> RunRecord:
    """Give what the ledger knows by now: since an output was saved, its bill or privacy may be new."""
    with suppress(KlingError):
        kept = session.ledger().get(record.id)
        if kept is not None and kept.media is not None and _same_clip(kept, record):
            return kept.model_copy(update={"folder": "", "media": record.media})
        if kept is not None and kept.private:
            return record.model_copy(update={"private": True})
    return record


def _same_clip(kept: RunRecord, record: RunRecord) -> bool:
    """Whether these are one run: two people's may bear one id, and no bytes are those of both."""
    hashes = {one.media.sha256 for one in (kept, record) if one.media is not None}
    return kept.run_key == record.run_key and len(hashes) == 1


def _restore(
    record: RunRecord, store: Store, nearby: dict[int, list[Path]], depot: Depot | None, session: Session
) -> Found:
    if record.media is None or record.status is not RunStatus.SUCCEEDED:
        return Found(word="no clip", file="", run_id=record.id, why=record.reason or record.status.value)
    found = _from_here(record, store, nearby, session)
    found = found or (_from_depot(record, store, depot) if depot is not None else None)
    if found is not None and found.good:
        return found
    not_there = f"{depot.why()}; " if depot is not None else ""
    name, here = record.media.file, record.model_copy(update={"folder": str(store.folder)})
    if record.provider == "sandbox":
        why = "the sandbox that drew it is gone; its cell draws it again, for free"
        return Found(word="gone", file=name, run_id=record.id, why=f"{not_there}{why}")
    try:
        access = session.access(here)
        if record.account not in {"", access.account}:
            raise UsageError("Another key made it.", cure="Set that key.")
        media = session.engine().fetch_again(access, here)
        store.write_sidecar(here.model_copy(update={"media": media}))
    except KlingError as error:
        error = redact_error(here, error)
        why = f"{not_there}{error.what} {error.cure}".strip()
        return Found(word="gone", file=name, run_id=record.id, why=why)
    return Found(word="fetched", file=media.file, run_id=record.id)


def _from_here(
    record: RunRecord, store: Store, nearby: dict[int, list[Path]], session: Session
) -> Found | None:
    """Look for the clip on this machine: in its place, where the ledger says, and among files given."""
    if record.media is None:
        return None
    name = record.media.file
    if store.verify(record):
        return Found(word="here", file=name, run_id=record.id)
    try:
        kept = session.ledger().get(record.id)
        known = kept is not None and _same_clip(kept, record)
        if known and kept is not None and kept.folder and Store(Path(kept.folder)).verify(kept):
            brought = store.bring(kept, Path(kept.folder))
            return Found(word="linked", file=brought.media.file if brought.media else name, run_id=record.id)
        for path in nearby.get(record.media.size, ()):
            if file_sha256(path) == record.media.sha256:
                here = take_in(record, store, partial(_link, path, record))
                return _found("linked", here)
    except (KlingError, OSError):
        return None
    return None


def _link(source: Path, record: RunRecord, part: Path) -> bool:
    link_or_copy(source, part, record)
    return True


def _from_depot(record: RunRecord, store: Store, depot: Depot) -> Found | None:
    """Fetch the clip from an address, if it is there."""
    try:
        here = bring_from(depot, record, store)
    except KlingError as error:
        name = record.media.file if record.media else ""
        return Found(word="gone", file=name, run_id=record.id, why=error.what.rstrip("."))
    return _found("fetched", here)


def _found(word: Word, here: RunRecord | None) -> Found | None:
    if here is None:
        return None
    return Found(word=word, file=here.media.file if here.media else "", run_id=here.id)


def _files(folder: Path) -> dict[int, list[Path]]:
    """List the clips below a folder by their size, so that only likely ones are hashed."""
    found: dict[int, list[Path]] = {}
    for path in _clips(folder):
        found.setdefault(path.stat().st_size, []).append(path)
    return found


def _clips(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in CLIP_SUFFIXES and path.is_file() and not path.is_symlink():
            yield path
