"""The words for a run: its state, its wait, its money, its file.

Invariants: an amount nobody knows is a word, never $0; sandbox money is always called play money. Plain
text; **bold** around amounts is the only mark in it, and a provider's words are never mixed in.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from kling_nb.errors import UsageError
from kling_nb.pricing.catalog import find_model, provider_label
from kling_nb.records.money import Level, Totals, in_currency, usd
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus, charged

__all__ = [
    "SEND_IT",
    "ask_words",
    "clock",
    "counted",
    "file_words",
    "host",
    "minutes",
    "money_words",
    "never_sent",
    "plain",
    "session_words",
    "short",
    "size_words",
    "state_word",
    "status_word",
    "there_are",
    "unplayed_words",
    "unread_words",
]

_STATES = {
    RunStatus.CREATED: "Starting",
    RunStatus.SUBMITTING: "Sending",
    RunStatus.QUEUED: "Queued",
    RunStatus.RUNNING: "Running",
    RunStatus.SAVING: "Saving",
    RunStatus.SUCCEEDED: "Done",
    RunStatus.FAILED: "Failed",
    RunStatus.CANCELED: "Canceled",
    RunStatus.LOST: "Lost",
}

_REASONS = {
    "moderated": "moderated",
    "invalid": "invalid request",
    "credit": "out of credit",
    "auth": "key refused",
    "provider": "provider error",
    "expired": "expired",
    "canceled": "canceled",
}

#: Which cap leaves least, where it is not the session's own.
_CAPS: dict[Level, str] = {
    "session": "",
    "project_daily": " today (project)",
    "user_daily": " today (user)",
    "user_total": " in total (user)",
    "team_daily": " today (team)",
    "team_total": " in total (team)",
}

#: What is safe to do about a run that was never sent.
SEND_IT = "Run its cell again to send it."


def never_sent(record: RunRecord) -> str:
    """Say that a run ended before its provider had it, as one sentence; '' where that is not so.

    Args:
        record: Any run.
    """
    if (
        record.status is not RunStatus.CANCELED
        or record.provider_run_id is not None
        or charged(record) != "no"
    ):
        return ""
    if record.submitted_at is None:
        return "The run was never sent."
    return f"The run never reached {provider_label(record.provider)}."


def clock(moment: datetime, *, date: bool = False) -> str:
    """Write a moment in UTC, to the second.

    Args:
        moment: Any aware time.
        date: Whether the day belongs to it.

    Example:
        >>> clock(datetime(2026, 11, 21, 14, 2, 31, tzinfo=UTC))
        '14:02:31 UTC'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC" if date else "%H:%M:%S UTC")


def minutes(seconds: float) -> str:
    """Write a span as minutes and seconds, with hours where there are any.

    Args:
        seconds: Less than 0 counts as 0.

    Example:
        >>> minutes(104), minutes(3725)
        ('1:44', '1:02:05')
    """
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def state_word(
    record: RunRecord, *, reused: bool = False, detached: bool = False, waiting: bool = False
) -> str:
    """Name the state.

    Args:
        record: The run.
        reused: Whether this cell shows a clip that was there already.
        detached: Whether nobody here watches it, be it for want of a key.
        waiting: Whether it is to be sent as soon as there is a place for it.
    """
    if detached and record.status.pending:
        return f"{_STATES[record.status]}, not watched"
    if waiting:
        return "Waiting"
    if record.status is RunStatus.FAILED:
        unsent = "network" if record.submitted_at else "not sent"
        return f"Failed: {_REASONS[record.reason] if record.reason else unsent}"
    return f"{_STATES[record.status]}, reused" if reused and _done(record) else _STATES[record.status]


def status_word(status: RunStatus) -> str:
    """Name a state within a sentence.

    Example:
        >>> status_word(RunStatus.SUCCEEDED)
        'done'
    """
    return _STATES[status].lower()


def ask_words(record: RunRecord, *, takes: bool = False) -> list[str]:
    """List what was asked: model, provider, seconds, shape, sound, take, try.

    Args:
        record: The run.
        takes: Whether it stands beside another take; alone, the first one needs no number.
    """
    request = record.request
    try:
        model = find_model(record.model).label
    except UsageError:  # a record may be older or newer than our catalog
        model = record.model
    words = [
        model,
        provider_label(record.provider),
        f"{request.duration} s",
        request.aspect_ratio,
        "with sound" if request.audio else "silent",
    ]
    words += [f"take {record.take}"] if takes or record.take else []
    return [*words, f"try {record.attempt}"] if record.attempt > 1 else words


def money_words(record: RunRecord, *, reused: bool = False) -> str:
    """Say what a run costs, as far as anybody knows.

    Args:
        record: The run.
        reused: Whether this cell only shows what was paid for before.

    Returns:
        One phrase, the amounts bold.
    """
    if reused and _done(record):
        return f"nothing sent, **$0.00** this time; before: {_money(record).replace('**', '')}"
    return _money(record)


def _money(record: RunRecord) -> str:
    amount = _known(record)
    if amount is None:
        return _unknown(record)
    play = " (play money)" if record.play else ""
    if record.status.pending:
        held = "reserved" if record.reserved_micros else "estimated, nothing reserved"
        return f"**{usd(amount)}** {held}{play}"
    if not amount and (record.play or record.settled_micros is None):
        return f"nothing charged{play}"
    if record.play:
        return f"**{usd(amount)}** of play money"
    return f"**{usd(amount)}** charged{_basis(record, amount)}"


def _unknown(record: RunRecord) -> str:
    upto = f", up to **{usd(record.reserved_micros)}**" if record.reserved_micros else ""
    if record.play:
        return f"an **unknown** amount{upto} of play money"
    upto += " reserved" if upto else ""
    if record.status.pending:
        return f"price **unknown**{upto}"
    known_charged = record.charged == "yes" or _done(record)
    if record.reported_micros is not None and record.currency != "USD":
        said = in_currency(record.reported_micros, record.currency)
        upto += f"; {provider_label(record.provider)} reports **{said}**, which no dollar sum can count"
    return f"charged, amount **unknown**{upto}" if known_charged else f"charge **unknown**{upto}"


def _known(record: RunRecord) -> int | None:
    """Give the amount a run is known to cost or to hold, or None where nobody knows."""
    if record.settled_micros is not None:
        return record.settled_micros
    if record.status.pending:
        known = record.estimate.micros is not None
        return (record.reserved_micros or record.estimate.micros) if known else None
    if record.reported_micros is not None:
        return record.billed_micros
    return 0 if not _done(record) and charged(record) == "no" else None


def _basis(record: RunRecord, amount: int) -> str:
    words = ""
    who = provider_label(record.provider)
    if record.billed_micros == amount:
        words = f", as {who} reports"
    elif record.reported_micros:
        words = f", as estimated; {who} reports **{in_currency(record.reported_micros, record.currency)}**"
    elif amount and amount == record.estimate.micros:
        # The estimate may rest on the list, on a price of the user's own or on earlier bills.
        words = f", as estimated; {who} reports nothing"
    if record.estimate.micros is not None and amount > record.estimate.micros:
        over = usd(amount - record.estimate.micros)
        words += f", **{over} above the estimate of {usd(record.estimate.micros)}**"
    return words


def session_words(totals: Totals) -> str:
    """Say what the session has spent and reserved, and what is left of its budget.

    Example:
        >>> session_words(Totals(settled_micros=1120000, reserved_micros=560000, cap_micros=10000000))
        'session $1.12 + $0.56 reserved of $10.00, **$8.32** left'
    """
    words, play = f"session {usd(totals.settled_micros)}", " (play money)" if totals.play else ""
    if totals.reserved_micros:
        words += f" + {usd(totals.reserved_micros)} reserved"
    if totals.unknown:
        words += f" + {totals.unknown} unknown"
    words += f" of {usd(totals.cap_micros)}" if totals.cap_micros is not None else ", no cap"
    left = totals.left_micros
    if left is None:
        return words + play
    # What is left is what the tightest cap leaves, so that one is named where it is not the session's.
    which = _CAPS[totals.tightest.level] if totals.tightest is not None else ""
    if left < 0:
        return f"{words}, **over by {usd(-left)}{which}**{play}"
    return f"{words}, **{usd(left)}** left{which}{play}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Count things in words.

    Args:
        number: How many, 0 or more.
        one: What one is called.
        many: What several are called; by default with an s.

    Example:
        >>> counted(1, "clip"), counted(2, "box", "boxes")
        ('1 clip', '2 boxes')
    """
    return f"1 {one}" if number == 1 else f"{number:,} {many or f'{one}s'}"


def there_are(number: int, one: str, many: str | None = None) -> str:
    """Count things in words, up to the verb.

    Args:
        number: How many, 0 or more.
        one: What one is called.
        many: What several are called; by default with an s.

    Example:
        >>> there_are(1, "clip"), there_are(2, "box", "boxes")
        ('1 clip is', '2 boxes are')
    """
    return f"{counted(number, one, many)} {'is' if number == 1 else 'are'}"


def unread_words(count: int) -> str:
    """Say that rows of the ledger could not be read; empty where all could.

    Example:
        >>> unread_words(0), unread_words(2)[:24]
        ('', '2 runs of the ledger can')
    """
    if not count:
        return ""
    what = f"{counted(count, 'run')} of the ledger cannot be read"
    return f"{what}: a newer kling_nb wrote it, or it is damaged. What it has reserved still counts."


def _done(record: RunRecord) -> bool:
    return record.status is RunStatus.SUCCEEDED


def plain(words: Sequence[str] | str) -> str:
    """Join phrases for plain text, without the bold marks.

    Example:
        >>> plain(["**$0.56** reserved", "session $1.12"])
        '$0.56 reserved - session $1.12'
    """
    return " - ".join([words] if isinstance(words, str) else words).replace("**", "")


def host(origin: str) -> str:
    """Give the host of an address, without its query or anything secret; empty where it has none.

    Example:
        >>> host("https://api.example.com/v1?sig=x")
        'api.example.com'
    """
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def short(text: str, chars: int) -> str:
    """Cut text to a length, with an ellipsis where it was cut.

    Example:
        >>> short("a red fox", 6)
        'a red…'
    """
    return text if len(text) <= chars else text[: chars - 1].rstrip() + "…"


_CODECS = {"h264": "H.264", "hevc": "H.265", "av1": "AV1", "vp9": "VP9", "mpeg4": "MPEG-4 part 2"}

# What every browser plays: pixels of 8 bits, in newer codecs of 10 as well, with colours at half the size.
_EIGHT = {"", "yuv420p", "yuvj420p"}
_PLAYED = {
    "": _EIGHT,
    "h264": _EIGHT,
    "vp8": _EIGHT,
    "vp9": {*_EIGHT, "yuv420p10le"},
    "av1": {*_EIGHT, "yuv420p10le"},
}


def file_words(media: MediaFacts) -> list[str]:
    """List what is measured in a file: picture and bytes first, then length, rate, codec and sound.

    Example:
        >>> file_words(MediaFacts(file="a.mp4", sha256="0" * 64, size=4100000, codec="h264"))
        ['4.1 MB', 'H.264', 'no sound']
    """
    words = [f"{media.width}\u00d7{media.height}"] if media.width and media.height else []
    words += [size_words(media.size)]
    words += [f"{media.duration_s:.2f} s"] if media.duration_s else []
    words += [f"{media.fps:g} fps"] if media.fps else []
    words += [_CODECS.get(media.codec, media.codec)] if media.codec else []
    return [*words, f"{media.audio_codec.upper()} sound" if media.audio_codec else "no sound"]


def unplayed_words(media: MediaFacts) -> str:
    """Say that a clip is none that every browser plays; empty where it is.

    Source:
        Tried in Chromium of Debian on 2026-11-29: it plays no H.265, MPEG-4 part 2, MPEG-2 or ProRes. It does
        play H.264 of 10 bits and 4:4:4, which is not to be relied upon elsewhere (not tried).

    Example:
        >>> unplayed_words(MediaFacts(file="a.mp4", sha256="0" * 64, size=1, codec="h264"))
        ''
    """
    if media.pixel_format in _PLAYED.get(media.codec, ()):
        return ""
    kind = " ".join(part for part in (_CODECS.get(media.codec, media.codec), media.profile) if part)
    pixels = f", {media.pixel_format}" if media.pixel_format else ""
    return (
        f"The clip is whole, but not every browser plays it ({kind}{pixels}): a media player opens its file."
    )


def size_words(size: int) -> str:
    """Write a number of bytes.

    Example:
        >>> size_words(4_100_000)
        '4.1 MB'
    """
    if size < 1000:
        return f"{size} bytes"
    for unit, factor in (("kB", 1000), ("MB", 1000**2)):
        if size < factor * 1000:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1000**3:.2f} GB"
