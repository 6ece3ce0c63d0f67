"""The queue protocols of both providers and of two peers, as far as a client that does well sees them."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote, urlencode

_MODEL = "kuaishou/kling-video/v3/pro/text-to-video"
_REFERENCE = ("client_ref.EQ:'", "client_ref:")
_NULLS = dict.fromkeys(
    (
        *("flow_id", "target_version", "context", "cost_breakdown", "batch_id", "request_id", "flow"),
        *("callback_url", "failure_code", "failure_message", "failure_stage_code", "duration_ms"),
    )
)


@dataclass
class Run:
    """One run; times are those of the clock, so that other processes can compare theirs."""

    id: str
    wire: str
    number: int
    born: float
    ends: float
    sent: dict
    seen: float | None = None
    clip_at: float | None = None

    @property
    def words(self) -> str:
        """What was asked for, by which a doubled run is known."""
        sent = self.sent.get("input", self.sent)
        return str(sent.get("prompt") or sent.get("promptText") or "")

    def done(self) -> bool:
        """Whether it is over; the first read that learns so is noted."""
        now = time.time()
        if now < self.ends:
            return False
        self.seen = self.seen or now
        return True


def answer(state, origin: str, method: str, target: str, body: bytes) -> tuple[int, object]:
    """Answer one call below the name of a wire."""
    path, _, query = target.partition("?")
    name, *rest = path.split("/")[1:]
    wire = {"runflow": _runflow, "runcomfy": _runcomfy, "fal": _fal, "runway": _runway}.get(name)
    if wire is None:
        return 404, {}
    if method == "POST" and rest[-1] != "cancel":
        run = state.accept(name, json.loads(body))
        return (201 if name == "runflow" else 200), wire(run, origin, "submit")
    if name == "runflow" and rest == ["v1", "runs"]:
        return _list(state, origin, dict(parse_qsl(query)))
    found = [run for part in rest if (run := state.runs.get(part))]
    if found:
        return 200, wire(found[0], origin, rest[-1])
    return (404, {"code": "RUN_NOT_FOUND", "error_code": 404001}) if "runs" in rest else (200, {"id": "a"})


def _clip(run: Run, origin: str) -> str:
    return f"{origin}/clips/{run.id}.mp4"


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def _runflow(run: Run, origin: str, _what: str) -> dict:
    done = run.done()
    output = {
        "outputs": [{"url": _clip(run, origin), "type": "video"}],
        "nsfw_detected": None,
        "seed": None,
        "timing": None,
    }
    return {
        **_NULLS,
        "id": run.id,
        "model_id": _MODEL,
        "target_type": "model",
        "org_id": "org",
        "status_code": "succeeded" if done else "running",
        "source_code": "api",
        "input": run.sent.get("input"),
        "output": output if done else None,
        "cost": "0.336" if done else None,
        "nodes_total": 1,
        "nodes_completed": int(done),
        "client_ref": run.sent.get("client_ref"),
        "created_by": "bench",
        "created_at": _date(run.born),
        "started_at": _date(run.born),
        "completed_at": _date(run.ends) if done else None,
        "metadata": run.sent.get("metadata"),
        "has_logs": False,
        "has_node_runs": False,
        "links": {},
        "node_runs": [],
        "logs": [],
    }


def _list(state, origin: str, query: dict[str, str]) -> tuple[int, object]:
    """Runflow's list of runs, newest first; of its filter only the exact reference, as it is documented."""
    wanted = unquote(query.get("q", ""))
    runs = [run for run in reversed(state.runs.values()) if run.wire == "runflow"]
    if wanted:
        form = next((form for form in _REFERENCE if wanted.startswith(form)), None)
        if form is None:
            return 400, {"code": "BAD_FILTER", "message": "the filter is not understood"}
        reference = wanted.removeprefix(form).strip("'\"")
        runs = [run for run in runs if run.sent.get("client_ref") == reference]
    size, start = int(query.get("limit", "50")), int(query.get("pq", "0"))
    fields = [name for name in query.get("fields", "").split(",") if name]
    items = [_runflow(run, origin, "") for run in runs[start : start + size]]
    if fields:
        items = [{name: item[name] for name in fields if name in item} for item in items]
    more = urlencode({**query, "pq": start + size})
    following = f"{origin}/runflow/v1/runs?{more}" if start + size < len(runs) else None
    return 200, {"items": items, "first": None, "next": following, "previous": None}


def _runcomfy(run: Run, origin: str, what: str) -> dict:
    base = f"{origin}/runcomfy/v1/requests/{run.id}"
    links = {"status_url": f"{base}/status", "result_url": f"{base}/result", "cancel_url": f"{base}/cancel"}
    if what == "submit":
        return {"request_id": run.id, **links}
    done = run.done()
    if what == "status":
        return {"request_id": run.id, "status": "completed" if done else "in_progress", **links}
    if not done:
        return {"request_id": run.id, "status": "in_progress"}
    return {
        "request_id": run.id,
        "status": "succeeded",
        "output": {"video": _clip(run, origin)},
        "cost": 0.336,
        "created_at": _date(run.born),
        "finished_at": _date(run.ends),
    }


def _fal(run: Run, origin: str, what: str) -> dict:
    base = f"{origin}/fal/bench/kling/requests/{run.id}"
    if what == "submit":
        links = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
        return {"request_id": run.id, "status": "IN_QUEUE", "queue_position": 0, **links}
    done = run.done()
    if what == "status":
        return {"status": "COMPLETED" if done else "IN_PROGRESS", "request_id": run.id, "logs": []}
    return {"video": {"url": _clip(run, origin), "content_type": "video/mp4"}}


def _runway(run: Run, origin: str, what: str) -> dict:
    if what == "submit":
        return {"id": run.id}
    facts = {"id": run.id, "createdAt": _date(run.born)}
    if run.done():
        return {**facts, "status": "SUCCEEDED", "output": [_clip(run, origin)], "cost": {"credits": 25}}
    return {**facts, "status": "RUNNING", "progress": 0.5, "estimatedCost": {"credits": 25}}
