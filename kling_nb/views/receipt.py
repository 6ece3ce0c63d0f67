"""The receipt of a run as a table that opens on a click.

Invariants: estimate, reported and settled are three rows, and none of them shows an amount nobody knows;
of an origin only the host is shown; the words of a private request are not.
"""

import json

from kling_nb.errors import one_line
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import in_currency, usd
from kling_nb.records.privacy import redacted
from kling_nb.records.provenance import source_type
from kling_nb.records.run import Earlier, MediaFacts, RunRecord, RunStatus, charged
from kling_nb.views.html import DOT, MONO, Html, details, join, tag
from kling_nb.views.words import file_words, host, short

__all__ = ["receipt"]

_MOST_EARLIER = 5
_MARKS = {"c2pa": "C2PA", "aigc": "AIGC", "xmp": "XMP"}


def receipt(record: RunRecord) -> Html:
    """Draw the receipt.

    Args:
        record: The run.

    Returns:
        A part that opens on a click.
    """
    cell = "padding:1px 0;text-align:left;vertical-align:top"
    rows = [
        tag(
            "tr",
            # A table of fixed layout takes its widths from the first row.
            tag("td", key, style=f"{cell};opacity:0.65{'' if number else ';width:76px'}"),
            tag("td", value, style=cell),
            style="background:transparent",
        )
        for number, (key, value) in enumerate(entry for entry in _entries(redacted(record)) if entry[1])
    ]
    look = "table-layout:fixed;width:100%;border-collapse:collapse;border:0;margin:6px 0 0;font-size:12px"
    return details("Receipt", tag("table", *rows, style=look))


def _entries(record: RunRecord) -> list[tuple[str, object]]:
    at = provider_label(record.provider)
    request = record.request
    settings = (
        []
        if record.private or not request.negative_prompt
        else [f"negative: {one_line(request.negative_prompt)}"]
    )
    settings += [f"cfg {request.cfg_scale:g}"] if request.cfg_scale is not None else []
    settings += [f"shots: {request.shot_type}"] if request.shot_type else []
    extras = [] if record.nsfw_detected is None else [f"nsfw: {'yes' if record.nsfw_detected else 'no'}"]
    extras += [] if record.seed is None else [f"seed {one_line(str(record.seed))}"]
    extras += [f"timing {short(_json(record.timing), 200)}"] if record.timing else []
    there = record.provider_run_id or "no id known"
    moments = (("sent", record.submitted_at), ("done", record.finished_at), ("saved", record.saved_at))
    asked = [record.created_at.strftime("%Y-%m-%d %H:%M:%S")]
    asked += [f"{word} {moment:%H:%M:%S}" for word, moment in moments if moment]
    origin = host(record.origin)
    model = [tag("bdi", one_line(record.provider_model)), *([tag("bdi", f"at {origin}")] if origin else [])]
    take = f"{record.id}, take {record.take}, try {record.attempt}"
    tags = [tag("bdi", one_line(f"{key}={value}")) for key, value in record.tags.items()]
    return [
        ("Run", join([take, join([tag("bdi", one_line(there)), f" at {at}"])], DOT)),
        ("Model", join(model, DOT)),
        ("Settings", join(settings, DOT)),
        ("Asked", f"{', '.join(asked)} UTC"),
        ("File", _file_entry(record.media)),
        *(("Further file", _file_entry(media)) for media in record.further),
        ("SHA-256", tag("span", record.media.sha256, style=MONO) if record.media else ""),
        ("Marks", _marks(record)),
        ("Estimate", _estimate(record)),
        (
            "Reported",
            _reported(record, at),
        ),
        ("Settled", _settled(record)),
        ("Extras", join(extras, DOT)),
        ("Tags", join(tags, DOT)),
        ("Earlier", _all_earlier(record)),
        ("From", join(_origin(record), DOT)),
        ("Terms", _terms(record)),
        ("Request", tag("span", record.request_key, style=MONO)),
        ("Posted", tag("span", f"sha256:{record.sent.sha256}", style=MONO) if record.sent else ""),
    ]


def _file_entry(media: MediaFacts | None) -> Html:
    return join([tag("bdi", media.file), *file_words(media)], DOT) if media else Html()


def _marks(record: RunRecord) -> Html:
    """Say what the clip is by IPTC's word, and what its file itself says; every encoder names itself."""
    if record.media is None:
        return Html()
    said = [
        tag("bdi", f"{_MARKS.get(mark.kind, mark.where)}{': ' if mark.text else ''}{short(mark.text, 200)}")
        for mark in record.media.marks or ()
        if mark.where.lower() != "encoder"
    ]
    return join([f"IPTC {source_type(play=record.play).rpartition('/')[2]}", *said], DOT)


def _all_earlier(record: RunRecord) -> Html:
    shown = record.earlier[-_MOST_EARLIER:]
    before = len(record.earlier) - len(shown)
    words: list[object] = [f"{before} before these"] if before else []
    return join([*words, *(_earlier(one, play=record.play) for one in shown)], DOT)


def _earlier(one: Earlier, *, play: bool) -> Html:
    unknown = one.settled_micros is None and one.charged != "no"
    paid = "play money" if play else f"charged {'unknown' if unknown else usd(one.settled_micros or 0)}"
    why = f" ({one.reason})" if one.reason and one.reason != one.status.value else ""
    return tag("bdi", f"try {one.attempt}, {one.id}: {one.status.value}{why}, {paid}")


def _origin(record: RunRecord) -> list[object]:
    parts: list[object] = [] if record.notebook is None else [tag("bdi", one_line(record.notebook))]
    if record.cell is not None:
        parts += [f"In [{record.cell.count}]"] if record.cell.count is not None else []
        parts += [f"cell {record.cell.id}"] if record.cell.id else []
    if record.commit is not None:
        changed = {True: ", with changes", False: "", None: ", perhaps with changes"}[record.commit.dirty]
        parts += [f"commit {record.commit.sha[:12]}{changed}"]
    return parts


def _terms(record: RunRecord) -> Html:
    terms = record.terms
    if terms is None or not (terms.licence or terms.url):
        return Html()
    seen = f"seen {terms.as_of}" if terms.as_of else None
    return join([tag("bdi", word) for word in (terms.licence, terms.url, seen) if word], DOT)


def _estimate(record: RunRecord) -> str:
    estimate = record.estimate
    return f"{usd(estimate.micros)}{f' ({one_line(estimate.basis)})' if estimate.basis else ''}"


def _reported(record: RunRecord, at: str) -> str:
    if record.reported_micros is None:
        return f"nothing by {at}"
    words, billed, estimate = (
        in_currency(record.reported_micros, record.currency),
        record.billed_micros,
        record.estimate.micros,
    )
    over = billed is not None and estimate is not None and billed > estimate
    return f"{words}, {usd((billed or 0) - (estimate or 0))} above the estimate" if over else words


def _settled(record: RunRecord) -> str:
    play = " (play money)" if record.play else ""
    if record.settled_micros is not None:
        guess = record.settled_micros and record.billed_micros is None
        return usd(record.settled_micros) + (", as estimated" if guess else "") + play
    if record.status is not RunStatus.SUCCEEDED and charged(record) == "no":
        return f"nothing charged{play}"
    held = f", {usd(record.reserved_micros)} reserved" if record.reserved_micros else ""
    return f"unknown{held}{play}"


def _json(value: object) -> str:
    return one_line(json.dumps(value, ensure_ascii=False, default=str))
