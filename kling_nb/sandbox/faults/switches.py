"""The list of switches: every fault that can be caused and every silence of the contracts that can be filled.

Invariants:
    * One row a switch: its name, its kind, its default and one line on what it does. Help texts, error
      messages and the checks of `faults` all come from this list.
    * A default is what a provider documents or, where nothing is documented, what asks least of a client.

Kinds: a *rate* fires with a chance from 0 to 1 or for the next N occasions; a *number* is a quantity;
a *word* is one of its choices (or any text when it lists none).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Wire = Literal["runflow", "runcomfy"]
WIRES: Final[tuple[Wire, ...]] = ("runflow", "runcomfy")


@dataclass(frozen=True)
class Switch:
    """One row of the list."""

    name: str
    kind: Literal["rate", "number", "word"]
    about: str
    default: float | str | Mapping[Wire, float | str] = 0.0
    """One value, or one for each wire."""
    choices: tuple[str, ...] = ()

    def start(self, wire: Wire) -> float | str:
        """The default on one wire."""
        return self.default[wire] if isinstance(self.default, Mapping) else self.default


MOMENTS: Final = {
    "submit": "the paid POST",
    "poll": "reading one run (its status or its result)",
    "list": "reading the list of runs",
    "cancel": "asking for a cancel",
    "download": "fetching the file",
}

BODIES: Final = {
    "cut": "JSON that ends in the middle, its Content-Length right",
    "types": "JSON in which every value has another type",
    "nulls": "JSON in which every value is null",
    "deep": "JSON nested 100,000 levels deep",
    "huge": "JSON whose numbers are beyond any type",
    "doubled": "JSON in which every name stands twice, with null first",
    "oversized": "a body of more than 9 MiB",
}

STATUSES: Final = (400, 401, 402, 403, 404, 409, 422, 429, 500, 502, 503)


def _moments() -> list[Switch]:
    rows = []
    for moment, what in MOMENTS.items():
        rows += [Switch(f"{moment}_{code}", "rate", f"answer {what} with HTTP {code}") for code in STATUSES]
        rows += [
            Switch(f"{moment}_429_wait", "rate", f"answer {what} with 429 and Retry-After: retry_after_s"),
            Switch(f"{moment}_drop", "rate", f"close the connection on {what}, nothing done and no answer"),
            Switch(f"{moment}_hang", "rate", f"hold {what} for hang_s, then close it; nothing done"),
            Switch(f"{moment}_slow", "rate", f"hold {what} for slow_s, then go on as usual"),
            Switch(
                f"{moment}_truncated", "rate", f"do {what}, but cut the answer short of its Content-Length"
            ),
            Switch(
                f"{moment}_stall",
                "rate",
                f"do {what}, but stop for hang_s in the middle of the answer, then close",
            ),
            Switch(f"{moment}_overstated", "rate", f"do {what}, but say a Content-Length that is too long"),
            Switch(f"{moment}_understated", "rate", f"do {what}, but say a Content-Length that is too short"),
            Switch(
                f"{moment}_redirect_here", "rate", f"answer {what} with a redirect to itself; nothing done"
            ),
        ]
        if moment != "download":
            rows += [
                Switch(f"{moment}_junk", "rate", f"do {what}, but answer with a page that is not JSON"),
                Switch(
                    f"{moment}_200_error",
                    "rate",
                    f"answer {what} with HTTP 200 and an error body; nothing done",
                ),
                Switch(
                    f"{moment}_redirect",
                    "rate",
                    f"answer {what} with a redirect to redirect_to; nothing done",
                ),
                Switch(f"{moment}_mislabeled", "rate", f"do {what}, but call the JSON text/html"),
            ]
            rows += [
                Switch(f"{moment}_{way}", "rate", f"do {what}, but answer with {says}")
                for way, says in BODIES.items()
            ]
    return rows


_RATES: Final = (
    Switch("submit_drop_after", "rate", "create the run, then close the connection without an answer"),
    Switch("submit_hang_after", "rate", "create the run, hold the answer for hang_s, then close"),
    Switch("submit_500_after", "rate", "create the run, then answer 500"),
    Switch("submit_no_id", "rate", "create the run, but leave its id out of the answer"),
    Switch("submit_moderated", "rate", "refuse the prompt at once as against the content policy"),
    Switch("result_not_ready", "rate", "RunComfy: answer a finished result with 400 and code 400005"),
    Switch("result_404", "rate", "RunComfy: answer a finished result with 404 and code 404001"),
    Switch("result_400", "rate", "RunComfy: answer a finished result with 400 and code 400001"),
    Switch("run_failed", "rate", "the run ends as failed"),
    Switch(
        "run_moderated", "rate", "the run ends as failed because its finished clip broke the content policy"
    ),
    Switch("run_nsfw", "rate", "Runflow: the run succeeds with nsfw_detected true"),
    Switch("run_canceled", "rate", "the provider cancels the run by itself"),
    Switch("run_stuck", "rate", "the run never leaves the running state"),
    Switch("run_slow", "rate", "the run takes slow_factor times as long"),
    Switch("run_odd", "rate", "while it runs, the run's state is the undocumented odd_word"),
    Switch("run_forgotten", "rate", "the run is created and then known to nobody: 404, absent from lists"),
    Switch("run_no_output", "rate", "the run succeeds without an output"),
    Switch("run_many_outputs", "rate", "the run's output holds two videos"),
    Switch("download_html", "rate", "the file is a web page, served with 200 as a video"),
    Switch("download_empty", "rate", "the file has no bytes"),
    Switch("download_trickle", "rate", "the file comes at trickle_bytes_s"),
    Switch("download_gzip", "rate", "the file comes with Content-Encoding gzip"),
    Switch("download_partial", "rate", "the whole file comes as 206, one range from end to end"),
    Switch("download_redirect", "rate", "the file's address redirects to redirect_to"),
    Switch("download_oversized", "rate", "the file says that it has 3 GiB, and then has not"),
)

_NUMBERS: Final = (
    Switch("queue_s", "number", "seconds a run waits in the queue, before wait_scale", 1.2),
    Switch("dispatch_s", "number", "seconds between queue and running, before wait_scale", 0.3),
    Switch("run_s", "number", "seconds a run runs, before wait_scale", 2.5),
    Switch("slow_factor", "number", "what run_slow multiplies by", 10.0),
    Switch("hang_s", "number", "real seconds of a hang", 30.0),
    Switch("slow_s", "number", "real seconds of a slow answer", 1.0),
    Switch("retry_after_s", "number", "what Retry-After says", 1.0),
    Switch("trickle_bytes_s", "number", "speed of a trickled download", 20_000.0),
    Switch(
        "link_lifetime_s", "number", "Runflow: life of a signed link (documented: 24 h to 3 days)", 86_400.0
    ),
    Switch("retention_s", "number", "seconds after which a run is unknown (404); 0 keeps it", 0.0),
    Switch("hidden_s", "number", "seconds after its submit for which a run is unknown (404)", 0.0),
    Switch("list_lag_s", "number", "Runflow: seconds until a new run shows in the list", 0.0),
    Switch("cost_lag_s", "number", "seconds from the end of a run until its cost is told", 0.0),
    Switch("cost_factor", "number", "what every bill is multiplied by (2 = bills above the list)", 1.0),
    Switch("bill_minimum_s", "number", "fewest seconds billed", 0.0),
    Switch("audio_price", "number", "Runflow: USD a second with audio (undocumented; our own choice)", 0.168),
    Switch("default_duration_s", "number", "length when the request names none (Runflow: undocumented)", 5.0),
    Switch(
        "min_shot_s",
        "number",
        "shortest shot accepted (Runflow: undocumented)",
        {"runflow": 1.0, "runcomfy": 3.0},
    ),
    Switch("max_prompt", "number", "most characters of a prompt (undocumented); 0 = no limit", 0.0),
    Switch("balance_usd", "number", "what the balance route tells", 100.0),
)

_WORDS: Final = (
    Switch(
        "audio_default",
        "word",
        "sound when the request does not say (RunComfy documents on; Runflow: undocumented)",
        {"runflow": "off", "runcomfy": "on"},
        ("on", "off"),
    ),
    Switch(
        "duration_type",
        "word",
        "which JSON type a duration must have",
        {"runflow": "string", "runcomfy": "integer"},
        ("string", "integer", "any"),
    ),
    Switch(
        "shot_duration_type",
        "word",
        "which JSON type a shot's duration must have (Runflow: undocumented)",
        {"runflow": "any", "runcomfy": "integer"},
        ("string", "integer", "any"),
    ),
    Switch(
        "shots_sum",
        "word",
        "whether shots must add up to the duration (Runflow: undocumented)",
        {"runflow": "ignore", "runcomfy": "check"},
        ("check", "ignore"),
    ),
    Switch(
        "cfg_range",
        "word",
        "whether cfg_scale must lie in 0..1 (Runflow: undocumented)",
        {"runflow": "ignore", "runcomfy": "check"},
        ("check", "ignore"),
    ),
    Switch("unknown_keys", "word", "what an undocumented input key does", "accept", ("accept", "refuse")),
    Switch("nulls", "word", "whether null counts as left out", "accept", ("accept", "refuse")),
    Switch("empty_prompt", "word", "whether a blank prompt is accepted", "refuse", ("accept", "refuse")),
    Switch(
        "content_type",
        "word",
        "Content-Type of files",
        "video/mp4",
        ("video/mp4", "application/octet-stream", "none"),
    ),
    Switch("ranges", "word", "whether files answer Range requests", "on", ("on", "off")),
    Switch("odd_word", "word", "the state that run_odd tells", "post_processing"),
    Switch("redirect_to", "word", "where redirects point", "http://127.0.0.1:9/elsewhere.mp4"),
    Switch(
        "file_link",
        "word",
        "where results say that the file is; `own` is the sandbox's own link, `path` it without host",
        "own",
    ),
    Switch(
        "ended_body",
        "word",
        "the whole answer about a run that is over (RunComfy: its status), as JSON; $id, $clip, $path (the "
        "clip without host) and $still (a picture) are filled in; `own` is the documented one",
        "own",
    ),
    Switch("result_body", "word", "RunComfy: the same for the result", "own"),
    Switch("file_key", "word", "whether files need the key of their run (401)", "off", ("on", "off")),
    Switch("message", "word", "the words of every error and result; `own` are the sandbox's", "own"),
    Switch(
        "echo",
        "word",
        "whether these words repeat the request's Authorization header and a signed link",
        "off",
        ("on", "off"),
    ),
    Switch("drop_style", "word", "how a connection is dropped", "reset", ("reset", "close")),
    Switch(
        "idempotency", "word", "Runflow: what Idempotency-Key does on a single run", "off", ("off", "replay")
    ),
    Switch(
        "list_filter",
        "word",
        "Runflow: which filter forms q= understands, or ignored, refused (400), empty (finds nothing)",
        "both",
        ("both", "eq", "colon", "ignored", "refused", "empty"),
    ),
    Switch("page_link", "word", "Runflow: what next and previous hold", "token", ("token", "url")),
    Switch(
        "submit_status",
        "word",
        "HTTP status of an accepted submit",
        {"runflow": "201", "runcomfy": "200"},
        ("200", "201", "202"),
    ),
    Switch(
        "cancel_word",
        "word",
        "Runflow: spelling of the cancelled state",
        "canceled",
        ("canceled", "cancelled"),
    ),
    Switch("balance_form", "word", "Runflow: field of the balance", "balance", ("balance", "balance_cents")),
    Switch("error_form", "word", "Runflow: shape of error bodies", "flat", ("flat", "detail", "nested")),
    Switch(
        "credit_code",
        "word",
        "Runflow: code of an empty account",
        "INSUFFICIENT_CREDIT",
        ("INSUFFICIENT_CREDIT", "INSUFFICIENT_CREDITS"),
    ),
    Switch(
        "stage_field",
        "word",
        "Runflow: field naming the failed stage",
        "failure_stage_code",
        ("failure_stage_code", "failure_stage"),
    ),
    Switch(
        "foreign_run",
        "word",
        "HTTP status of another account's run",
        {"runflow": "404", "runcomfy": "403"},
        ("403", "404"),
    ),
    Switch(
        "auth_status",
        "word",
        "HTTP status of a bad key",
        {"runflow": "401", "runcomfy": "400"},
        ("400", "401", "403"),
    ),
    Switch(
        "credit_status",
        "word",
        "HTTP status of an empty account",
        {"runflow": "402", "runcomfy": "400"},
        ("200", "400", "402"),
    ),
    Switch(
        "output_shape",
        "word",
        "RunComfy: shape of output",
        "video",
        ("video", "videos", "string", "list", "url"),
    ),
    Switch(
        "failed_status",
        "word",
        "RunComfy: what /status says of a failed run",
        "completed",
        ("completed", "failed"),
    ),
    Switch("not_ready", "word", "RunComfy: how an unfinished result answers", "state", ("state", "400005")),
    Switch("error_shape", "word", "RunComfy: shape of the error in a result", "string", ("string", "object")),
    Switch(
        "also_model", "word", "RunComfy: a further model that it has, at 0.2 and 0.3 USD a second", "none"
    ),
    Switch(
        "price_row",
        "word",
        "RunComfy: what its catalog row says of the price",
        "second",
        ("second", "dearer", "clip", "none", "junk", "markup"),
    ),
    Switch("cost_told", "word", "whether a run's cost is ever told", "on", ("on", "never")),
    Switch(
        "cost_currency",
        "word",
        "what a field `currency` beside a cost says; `unsaid` is no such field",
        "unsaid",
    ),
    Switch("bill_failed", "word", "whether failed and cancelled runs are billed", "off", ("on", "off")),
    Switch(
        "link_host",
        "word",
        "RunComfy: host of the addresses in answers; foreign must not get the token",
        "own",
        ("own", "foreign"),
    ),
)

SWITCHES: Final[dict[str, Switch]] = {row.name: row for row in (*_moments(), *_RATES, *_NUMBERS, *_WORDS)}


"""Every switch by name."""
