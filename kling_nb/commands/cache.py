"""`%kling restore` and `%kling cache`: the clips beside the notebook, whole, gone or left over.

Invariants: nothing is bought; looking is the default, and a file goes only where that was asked for; a
clip that may have been paid for goes only by its name, and its receipt stays.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from kling_nb.addresses import is_address
from kling_nb.commands.answer import Answer, answer
from kling_nb.commands.order import CommandCall
from kling_nb.commands.syntax.values import wrong
from kling_nb.media.folder import Store
from kling_nb.records.receipt_model import CLIP_SUFFIXES
from kling_nb.recovery.restore import relink, restore
from kling_nb.recovery.verify import Found
from kling_nb.views.words import counted

__all__ = ["cache_line", "findings", "restore_line"]

_MB = 1_000_000


def restore_line(call: CommandCall) -> Answer:
    """Bring back the clips of a notebook from its receipts."""
    notebook = call.notebook("%kling restore")
    given = call.flags.get("--from")
    if given is None or is_address(given):
        return findings(restore(notebook, look_in=given, session=call.session))
    look_in = call.file(given)
    if not look_in.is_dir():
        raise wrong("--from names no folder.", "Name one that holds clips, or an address (s3://team/clips).")
    return findings(restore(notebook, look_in=look_in, session=call.session))


def findings(found: Sequence[Found]) -> Answer:
    """Show what became of clips: the bad ones first.

    Args:
        found: From `restoring`.

    Returns:
        The answer; its value is plain data.
    """
    if not found:
        return answer(["There are no receipts of clips there."], value=[])
    ordered = sorted(found, key=lambda one: one.good)
    heads = ["run", "clip", "state", ""]
    marked = {one: f"marks in the file: {', '.join(one.marks)}" for one in ordered if one.marks}
    rows = [[one.run_id, one.file, one.word, one.why or marked.get(one, "")] for one in ordered]
    bad = sum(not one.good for one in found)
    summary = (
        f"**{bad}** of {len(found)} {'is' if bad == 1 else 'are'} not in order."
        if bad
        else f"All {len(found)} are in order."
    )
    return answer(
        [summary, (heads, rows, "")],
        value=[
            {
                "run": one.run_id,
                "file": one.file,
                "state": one.word,
                "good": one.good,
                "why": one.why,
                "marks": list(one.marks),
            }
            for one in ordered
        ],
    )


def cache_line(call: CommandCall) -> Answer:
    """Show the media folder, find its files again, or clean it up."""
    flags = call.flags
    if "--relink" in flags:
        return findings(relink(call.folder, session=call.session))
    store = call.session.engine().store(call.session.media_folder())
    if "--prune" not in flags:
        if call.words:
            raise wrong("Files are named with `--prune` only.", "See `%kling help cache`.")
        return _contents(store)
    return _prune(store, call.words, really="--yes" in flags)


def _contents(store: Store) -> Answer:
    records = store.sidecars()
    clips = [path for record in records if (path := store.path(record)) is not None]
    size = sum(path.stat().st_size for path in clips) / _MB
    litter = _litter(store, ())
    kept = f"{counted(len(records), 'receipt')}, {counted(len(clips), 'clip')}"
    lines = [
        f"`{store.folder.name}`: {kept}, {size:.1f} MB.",
        f"Unreadable receipts: {len(store.skipped)}." if store.skipped else "",
        f"{counted(len(litter), 'file')} can be removed: `%kling cache --prune` lists them."
        if litter
        else "",
    ]
    value = {"receipts": len(records), "clips": len(clips), "litter": [path.name for path, _ in litter]}
    return answer([line for line in lines if line], value=value)


def _litter(store: Store, named: Collection[str]) -> list[tuple[Path, str]]:
    """List the files that may go: the sandbox's clips, and clips that were named."""
    found = []
    for record in store.sidecars():
        path = store.path(record)
        if path is not None and record.play and record.provider == "sandbox":
            found.append((path, "drawn by the sandbox; its cell draws it again, for free"))
        elif path is not None and path.name in named:
            found.append((path, f"named; run {record.id} was paid for, and its receipt stays"))
    return found


def _prune(store: Store, named: Sequence[str], *, really: bool) -> Answer:
    litter = _litter(store, named)
    unknown = set(named) - {path.name for path, _ in litter}
    if unknown or any(Path(name).suffix not in CLIP_SUFFIXES for name in named):
        raise wrong(
            "Not every name is that of a clip with a receipt in this folder.",
            "Nothing was removed; see `%kling cache`.",
        )
    if not litter:
        return answer(["There is nothing to remove."], value=[])
    size = sum(path.stat().st_size for path, _ in litter) / _MB
    rows = [[path.name, why] for path, why in litter]
    if really:
        for path, _ in litter:
            path.unlink()
    word = "removed" if really else "would be removed; add `--yes` to do it"
    summary = f"{counted(len(litter), 'file')}, {size:.1f} MB: {word}."
    return answer([summary, (["file", "why"], rows, "")], value=[path.name for path, _ in litter])
