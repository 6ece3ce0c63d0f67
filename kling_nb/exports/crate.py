"""Runs as an RO-Crate: every attempt with its request, its clip or its reason, its price and who asked.

Invariants: the crate follows RO-Crate 1.1 and Process Run Crate 0.5; failed and moderated attempts are
actions like the others, with the status that the profile has for them; original bytes are only copied, and
hashed where they are then; the folder has its name only once the crate is whole; no key, no word of a private
run and no absolute path goes in; what nobody knows is left out.
"""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kling_nb.addresses import is_loopback
from kling_nb.errors import StoreError, UsageError, installed
from kling_nb.exports.disk import check_place, half, sweep, wrap_os_errors
from kling_nb.exports.naming import Sample, prompt_of
from kling_nb.exports.writer import is_stand_in
from kling_nb.files import file_sha256
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import plain_usd
from kling_nb.records.provenance import source_type
from kling_nb.records.receipt import to_receipt
from kling_nb.records.run import Earlier, RunRecord, RunStatus, charged
from kling_nb.views.words import short

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

__all__ = ["file_name", "write_crate"]

_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime"}


def write_crate(
    samples: Sequence[Sample], folder: Path, *, name: str, description: str, licence: str
) -> Path:
    """Write a crate of runs and their clips.

    Args:
        samples: Ended runs, each with its verified clip or None.
        folder: Where to; must not be there yet, or be empty.
        name: Of the crate, one line.
        description: What it is for.
        licence: An address or a name, as its author chooses.

    Returns:
        The folder.

    Raises:
        UsageError: There is nothing to write, something is there already, or `rocrate` is not installed.
        StoreError: It cannot be written, or a clip is no longer the recorded one.
    """
    if not samples:
        raise UsageError("There are no ended runs to put into a crate.", cure="Nothing was written.")
    with wrap_os_errors(folder):
        check_place(folder, [sample.path for sample in samples])
    if (folder / "ro-crate-metadata.json").exists():
        raise UsageError(f"{folder} holds a crate already.", cure="Nothing was written. Name another folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is there already.", cure="Nothing was written. Name another folder.")
    rocrate = installed("rocrate.rocrate", "Nothing was written. `pip install 'kling-nb[research]'`.")
    crate = rocrate.ROCrate(version="1.1")
    crate.name, crate.description = name, description
    terms = {"@id": licence if "://" in licence else "#licence", "@type": "CreativeWork", "name": licence}
    crate.license = crate.add_jsonld(terms)
    profile = crate.add_jsonld(
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    )
    crate.root_dataset["conformsTo"] = profile
    ordered = sorted(samples, key=lambda s: s.record.created_at)
    actions = [_add(crate, sample) for sample in ordered]
    described = {sample.record.id for sample in samples}
    earlier = {
        one.id: (one, s.record) for s in ordered for one in s.record.earlier if one.id not in described
    }
    actions += [_add_earlier(crate, one, record) for one, record in earlier.values()]
    crate.root_dataset["mentions"] = actions
    with wrap_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        _write(crate, ordered, folder)
    return folder


def _write(crate: "ROCrate", samples: Sequence[Sample], folder: Path) -> None:
    with half(folder) as part:
        try:
            crate.write(part)
            for sample in samples:
                media = sample.record.media
                if sample.path is None or media is None:
                    continue
                if file_sha256(part / "clips" / file_name(sample)) != media.sha256:
                    raise StoreError(f"The clip of {sample.record.id} has changed.", cure="Export again.")
            if folder.is_dir():
                folder.rmdir()
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _add(crate: "ROCrate", sample: Sample) -> Any:
    record, said = sample.record, to_receipt(sample.record)
    _entity(
        crate,
        _request_file(record),
        json.dumps(said["request"], indent=1, ensure_ascii=False),
        {"name": f"Request: {short(prompt_of(record), 80)}", "identifier": record.request_key},
    )
    _entity(
        crate,
        f"receipts/{record.id}.json",
        json.dumps(said, indent=1, ensure_ascii=False),
        {"name": f"Receipt of run {record.id}"},
    )
    more: dict[str, Any] = {"agent": {"@id": _person(crate, record)}}
    if record.provider_run_id is not None:
        more["identifier"] = record.provider_run_id
    if sample.path is not None and record.media is not None:
        more["result"] = {"@id": _clip(crate, sample).id}
    return _action(crate, record, record, _description(record), said["message"], **more)


def _add_earlier(crate: "ROCrate", one: Earlier, record: RunRecord) -> Any:
    """Add an attempt of which only a later one's receipt tells."""
    money = _money(plain_usd(one.settled_micros), one.charged, one.currency)
    description = f"An earlier attempt, as the receipt of run {record.id} tells of it; {money}."
    return _action(crate, one, record, description)


def _action(
    crate: "ROCrate",
    one: RunRecord | Earlier,
    record: RunRecord,
    description: str,
    message: str = "",
    **more: Any,
) -> Any:
    """Add one attempt, of which the receipt of a record tells."""
    action: dict[str, Any] = {
        "@id": f"#run-{one.id}",
        "@type": "CreateAction",
        "name": f"Run {one.id}, take {record.take}, attempt {one.attempt}",
        "instrument": {"@id": _model(crate, record)},
        "object": {"@id": _request_file(record)},
        "startTime": (one.submitted_at or one.created_at).isoformat(),
        "description": description,
        "actionStatus": _status(one.status),
        "subjectOf": {"@id": f"receipts/{record.id}.json"},
        **more,
    }
    if one.finished_at is not None:
        action["endTime"] = one.finished_at.isoformat()
    if one.status is not RunStatus.SUCCEEDED:
        action["error"] = ": ".join(word for word in (one.reason or one.status.value, message) if word)
    return crate.add_jsonld(action)


def _request_file(record: RunRecord) -> str:
    return f"requests/{record.request_key.removeprefix('k1:')[:16]}.json"


def _entity(crate: "ROCrate", path: str, text: str, said: dict[str, Any]) -> None:
    if crate.get(path) is None:
        facts = {**said, "encodingFormat": "application/json", "contentSize": str(len(text.encode()))}
        crate.add_file(io.StringIO(text), path, properties=facts)


def _described(crate: "ROCrate", facts: dict[str, Any]) -> str:
    """Describe a person or a thing once, and give its id."""
    key = str(facts["@id"])
    if crate.get(key) is None:
        crate.add_jsonld(facts)
    return key


def _clip(crate: "ROCrate", sample: Sample) -> Any:
    record, media, path = sample.record, sample.record.media, sample.path
    assert media is not None  # noqa: S101 - only samples with a clip come here
    assert path is not None  # noqa: S101 - the same
    facts = {
        "name": short(prompt_of(record), 120),
        "description": _marks(record),
        "encodingFormat": _TYPES.get(path.suffix.lower(), "video/mp4"),
        "contentSize": str(media.size),
        "sha256": media.sha256,
        "duration": f"PT{media.duration_s:g}S",
        "width": media.width,
        "height": media.height,
        "digitalSourceType": source_type(play=record.play),
        "dateCreated": (record.finished_at or record.created_at).isoformat(),
    }
    terms = _terms(crate, record)
    properties = {"@type": ["File", "VideoObject"], **facts, **({"license": {"@id": terms}} if terms else {})}
    return crate.add_file(path, f"clips/{file_name(sample)}", properties=properties)


def file_name(sample: Sample) -> str:
    """Name a clip as the crate has it, below `clips/`.

    Args:
        sample: A run with a clip.
    """
    media = sample.record.media
    named = media.file if media is not None else ""
    # A name tells the run; where somebody chose it, two folders may have used it.
    return named if sample.record.id in named else f"{sample.record.id}-{named}"


def _terms(crate: "ROCrate", record: RunRecord) -> str:
    """Give what the provider's page said of the use of its clips, if somebody noted it."""
    terms = record.terms
    if terms is None or terms.url is None:
        return ""
    said = {"name": terms.licence or f"Terms of {provider_label(record.provider)}"}
    said |= {"description": f"As read on {terms.as_of}."} if terms.as_of else {}
    return _described(crate, {"@id": terms.url, "@type": "CreativeWork", **said})


def _marks(record: RunRecord) -> str:
    """Say what the file says about itself, and that it stays in it."""
    marks = record.media.marks if record.media else None
    if marks is None:
        return "The original bytes; nobody looked for marks in them."
    kinds = sorted({mark.kind for mark in marks if mark.kind != "tag"})
    return f"The original bytes, with what they say of themselves: {', '.join(kinds) or 'no AI mark'}."


def _description(record: RunRecord) -> str:
    made = "made a clip" if record.status is RunStatus.SUCCEEDED else f"ended as {record.status.value}"
    price = _money(None if record.cost is None else f"{record.cost:f}", charged(record), record.currency)
    words = [f"One attempt that {made}", f"at {provider_label(record.provider)}"]
    words.append("for play money" if record.play else price)
    if record.commit is not None:
        changed = {True: ", with changes", False: "", None: ", with or without changes"}[record.commit.dirty]
        words.append(f"asked for by code at commit {record.commit.sha}{changed}")
    return ", ".join(words) + "."


def _money(settled: str | None, word: str, currency: str) -> str:
    if word == "no":
        return "not charged"
    return "charge not known" if settled is None else f"charged {currency} {settled}"


def _model(crate: "ROCrate", record: RunRecord) -> str:
    """Name the model by its provider's address, or, where that is this machine, by a name of ours."""
    real = record.origin.startswith("https://") and not is_loopback(record.origin)
    label = provider_label(record.provider)
    if is_stand_in(record):
        label = f"a stand-in for {label}"
    facts = {
        "@id": f"{record.origin if real else 'urn:kling-nb:' + record.provider}/{record.provider_model}",
        "@type": "SoftwareApplication",
        "name": f"{record.model} at {label}",
        "identifier": record.provider_model,
        "version": record.provider_model,
        **({"url": record.origin} if real else {}),
    }
    return _described(crate, facts)


def _person(crate: "ROCrate", record: RunRecord) -> str:
    name = record.user or "unknown"
    return _described(crate, {"@id": f"#person-{quote(name, safe='')}", "@type": "Person", "name": name})


def _status(status: RunStatus) -> str:
    word = "Completed" if status is RunStatus.SUCCEEDED else "Failed"
    return f"http://schema.org/{word}ActionStatus"
