"""What providers spell in many ways: where the run is in an answer, where its clip is, what it cost.

Invariants: an address is only ever a candidate here, the network decides whether it may be followed; a figure
that can be read in two ways is no figure, and its words are kept.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import urljoin, urlsplit

from kling_nb.addresses import is_loopback
from kling_nb.providers.parsing import money, say, whole, word
from kling_nb.records.money import currency

__all__ = ["END_WORDS", "Clips", "Cost", "Reading", "read_cost", "read_run", "video_urls"]

MAX_URL_CHARS = 8192
#: Addresses of one answer that are tried; more are no list of clips.
_MOST = 20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_VIDEO_ENDING = re.compile(r"\.(mp4|m4v|mov|webm|mkv|avi)$", re.IGNORECASE)
_OTHER_ENDING = re.compile(r"\.(jpe?g|png|webp|gif|bmp|svg|mp3|wav|m4a|json|txt|html?)$", re.IGNORECASE)
_VIDEO_NAME = re.compile(r"video|clip|movie|mp4", re.IGNORECASE)
_OTHER_NAME = re.compile(r"image|thumb|poster|cover|preview|audio|sound|icon", re.IGNORECASE)
_State = Literal["queued", "running", "succeeded", "failed", "canceled"]
#: Words that clearly mean an end, whoever uses them; what a contract documents comes first.
END_WORDS: Mapping[str, Literal["succeeded", "failed", "canceled"]] = {
    **dict.fromkeys(
        ("succeeded", "success", "successful", "completed", "complete", "done", "finished"), "succeeded"
    ),
    **dict.fromkeys(
        ("failed", "failure", "error", "errored", "timeout", "timed_out", "rejected", "expired"), "failed"
    ),
    **dict.fromkeys(("canceled", "cancelled", "aborted"), "canceled"),
}
_STATUS_NAMES = ("status_code", "status", "state")
_AMOUNT = re.compile(r"(US\$|\$|[A-Za-z]{3}\b)?\s*([0-9][0-9.eE+-]*)\s*(\$|[A-Za-z]{3})?")


class Reading(NamedTuple):
    """The run in an answer.

    Args:
        run: Its fields, those of an inner object over those of the envelope.
        word: Its status word.
        run_id: Its id, or None where the answer names none.
    """

    run: Mapping[str, Any]
    word: str
    run_id: object

    def state(self, documented: Mapping[str, _State], run_id: str) -> "_State | None":
        """Return where the run is; None for a word that says nothing.

        Args:
            documented: What the words of the provider's contract mean.
            run_id: The run that was asked for; a word of no contract counts only beside this id.
        """
        other = END_WORDS.get(self.word) if self.run_id == run_id else None
        return documented.get(self.word) or other


def read_run(data: Mapping[str, Any], *id_names: str) -> Reading:
    """Find the run in an answer: the object itself, or what it has under `data` or `run`.

    Args:
        data: The answer's object.
        *id_names: What the run's id may be called.

    Returns:
        The run; of two levels that say different things the inner one counts.

    Example:
        >>> read_run({"status": "success", "data": {"id": "a", "status_code": "running"}}, "id").word
        'running'
    """
    inner = next((data[name] for name in ("data", "run") if isinstance(data.get(name), Mapping)), None)
    levels = [data] if inner is None else [inner, data]
    words = (word(level.get(name)) for level in levels for name in _STATUS_NAMES)
    ids = (level[name] for level in levels for name in id_names if level.get(name) is not None)
    run = {**data, **{name: value for name, value in (inner or {}).items() if value is not None}}
    return Reading(run, next((w for w in words if w), ""), next(ids, None))


class Clips(NamedTuple):
    """What an output names.

    Args:
        urls: Every address, each once, the most likely clip first.
        videos: How many of them, from the first on, are called videos or end like one.
        unusable: Whether it only names addresses that are none to fetch from.
    """

    urls: tuple[str, ...] = ()
    videos: int = 0
    unusable: bool = False


def video_urls(output: object, *, base: str) -> Clips:
    """Find every address in an output, whatever its shape, and put those first that are most likely the clip.

    Args:
        output: A bare address, a list, or an object; addresses are looked for under every name.
        base: The provider's base address: what relative addresses belong to. Where it is a server on this
            machine, it may name clips of its own by http; otherwise only https counts.

    Returns:
        The addresses in the order of likelihood: by type, by ending, then the rest, pictures last.

    Example:
        >>> video_urls([{"url": "https://h.example/a.jpg"}, {"url": "/b.mp4"}], base="https://h.example/v1").urls
        ('https://h.example/b.mp4', 'https://h.example/a.jpg')
    """
    found: dict[str, int] = {}
    unusable = False
    for rank, text in _walk(output, None, 4):
        url = _joined(text, base)
        unusable |= url is None and _SCHEME.match(text) is not None
        if url is not None:
            rank = _by_ending(url) if rank is None else rank  # noqa: PLW2901 - the same rank, now known
            found[url] = min(rank, found.get(url, rank))
    ordered = sorted(found, key=found.__getitem__)[:_MOST]
    return Clips(tuple(ordered), sum(found[url] < 2 for url in ordered), unusable and not ordered)


def _walk(value: object, rank: int | None, depth: int) -> Iterator[tuple[int | None, str]]:
    """Yield the texts of an output with what is said of each: 0 a video, 3 something else, None nothing."""
    if isinstance(value, str):
        yield rank, value
    elif depth and isinstance(value, list):
        for item in value:
            yield from _walk(item, rank, depth - 1)
    elif depth and isinstance(value, Mapping):
        kinds = (value.get(name) for name in ("type", "content_type", "mime_type"))
        kind = next((kind.lower() for kind in kinds if isinstance(kind, str) and kind), "")
        if kind.startswith("video"):
            rank = 0
        elif kind.startswith(("image", "audio", "text")):
            rank = 3
        for name, inner in value.items():
            named = 0 if _VIDEO_NAME.search(name) else rank
            yield from _walk(inner, 3 if _OTHER_NAME.search(name) else named, depth - 1)


def _by_ending(url: str) -> int:
    path = urlsplit(url).path
    return 1 if _VIDEO_ENDING.search(path) else 3 if _OTHER_ENDING.search(path) else 2


def _joined(text: str, base: str) -> str | None:
    """Read a text as browsers read an address; None where it is none."""
    head, mark, query = text.partition("?")
    head = head.replace("\\", "/")
    if not text.isprintable() or " " in text or len(text) > MAX_URL_CHARS:
        return None
    try:
        if urlsplit(head).scheme:
            url = head + mark + query
        elif head.startswith("/") or _VIDEO_ENDING.search(head):
            url = urljoin(base, head + mark + query)
        else:
            return None
        parts = urlsplit(url)
        good = bool(parts.hostname) and (parts.scheme == "https" or (is_loopback(url) and is_loopback(base)))
    except ValueError:
        return None
    return url if good else None


class Cost(NamedTuple):
    """What an answer says a run cost.

    Args:
        amount: Decimal text, or None where there is none that can be read.
        currency: Of the amount: ISO 4217, and `XXX` for one that cannot be read.
        words: What stands there where it cannot be read, one line.
    """

    amount: str | None = None
    currency: str = "USD"
    words: str = ""


def read_cost(run: Mapping[str, Any]) -> Cost:
    """Read what a run cost, however it is spelled.

    Args:
        run: The object that carries `cost` (a number, text, or an object with the amount) or `cost_cents`.

    Returns:
        The amount. Where it could be read in two ways it is None, and the words are kept.

    Example:
        >>> read_cost({"cost": "$0.61"}).amount, read_cost({"cost_cents": 61}).amount
        ('0.61', '0.61')
        >>> read_cost({"cost": "1,234"})
        Cost(amount=None, currency='USD', words='1,234')
    """
    value, unit = run.get("cost"), run.get("currency")
    if isinstance(value, Mapping):
        unit = value.get("currency", unit)
        value = next(
            (value[n] for n in ("amount", "value", "usd", "total") if value.get(n) is not None), None
        )
    if value is None and (cents := whole(run.get("cost_cents"))) is not None:
        value = f"{Decimal(cents) / 100:.2f}"
    if isinstance(value, str) and (parts := _AMOUNT.fullmatch(value.strip())) is not None:
        value = parts[2]
        signs = {"USD" if "$" in sign else sign.upper() for sign in (parts[1], parts[3]) if sign}
        signs |= set() if unit is None else {currency(unit)}
        unit = signs.pop() if len(signs) == 1 else "XXX" if signs else None
    amount = money(value)
    words = "" if amount is not None or value is None else say(value, limit=60) or "no number"
    return Cost(amount, currency(unit), words)
