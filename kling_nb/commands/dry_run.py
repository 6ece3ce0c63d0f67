"""What a cell would do and cost, shown without doing it; and the same call for curl or Python.

Invariants: nothing is sent; an unknown price is a word; a key is only ever the name of a variable; text from
a prompt cannot leave its quotes, whatever is pasted where.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from pprint import pformat
from shlex import quote
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer
from kling_nb.commands.syntax.cell import CellOrder
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.errors import KlingError, UnpricedError, one_line
from kling_nb.pricing.catalog import find_model, provider_label
from kling_nb.providers import make_provider
from kling_nb.providers.messages import Call
from kling_nb.records.money import MICROS, plain_usd, usd, usd_of
from kling_nb.session.plan import Ask, Plan
from kling_nb.views.html import MONO, Html, join, tag
from kling_nb.views.tables import Part, filled, page_of, text_of
from kling_nb.views.words import session_words

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["as_curl", "as_python", "blocks_page", "payload_blocks", "show_plan"]

_PRE = f"{MONO};white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0 8px 0"


def show_plan(plan: Plan, call: CellOrder, session: "Session") -> Answer:
    """Show a plan: money, takes, and the exact payload for each provider.

    Args:
        plan: What would be done.
        call: The cell.
        session: For the addresses that `--as` writes down.

    Returns:
        The answer; its value is plain data.
    """
    blocks = payload_blocks(plan.payloads)
    if call.dry_run_as is not None:
        blocks = _as_code(plan, call.dry_run_as, session.settings())
    parts: list[Part] = [*_facts(plan), *_takes(plan)]
    code = "".join(f"\n\n{title}\n{body}" for title, body in blocks)
    page = join([page_of(parts), blocks_page(blocks)])
    return Answer(html=page, text=text_of(parts) + code, value=_value(plan))


def payload_blocks(payloads: Mapping[str, Mapping[str, Any] | str]) -> list[tuple[str, str]]:
    """Write out the body for each provider, or why there is none, under a title.

    Args:
        payloads: As `Plan.payloads`.

    Example:
        >>> payload_blocks({"runflow": "Runflow takes a prompt or shots, not both."})[0][0]
        'Payload for Runflow'
    """
    return [
        (_payload_title(name), _pretty(body) if isinstance(body, Mapping) else one_line(body))
        for name, body in payloads.items()
    ]


def blocks_page(blocks: Sequence[tuple[str, str]]) -> Html:
    """Draw titled blocks of code under each other."""
    return join([Html(tag("div", tag("b", title)) + tag("pre", body, style=_PRE)) for title, body in blocks])


def _facts(plan: Plan) -> list[str]:
    play = " of play money" if plan.play else ""
    each = usd(plan.estimate.micros)
    total = usd(plan.micros)
    facts = [f"Dry run, nothing was sent: {plan.model} at {provider_label(plan.provider)}."]
    if plan.new:
        sum_of = f"{plan.new} x {each} = " if plan.new > 1 and plan.estimate.micros is not None else ""
        facts.append(f"It would cost {sum_of}**{total}**{play}. Basis: {plan.estimate.basis or 'unknown'}.")
        if plan.estimate.micros is None:
            facts.append(
                f"Nobody knows the price. With `--allow-unpriced` it would reserve "
                f"**{usd(plan.estimate.reserve_micros * plan.new)}**."
            )
    else:
        facts.append(f"It would cost **$0.00**{play}: no new run is needed or possible.")
    if (most := plan.ask.max_cost) is not None:
        fits = plan.estimate.reserve_micros * plan.new <= most * MICROS
        facts.append(f"That is {'within' if fits else '**more than**'} its `--max-cost` of {usd_of(most)}.")
    if plan.totals is not None:
        facts.append(f"Now: {session_words(plan.totals)}.")
    # An unknown price, and more than `--max-cost`, are told above.
    explained = isinstance(plan.obstacle, UnpricedError) or getattr(plan.obstacle, "level", "") == "cell"
    if plan.obstacle is not None and not explained:
        facts.append(f"**It would be refused**: {one_line(plan.obstacle.what)}")
    return facts


def _takes(plan: Plan) -> list[Part]:
    rows = [
        [str(take.take), take.word, _run_of(take), one_line(str(take.error)) if take.error else ""]
        for take in plan.takes
    ]
    if len(rows) > 1:
        heads, cells, align = filled(["take", "would be", "run", "why not"], rows, "lllw", "why not")
        return ["", (heads, cells, align)]
    [(number, word, run, why)] = rows
    # That the only take is new is said by its price.
    by = f", run {run}" if run else ""
    return [f"Take {number} would be {word}{by}{f': {why}' if why else '.'}"] if run or why else []


def _run_of(take: Any) -> str:
    record = take.decision.record if take.decision else None
    return record.id if record else (take.error.run_id or "") if take.error else ""


def _payload_title(name: str) -> str:
    return f"Payload for {provider_label(name)}"


def _pretty(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False, default=str)


def _value(plan: Plan) -> dict[str, Any]:
    return {
        "provider": plan.provider,
        "model": plan.model,
        "would_cost_usd": plain_usd(plan.micros),
        "basis": plan.estimate.basis,
        "takes": {take.take: take.word for take in plan.takes},
        "payloads": dict(plan.payloads),
    }


# -- the same call, elsewhere ----------------------------------------------------
def _as_code(plan: Plan, kind: str, settings: Settings) -> list[tuple[str, str]]:
    """Write the call out for the provider, or, where that is the sandbox, for every real one."""
    names = (
        [plan.provider]
        if plan.provider in KEY_VARIABLES
        else [n for n in plan.payloads if n in KEY_VARIABLES]
    )
    blocks = []
    for name in names:
        title = f"{provider_label(name)}, a paid call that kling_nb would know nothing of"
        try:
            call = _call(plan.ask, plan.model, name, settings)
        except KlingError as error:
            blocks.append((provider_label(name), one_line(str(error))))
            continue
        write = as_curl if kind == "curl" else as_python
        blocks.append((title, write(call, KEY_VARIABLES[name][0])))
    return blocks


def _call(ask: Ask, model: str, name: str, settings: Settings) -> Call:
    adapter = make_provider(name, provider_origin(settings, name))
    found = find_model(model)
    found.check(ask.request, name)
    adapter.check(ask.request)
    return adapter.submit_call(
        ask.request,
        found.offer(name).id,
        # Not one of ours: the ledger must never take this run for its own.
        client_ref=f"by-hand-{secrets.token_hex(6)}",
        metadata=dict(ask.metadata) or None,
        callback_url=ask.callback_url,
    )


def as_curl(call: Call, variable: str) -> str:
    r"""Write a call for a POSIX shell.

    Args:
        call: The call.
        variable: The environment variable that holds the key.

    Returns:
        One command. Every quote, exclamation mark and invisible character of the body is a JSON escape, so
        that the body is one quoted word in any shell, history expansion included.

    Example:
        >>> print(as_curl(Call(method="GET", url="https://api.example.com/v1"), "API_KEY"))
        curl --fail-with-body --silent --show-error --request GET https://api.example.com/v1 \
          --header "Authorization: Bearer $API_KEY"
    """
    parts = [
        f"curl --fail-with-body --silent --show-error --request {call.method} {quote(call.url)}",
        f'--header "Authorization: Bearer ${variable}"',
        *(f"--header {quote(f'{name}: {value}')}" for name, value in call.headers.items()),
    ]
    if call.json is not None:
        parts += [
            "--header 'Content-Type: application/json'",
            f"--data-raw {quote(_inert(json.dumps(call.json, ensure_ascii=False)))}",
        ]
    return " \\\n  ".join(parts)


def _inert(text: str) -> str:
    """Escape what a shell, a terminal or a right-to-left reader could act upon; the JSON means the same."""
    return "".join(c if c.isprintable() and c not in "'!" else _escape(c) for c in text)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


def as_python(call: Call, variable: str) -> str:
    """Write a call for Python with httpx.

    Args:
        call: The call.
        variable: The environment variable that holds the key.

    Returns:
        A short program.
    """
    headers = f'        "Authorization": f"Bearer {{os.environ[{variable!r}]}}",\n'
    headers += "".join(f"        {name!r}: {value!r},\n" for name, value in call.headers.items())
    body = pformat(call.json, width=88, sort_dicts=False).replace("\n", "\n" + " " * len("    json="))
    return (
        "import os\n\nimport httpx\n\n"
        f"reply = httpx.request(\n    {call.method!r},\n    {call.url!r},\n"
        f"    headers={{\n{headers}    }},\n"
        f"    json={body},\n    timeout=60,\n)\n"
        "print(reply.status_code, reply.text)"
    )
