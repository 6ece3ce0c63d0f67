"""The list of switches: every fault that can be caused and every silence of the contracts that can be filled.

Invariants:
    * One row a switch: its name, its kind, its default and one line on what it does. Help texts, error
      messages and the checks of `faults` all come from this list.
    * A default is what a provider documents or, where nothing is documented, what asks least of a client.

Kinds: a *rate* fires with a chance from 0 to 1 or for the next N occasions; a *number* is a quantity;
a *word* is one of its choices (or any text when it lists none); a *recording* is a sequence of answers.
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
    kind: Literal["rate", "number", "word", "recording"]
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


#: What can be caused at each moment.
_ALWAYS: Final = {
    **{str(code): f"answer {{}} with HTTP {code}" for code in STATUSES},
    "429_wait": "answer {} with 429 and Retry-After: retry_after_s",
    "drop": "close the connection on {}, nothing done and no answer",
    "hang": "hold {} for hang_s, then close it; nothing done",
    "slow": "hold {} for slow_s, then go on as usual",
    "truncated": "do {}, but cut the answer short of its Content-Length",
    "stall": "do {}, but stop for hang_s in the middle of the answer, then close",
    "overstated": "do {}, but say a Content-Length that is too long",
    "understated": "do {}, but say a Content-Length that is too short",
    "redirect_here": "answer {} with a redirect to itself; nothing done",
}
#: What can be caused where the answer is JSON, and no file.
_OF_JSON: Final = {
    "junk": "do {}, but answer with a page that is not JSON",
    "200_error": "answer {} with HTTP 200 and an error body; nothing done",
    "redirect": "answer {} with a redirect to redirect_to; nothing done",
    "mislabeled": "do {}, but call the JSON text/html",
    **{way: f"do {{}}, but answer with {says}" for way, says in BODIES.items()},
}


def _moments() -> list[Switch]:
    return [
        Switch(f"{moment}_{name}", "rate", about.format(what))
        for moment, what in MOMENTS.items()
        for name, about in (_ALWAYS if moment == "download" else _ALWAYS | _OF_JSON).items()
    ]


_RATES: Final = (
    Switch("submit_drop_after", "rate", "create the run, then close the connection without an answer"),
    Switch("submit_hang_after", "rate", "create the run, hold the answer for hang_s, then close"),
    Switch("submit_500_after", "rate", "create the run, then answer 500"),
    Switch("submit_moderated", "rate", "refuse the prompt at once as against the content policy"),
    Switch("list_missing", "rate", "Runflow: the list leaves a run out"),
    Switch("run_failed", "rate", "the run ends as failed"),
    Switch(
        "run_moderated", "rate", "the run ends as failed because its finished clip broke the content policy"
    ),
    Switch("run_canceled", "rate", "the provider cancels the run by itself"),
    Switch("run_stuck", "rate", "the run never leaves the running state"),
    Switch("run_slow", "rate", "the run takes slow_factor times as long"),
    Switch("run_forgotten", "rate", "the run is created and then known to nobody: 404, absent from lists"),
    Switch("callback_lost", "rate", "Runflow: the callback never comes"),
    Switch("callback_twice", "rate", "Runflow: the callback comes twice, as with an organisation's webhook"),
    Switch("callback_tampered", "rate", "Runflow: the callback is changed after it was signed"),
    Switch("callback_early", "rate", "Runflow: the callback comes before the submit's answer (wait_scale 0)"),
    Switch("download_trickle", "rate", "the file comes at trickle_bytes_s"),
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
    Switch("list_lag_s", "number", "Runflow: seconds until a new run shows in the list", 0.0),
    Switch("list_stale_s", "number", "Runflow: seconds by which the list is behind", 0.0),
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
    Switch("ranges", "word", "whether files answer Range requests", "on", ("on", "off")),
    Switch(
        "callback_secret",
        "word",
        "Runflow: what callbacks are signed with; `environment`: the first of KLING_NB_CALLBACK_SECRETS",
        "environment",
    ),
    Switch("redirect_to", "word", "where redirects point", "http://127.0.0.1:9/elsewhere.mp4"),
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
    Switch("balance_form", "word", "Runflow: field of the balance", "balance", ("balance", "balance_cents")),
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
)

_RECORDINGS: Final = (
    Switch(
        "play",
        "recording",
        "answers that take the place of the documented ones, by submit, status, result and download; on a "
        "command line the file that holds them",
        "own",
    ),
)

SWITCHES: Final[dict[str, Switch]] = {
    row.name: row for row in (*_moments(), *_RATES, *_NUMBERS, *_WORDS, *_RECORDINGS)
}


"""Every switch by name."""
