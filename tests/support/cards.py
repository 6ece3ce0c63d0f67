"""Records of runs in the states that cards are drawn in."""

from datetime import UTC, datetime, timedelta

from kling_nb.records.money import Estimate, Totals
from kling_nb.records.request import TextToVideo, request_key
from kling_nb.records.run import MediaFacts, RunRecord

T = datetime(2026, 11, 21, 14, 0, 47, tzinfo=UTC)
NOW = T + timedelta(seconds=104)
FOX = "A red fox crosses fresh snow at dawn, slow dolly-in, soft rim light"
KNOWN = Estimate(micros=560000, reserve_micros=560000, basis="$0.112/s silent, Runflow list of 2026-04-06")
UNKNOWN = Estimate(micros=None, reserve_micros=840000, basis="no price with sound is known")

MEDIA = MediaFacts(
    file="a-red-fox-kl7m2q.mp4",
    sha256="9f" * 32,
    size=4_100_000,
    codec="h264",
    width=1920,
    height=1080,
    fps=24.0,
    duration_s=5.04,
)

POSTER = "data:image/jpeg;base64," + "A" * (4 * 5000 // 3 // 4 * 4)
TOTALS = Totals(settled_micros=1_120_000, reserved_micros=560_000, cap_micros=10_000_000)
SRC = "kling_media/a-red-fox-kl7m2q.mp4"

PENDING = {
    "created": "Starting",
    "submitting": "Sending",
    "queued": "Queued",
    "running": "Running",
    "saving": "Saving",
}

DONE = {
    "status": "succeeded",
    "submitted_at": T,
    "finished_at": T + timedelta(seconds=145),
    "saved_at": T + timedelta(seconds=149),
    "provider_run_id": "019e7a51-77b2",
    "charged": "yes",
    "reported_micros": 560000,
    "settled_micros": 560000,
    "reserved_micros": 0,
    "media": MEDIA,
}


def record(**fields):
    request = fields.pop("request", None) or TextToVideo(prompt=FOX)
    pending = fields.get("status", "created") in PENDING
    play = fields.get("play", False)
    return RunRecord.model_validate(
        {
            "id": "kl7m2q",
            "request": request,
            "request_key": request_key(request, "kling-3.0-pro"),
            "run_key": "k1:x",
            "model": "kling-3.0-pro",
            "provider": "sandbox" if play else "runflow",
            "provider_model": "kuaishou/kling-video/v3/pro/text-to-video",
            "origin": "http://127.0.0.1:4040" if play else "https://api.runflow.io",
            "created_at": T,
            "submitted_at": None if fields.get("status", "created") == "created" else T,
            "estimate": KNOWN,
            "reserved_micros": 560000 if pending else 0,
            **fields,
        }
    )
