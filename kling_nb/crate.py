"""Runs as an RO-Crate: every attempt with its request, its clip or its reason, its price and who asked.

Invariants: the crate follows RO-Crate 1.1 and Process Run Crate 0.5; failed and moderated attempts are
actions like the others, with the status that the profile has for them; original bytes are only copied; no key
and no absolute path goes in; what nobody knows is left out.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.addresses import is_loopback
from kling_nb.errors import StoreError, UsageError
from kling_nb.exportplan import Sample, prompt_of
from kling_nb.receipt import to_receipt
from kling_nb.records import RunRecord, RunStatus
from kling_nb.wording import provider_label, short

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

__all__ = ["SOURCE_TYPE", "write_crate"]

_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
#: IPTC's word for media that a trained model made (cv.iptc.org/newscodes/digitalsourcetype).
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime"}


def write_crate(
    samples: Sequence[Sample], folder: Path, *, name: str, description: str, licence: str
) -> Path:
    """Write a crate of runs and their clips.

    Args:
        samples: Ended runs, each with its verified clip or None.
        folder: Where to; must not hold a crate yet.
        name: Of the crate, one line.
        description: What it is for.
        licence: An address or a name, as its author chooses.

    Returns:
        The folder.

    Raises:
        UsageError: There is nothing to write, a crate is there already, or `rocrate` is not installed.
        StoreError: It cannot be written.
    """
    if not samples:
        raise UsageError("There are no ended runs to put into a crate.", cure="Nothing was written.")
    if (folder / "ro-crate-metadata.json").exists():
        raise UsageError(f"{folder} holds a crate already.", cure="Nothing was written. Name another folder.")
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise UsageError(
            "Crates need the package rocrate.", cure="Install it: `pip install 'kling-nb[research]'`."
        ) from None
    crate = ROCrate(version="1.1")
    crate.name, crate.description = name, description
    terms = {"@id": licence if "://" in licence else "#licence", "@type": "CreativeWork", "name": licence}
    crate.license = crate.add_jsonld(terms)
    profile = crate.add_jsonld(
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    )
    crate.root_dataset["conformsTo"] = profile
    actions = [_add(crate, sample) for sample in sorted(samples, key=lambda s: s.record.created_at)]
    crate.root_dataset["mentions"] = actions
    try:
        crate.write(folder)
    except OSError as error:
        raise StoreError(f"The crate cannot be written: {error.strerror or type(error).__name__}.") from None
    return folder


def _add(crate: "ROCrate", sample: Sample) -> Any:
    record = sample.record
    asked = _entity(
        crate,
        f"requests/{record.request_key.removeprefix('k1:')[:16]}.json",
        json.dumps(to_receipt(record)["request"], indent=1, ensure_ascii=False),
        {"name": f"Request: {short(prompt_of(record), 80)}", "identifier": record.request_key},
    )
    receipt = _entity(
        crate,
        f"receipts/{record.id}.json",
        json.dumps(to_receipt(record), indent=1, ensure_ascii=False),
        {"name": f"Receipt of run {record.id}"},
    )
    action: dict[str, Any] = {
        "@id": f"#run-{record.id}",
        "@type": "CreateAction",
        "name": f"Run {record.id}, take {record.take}, attempt {record.attempt}",
        "instrument": {"@id": _model(crate, record)},
        "object": {"@id": asked.id},
        "agent": {"@id": _person(crate, record)},
        "startTime": (record.submitted_at or record.created_at).isoformat(),
        "description": _description(record),
        "actionStatus": f"http://schema.org/{_status(record)}",
        "subjectOf": {"@id": receipt.id},
    }
    if record.finished_at is not None:
        action["endTime"] = record.finished_at.isoformat()
    if record.status is not RunStatus.SUCCEEDED:
        action["error"] = ": ".join(
            word for word in (record.reason or record.status.value, record.message) if word
        )
    if record.settled_micros is not None and not record.play:
        action["description"] = (
            f"Charged {record.cost:f} {record.currency} by {provider_label(record.provider)}."
        )
    if sample.path is not None and record.media is not None:
        action["result"] = {"@id": _clip(crate, sample).id}
    return crate.add_jsonld(action)


def _entity(crate: "ROCrate", path: str, text: str, said: dict[str, Any]) -> Any:
    import io

    held = crate.get(path)
    if held is not None:
        return held
    facts = {**said, "encodingFormat": "application/json", "contentSize": str(len(text.encode()))}
    return crate.add_file(io.StringIO(text), path, properties=facts)


def _clip(crate: "ROCrate", sample: Sample) -> Any:
    record, media, path = sample.record, sample.record.media, sample.path
    assert media is not None  # noqa: S101 - only samples with a clip come here
    assert path is not None  # noqa: S101 - the same
    facts = {
        "name": short(prompt_of(record), 120),
        "encodingFormat": _TYPES.get(path.suffix.lower(), "video/mp4"),
        "contentSize": str(media.size),
        "sha256": media.sha256,
        "duration": f"PT{media.duration_s:g}S",
        "width": media.width,
        "height": media.height,
        "digitalSourceType": SOURCE_TYPE,
        "dateCreated": (record.finished_at or record.created_at).isoformat(),
    }
    return crate.add_file(path, f"clips/{media.file}", properties={"@type": ["File", "VideoObject"], **facts})


def _description(record: RunRecord) -> str:
    price = (
        "play money" if record.play else f"charged {record.currency} {record.cost:f}" if record.cost else ""
    )
    made = "made a clip" if record.status is RunStatus.SUCCEEDED else f"ended as {record.status.value}"
    words = [f"One attempt that {made}", f"at {provider_label(record.provider)}", price or "charge not known"]
    return ", ".join(words) + "."


def _model(crate: "ROCrate", record: RunRecord) -> str:
    """Name the model by its provider's address, or, where that is this machine, by a name of ours."""
    real = record.origin.startswith("https://") and not is_loopback(record.origin)
    key = f"{record.origin if real else 'urn:kling-nb:' + record.provider}/{record.provider_model}"
    if crate.get(key) is None:
        crate.add_jsonld(
            {
                "@id": key,
                "@type": "SoftwareApplication",
                "name": f"{record.model} at {provider_label(record.provider)}",
                "identifier": record.provider_model,
                "version": record.provider_model,
                **({"url": record.origin} if real else {}),
            }
        )
    return key


def _person(crate: "ROCrate", record: RunRecord) -> str:
    key = f"#person-{record.user or 'unknown'}"
    if crate.get(key) is None:
        crate.add_jsonld({"@id": key, "@type": "Person", "name": record.user or "unknown"})
    return key


def _status(record: RunRecord) -> str:
    done = record.status is RunStatus.SUCCEEDED
    return "CompletedActionStatus" if done else "FailedActionStatus"
