"""A stock of runs as a long project has them: real clips in a real media folder, rows in a real ledger."""

import shutil
from datetime import UTC, datetime, timedelta

from kling_nb.ledger.database import Ledger
from kling_nb.media.folder import Store
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunStatus
from support.clips import make_clip, make_record

MODELS = ("kling-3.0-pro", "kling-3.0-standard", "kling-3.0-4k")
#: Every tenth run is one of these.
OTHERS = (
    {"status": RunStatus.FAILED, "reason": "moderated", "message": "Refused for its content."},
    {"status": RunStatus.QUEUED},
    {"status": RunStatus.LOST, "charged": "unknown"},
)
START = datetime(2026, 11, 20, 9, tzinfo=UTC)


def fill(folder, scenes, *, models=MODELS[:2], others=True, seconds=0.5, size=(96, 54), **fields):
    """Write `scenes` runs of each model into `folder`; gives their records, oldest first.

    Args:
        folder: Ledger and media folder lie in it.
        scenes: So many prompts, each asked of every model.
        models: Ids.
        others: Whether some have no clip.
        seconds: Of each clip.
        size: Of the picture.
        **fields: Of every record.
    """
    store = Store(folder / "kling_media")
    made = [
        make_clip(
            folder / f"stock{n}.mp4", seconds=seconds, size=size, colour=(40 * n + 30, 120, 220 - 40 * n)
        )
        for n in range(len(models) + 3)
    ]
    records = []
    for number in range(scenes * len(models)):
        scene, which = divmod(number, len(models))
        record = make_record(
            id=f"run{number:03}",
            request=TextToVideo(prompt=f"Scene {scene}: a paper boat drifts down a street", duration=5),
            model=models[which],
            folder=str(store.folder),
            tags={"scene": str(scene)},
            created_at=START + timedelta(minutes=number),
            **fields,
        )
        if others and number % 10 == 9:
            other = OTHERS[number // 10 % len(OTHERS)]
            record = record.model_copy(update={**other, "status": RunStatus(other["status"])})
        else:
            part = store.part(record)
            source = made[number % len(made)]
            shutil.copy(source, part)
            with part.open("ab") as file:
                # Other bytes for each, in a box that players skip.
                file.write((16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
            digest = _sha256(part)
            media = store.keep(record, part, digest)
            record = record.model_copy(
                update={
                    "status": RunStatus.SUCCEEDED,
                    "charged": "yes",
                    "settled_micros": 560_000 + 1000 * (number % 7),
                    "media": media,
                }
            )
        records.append(record)
    for path in made:
        path.unlink()
    ledger = Ledger(folder / "ledger.db")
    with ledger.writing() as transaction:
        for record in records:
            transaction.insert(record)
    ledger.close()
    return records


def _sha256(path):
    from kling_nb.files import file_sha256

    return file_sha256(path)
