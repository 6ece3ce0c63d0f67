"""Provider replies fuzzed: structure-aware, on both wires, for every answer an adapter reads.

What may be concluded from an answer is said by `wire/oracle.py`, which shares nothing with the adapters.
The dice are our own: the same answers in every run, whatever is installed.
"""

import re
from collections import Counter
from fractions import Fraction
from random import Random

import pytest

from kling_nb.engine.watch import reported_micros
from kling_nb.errors import UsageError
from kling_nb.providers import make_provider
from kling_nb.providers.base import Accepted, Account, Ambiguous, Asked, Found, Refused, Snapshot
from kling_nb.records.request import make_request
from support import wire_oracle as oracle
from support.wire_forged import REF, RUN_ID, SIGNATURE, forged

#: Cases over both wires, each judged at both kinds of address, in `make test` and in `make matrix`.
CASES = 2_000
MATRIX_CASES = 20_000
WIRES = ("runflow", "runcomfy")
#: The provider's own address, and one of this machine.
BASES = (None, "http://127.0.0.1:8123")
SUCCESS = {"runflow": {"succeeded", "partial_succeeded"}, "runcomfy": {"succeeded", "completed"}}
ENDS = {
    "failed": {"failed", "partial_succeeded"},
    "canceled": {"canceled", "cancelled"},
}
#: Words of no contract that clearly mean an end; believed only beside the run's own id, and not at once.
ODD_ENDS = {
    "succeeded": {"success", "successful", "completed", "complete", "done", "finished", "succeeded"},
    "failed": {"failed", "failure", "error", "errored", "timeout", "timed_out", "rejected", "expired"},
    "canceled": {"aborted", "canceled", "cancelled"},
}
NO_RUN, NOT_YOURS = "404001", "403001"
SINCE = "2026-06-01T10:00:00Z"


class Judge:
    """One adapter, one answer, and what was seen over all of them."""

    def __init__(self, wire, base):
        self.wire, self.local = wire, base is not None
        self.provider = make_provider(wire, base)
        self.seen = Counter()

    def judge(self, reply):
        answer = oracle.read(reply.body)
        self.submit(reply, answer)
        self.poll(reply, answer)
        self.lookup(reply, answer)
        self.cancel(reply, answer)
        self.account(reply, answer)
        self.balance(reply, answer)
        self.asked(reply, answer)

    def words(self, message):
        assert message.isprintable()
        assert len(message) <= 500
        assert SIGNATURE not in message
        assert "feedfeed" not in message

    def submit(self, reply, answer):
        """Accepted, refused or ambiguous; a run that was certainly made is never dropped."""
        verdict = self.provider.read_submit(reply)
        assert isinstance(verdict, Accepted | Refused | Ambiguous)
        self.seen[type(verdict).__name__] += 1
        made = oracle.plainly_accepted(reply.status, answer, self.wire)
        if made is not None or isinstance(verdict, Accepted):
            assert isinstance(verdict, Accepted)
            assert verdict.provider_run_id == made
            self.words(verdict.snapshot.message)
            return
        self.words(verdict.message)
        if isinstance(verdict, Refused):
            assert oracle.complains(answer)
            inside = self.wire == "runcomfy" and reply.ok and answer.get("error_code") is not None
            assert reply.status in oracle.REFUSING or inside
            assert not verdict.resend or reply.status == 429
            assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= 3600

    def poll(self, reply, answer):
        """A state only where the answer says so; success only with one address, an end only by its word."""
        got = self.provider.read_poll(reply, RUN_ID)
        assert isinstance(got, Snapshot)
        self.seen[got.state] += 1
        self.words(got.message)
        self.words(got.word)
        assert got.follow is None or got.follow.url == (
            f"{self.provider.base_url}/v1/requests/{RUN_ID}/result"
        )
        said = oracle.state(answer) if answer is not None and reply.ok else None
        if got.state in {"succeeded", "failed", "canceled", "queued", "unknown"}:
            assert answer is not None
            assert reply.ok
            assert oracle.about(answer, self.wire, RUN_ID)
        if got.state == "succeeded":
            self.success(got, answer, said)
        elif got.state in ENDS and (got.certain or said not in ODD_ENDS[got.state]):
            # Runflow's success with nothing in it, and flagged as indecent, is a moderated failure.
            assert said in ENDS[got.state] | (SUCCESS[self.wire] if got.reason == "moderated" else set())
        if not got.certain:
            self.seen["an odd end"] += 1
            assert oracle.names(answer, self.wire, RUN_ID)
            assert said in set().union(*ODD_ENDS.values())
        if got.state == "not_found":
            assert reply.status == 404 or _coded(answer, NO_RUN)
            assert oracle.complains(answer)
        elif got.state == "wrong_account":
            assert reply.status in {403, 404} or _coded(answer, NOT_YOURS)
            assert oracle.complains(answer)
        if got.state != "succeeded":
            assert not got.video_urls
        self.cost(got, answer)
        if got.charged == "yes":
            assert got.state == "succeeded" or Fraction(got.cost) > 0
        if got.charged == "no":
            assert got.state == "failed" or Fraction(got.cost) == 0

    def success(self, got, answer, said):
        assert said in (SUCCESS[self.wire] if got.certain else ODD_ENDS["succeeded"])
        assert len(got.video_urls) <= 20
        output = answer.get("output")
        output = answer.get("outputs") if output is None else output
        texts = [oracle.joined(t, self.provider.base_url) for t in oracle.texts(output)]
        named = [t for t in texts if oracle.fetchable(t, local=self.local)]
        for address in got.video_urls:
            assert address in named
            self.seen["with a clip"] += 1
        if said == {"runflow": "partial_succeeded", "runcomfy": "completed"}[self.wire]:
            assert got.video_urls

    def cost(self, got, answer):
        """What the answer says, exactly, or unknown; and the ledger's figure is that one, rounded once."""
        told = oracle.amount(answer.get("cost")) if answer is not None else None
        self.words(got.cost_words)
        micros = reported_micros(got)
        if got.cost is None:
            assert micros is None
            if got.state in {"succeeded", "failed", "canceled"} and told is not None:
                # Below zero by its sign, beyond any price, or too small to be one: unknown is right.
                assert "-" in answer["cost"] or told >= oracle.SENSIBLE or told < Fraction(1, 10**60)
            return
        self.seen["with a cost"] += 1
        assert "e" not in got.cost.lower()
        assert Fraction(got.cost) == told or told is None
        assert Fraction(got.cost) >= 0
        assert micros == round(Fraction(got.cost) * 1_000_000)
        assert micros < 2**63

    def lookup(self, reply, answer):
        """Only rows that carry exactly our reference, and absence only from a list that is one."""
        got = self.provider.read_lookup(reply, REF, since=SINCE)
        assert isinstance(got, Found)
        items = answer.get("items") if answer is not None and reply.ok else None
        rows = items if isinstance(items, list) else []
        ours = {
            oracle.usable_id(row.get("id"))
            for row in rows
            if isinstance(row, dict) and oracle.text(row.get("client_ref")) == REF
        }
        assert set(got.provider_run_ids) == ours - {None} or self.wire == "runcomfy"
        assert got.more is None or got.more.url == f"{self.provider.base_url}/v1/runs"
        if got.readable and not got.provider_run_ids:
            self.seen["absent"] += 1
            assert isinstance(items, list)
            assert all(isinstance(row, dict) for row in rows)
            assert not ours
        self.seen["found"] += bool(got.provider_run_ids)

    def cancel(self, reply, answer):
        """Canceled only where the outcome says so."""
        outcome = self.provider.read_cancel(reply)
        assert outcome in {"canceled", "not_cancellable", "unknown"}
        self.seen[f"cancel {outcome}"] += 1
        said = oracle.text(answer.get("outcome")) if answer is not None else None
        if outcome == "canceled":
            assert reply.ok
            assert said in {"canceled", "cancelled"}
        if outcome == "not_cancellable":
            assert said == "not_cancellable"

    def account(self, reply, answer):
        """A key works only by a good answer, and is bad only by a refusal."""
        got = self.provider.read_account(reply)
        assert isinstance(got, Account)
        self.words(got.message)
        self.seen[f"key {got.ok}"] += 1
        if got.ok:
            assert reply.ok
            assert answer
        if got.ok is False:
            assert reply.status in {401, 403} or _coded(answer, "400004")
        listing = self.provider.read_listing(reply)
        if listing is not None and listing.base_usd is not None:
            assert Fraction(listing.base_usd) == oracle.amount(answer["base_price_usd"])
            self.words(listing.note)

    def balance(self, reply, answer):
        """What a field of the answer says, exactly, or nothing."""
        got = self.provider.read_balance(reply)
        if got is None:
            return
        self.seen["a balance"] += 1
        assert reply.ok
        units = {"balance": 1, "balance_usd": 1, "balance_cents": 100, "balance_microdollars": 1_000_000}
        told = [(oracle.amount(answer.get(name)), unit) for name, unit in units.items()]
        assert Fraction(got) in {each / unit for each, unit in told if each is not None}

    def asked(self, reply, answer):
        """What a run was asked for makes a request of ours, or is refused as none."""
        got = self.provider.read_asked(reply)
        assert isinstance(got, Asked)
        assert got.created_at is None or got.created_at.utcoffset().total_seconds() == 0
        told = oracle.text(answer.get("client_ref")) if answer is not None and reply.ok else None
        if told is not None and re.fullmatch(r"[A-Za-z0-9._-]{1,200}", told, re.ASCII):
            assert got.client_ref == (told if self.wire == "runflow" else None)
        try:
            make_request(**{"duration": 5, "prompt": "fox", **got.fields})
        except UsageError:
            self.seen["not a request that kling_nb can make"] += 1


def _coded(answer, code):
    levels = [answer or {}, (answer or {}).get("error")]
    return any(
        str(level.get(name)) == code
        for level in levels
        if isinstance(level, dict)
        for name in ("error_code", "code")
    )


ENOUGH = {
    *("Accepted", "Refused", "Ambiguous", "succeeded", "failed", "canceled", "queued", "running", "unknown"),
    *(
        "unreadable",
        "not_found",
        "wrong_account",
        "with a clip",
        "with a cost",
        "a balance",
        "key True",
        "key False",
    ),
}
ENOUGH_OF = {
    "runflow": ENOUGH | {"found", "absent"},
    "runcomfy": ENOUGH | {"cancel canceled", "cancel not_cancellable"},
}


def fuzz(wire, cases):
    judges = [Judge(wire, base) for base in BASES]

    for number in range(cases):
        reply = forged(Random(f"{wire} {number}"), wire)
        for judge in judges:
            try:
                judge.judge(reply)
            except Exception as error:
                error.add_note(f"Reply {number} of {wire}: {reply}")
                raise
    for judge in judges:
        seen = judge.seen
        assert seen["Accepted"] + seen["Refused"] + seen["Ambiguous"] >= cases
        short = {what: seen[what] for what in ENOUGH_OF[wire] if seen[what] < max(3, cases // 500)}
        assert not short, "\n".join(f"{k} {v}" for k, v in sorted(seen.items()))


@pytest.mark.parametrize("wire", WIRES)
def test_forged_replies_are_never_believed_too_much(wire):
    """No unclassified exception, no wrong success, no dropped run, no invented figure: 2,000 cases."""
    fuzz(wire, CASES // len(WIRES))


@pytest.mark.matrix
@pytest.mark.parametrize("wire", WIRES)
def test_forged_replies_are_never_believed_too_much_full(wire):
    """The same, 20,000 cases."""
    fuzz(wire, MATRIX_CASES // len(WIRES))
