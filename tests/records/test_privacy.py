"""Private runs over their life: becoming one, coming back from a receipt, what is cut of words on them."""

import hashlib
import json
import shutil
import threading
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings

from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.commands.syntax.values import repeating
from kling_nb.engine.run import Run
from kling_nb.engine.submit import submit_call
from kling_nb.errors import KlingError, NotCachedError, StoreError, UsageError
from kling_nb.media.folder import Store
from kling_nb.media.names import file_stem
from kling_nb.notebook.form.form import form
from kling_nb.notebook.form.verdict import assess
from kling_nb.notebook.line import run_command
from kling_nb.notebook.viewers.rate import Rating
from kling_nb.pricing.catalog import find_model
from kling_nb.records.base import utc_now
from kling_nb.records.money import Estimate
from kling_nb.records.privacy import NOT_SHOWN, hash_of, is_hash, is_redacted, redacted, restore_prompt
from kling_nb.records.receipt import from_receipt, to_receipt
from kling_nb.records.request import make_request, request_key, run_key
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.recovery.resolve import resolve
from kling_nb.recovery.restore import restore
from kling_nb.recovery.verify import verify_folder
from kling_nb.spending.reconcile import costs
from support.canary import PROMPT, files_below, pieces_in
from support.kernels import notebook
from support.receipts import records
from support.sessions import ask
from support.stage import WIRES
from support.workbench import until


def stand_in(*, request, **fields):
    """A record of a run, as a ledger has it."""
    model = find_model("pro").id
    return RunRecord(
        id="kl7m2q",
        request=request,
        request_key=request_key(request, model),
        run_key=run_key(request, model, "runflow"),
        model=model,
        provider="runflow",
        provider_model="kling/v3",
        origin="https://api.runflow.io",
        created_at=utc_now(),
        estimate=Estimate(micros=336000, reserve_micros=336000),
        **fields,
    )


# -- becoming private, and coming back ---------------------------------------------------------------
def test_a_public_run_that_is_asked_for_in_private_is_private_from_then_on(build, tmp_path):
    """Nothing is sent; receipt and ledger are written anew, the file keeps its name, and the card says so."""
    house = build()
    public = house.run(house.session(), ask(PROMPT, provider="runflow"))
    [old] = house.media.glob(f"a-plumfjord-*-{public.id}.json")
    session = house.session()
    run = house.run(session, ask(PROMPT, provider="runflow", private=True))
    assert (run.id, run.reused, house.accepted) == (public.id, True, 1)
    assert "keeps it" in run.bundle()["text/html"]
    assert run.record.media.file == public.record.media.file
    assert not old.exists()
    [receipt] = house.media.glob("private-*.json")
    assert pieces_in(receipt.read_bytes().replace(run.record.media.file.encode(), b"")) == {}
    assert session.find(run.id).record.private
    # Its older output is public: what is restored from it is not.
    (house.media / run.record.media.file).unlink()
    made = notebook("")
    made.cells[0].outputs = [output_of(public)]
    nbformat.write(made, house.folder / "a.ipynb")
    assert [one.word for one in restore(house.folder / "a.ipynb", session=session)] == ["fetched"]
    assert [path.name for path in house.media.glob("*.json")] == [receipt.name]
    # Asked for without the flag it stays so, also in another kernel and for somebody with the folder alone.
    again = house.run(house.session(), ask(PROMPT, provider="runflow"))
    assert again.record.private
    house.forget_ledger()
    house.keys()
    from_folder = house.run(house.session(), ask(PROMPT))
    assert (from_folder.id, from_folder.record.private, from_folder.reused) == (run.id, True, True)
    assert pieces_in(from_folder.bundle()["text/plain"].replace(run.record.media.file, "")) == {}
    assert house.accepted == 1


@pytest.mark.parametrize("wire", WIRES)
def test_a_folder_and_the_cell_are_enough_for_a_colleague(build, wire):
    """No ledger, no key: the clip plays, its card has the hash; another prompt is another request."""
    house = build()
    mine = house.run(house.session(), ask(PROMPT, provider=wire, private=True))
    house.forget_ledger()
    house.keys()
    session = house.session()
    run = house.run(session, ask(PROMPT, private=True))
    assert (run.id, run.reused, house.accepted) == (mine.id, True, 1)
    assert verify_folder(house.folder)[0].word == "here"
    looked_up = house.session().find(mine.id)
    assert is_redacted(looked_up.record)
    assert pieces_in(repr(run), looked_up.prompt, *map(str, looked_up.bundle().values())) == {}
    with pytest.raises(UsageError, match="only the hash"):
        form(looked_up)
    with pytest.raises(UsageError, match="hash of a private"):
        ask(looked_up.prompt)
    with pytest.raises(NotCachedError):
        session.open(ask(f"{PROMPT}!", private=True, cached_only=True))


@pytest.mark.parametrize("wire", WIRES)
def test_a_private_run_on_its_way_is_fetched_by_whoever_has_folder_and_key(build, wire):
    """The provider's id is in the sidecar: the cell reattaches, and nothing is sent a second time."""
    house = build(held=True)
    [run] = house.session().open(ask(PROMPT, provider=wire, private=True))
    until(lambda: run.record.provider_run_id and "provider_run_id" in _sidecar(house))
    house.made.pop().close()
    house.let_go()
    house.forget_ledger()
    again = house.run(house.session(), ask(PROMPT, provider=wire, private=True))
    assert (again.id, again.status, house.accepted) == (run.id, "succeeded", 1)
    assert again.record.request.prompt == PROMPT
    assert pieces_in(*files_below(house.media).items()) == {}


def _sidecar(house):
    [path] = house.media.glob("*.json")
    return json.loads(path.read_text())["provider_run_id"] and path.read_text()


def test_what_was_never_sent_and_is_only_a_receipt_cannot_be_sent(build):
    """Its id leads to words; its cell, which has the prompt, starts anew only where its maker cannot."""
    house = build()
    record = house.run(house.session(), ask(PROMPT, provider="runflow", private=True)).record
    left = {"status": RunStatus.CREATED, "provider_run_id": None, "media": None}
    Store(house.media).write_sidecar(record.model_copy(update=left))
    house.forget_ledger()
    session = house.session()
    run = session.find(record.id)
    assert is_redacted(run.record)
    with pytest.raises(KlingError, match="Run its cell again"):
        run.resume().result(90)
    job = Namespace(record=run.record, provider=None)
    with pytest.raises(UsageError, match="only the hash of its words"):
        submit_call(job)
    assert house.submissions == 1


def test_a_private_receipt_with_words_in_it_is_no_receipt(build):
    """It holds hashes or nothing is believed of it; each hash is checked against the words that are asked."""
    house = build()
    run = house.run(house.session(), ask(PROMPT, provider="runflow", private=True))
    receipt = to_receipt(run.record)
    assert to_receipt(from_receipt(receipt)) == receipt
    for words in ("A red fox", "sha256:12", receipt["request"]["prompt"].upper()):
        with pytest.raises(StoreError, match="words"):
            from_receipt({**receipt, "request": {**receipt["request"], "prompt": words}})
    with pytest.raises(StoreError, match="request key"):
        from_receipt({**receipt, "private": False})
    # Somebody else's clip under the key of this request: its hash is not that of these words.
    [path] = house.media.glob("*.json")
    forged = {**receipt, "request": {**receipt["request"], "prompt": "sha256:" + "0" * 64}}
    path.write_text(json.dumps(forged))
    house.forget_ledger()
    house.keys()
    with pytest.raises(NotCachedError):
        house.session().open(ask(PROMPT, cached_only=True))


def test_lost_private_runs_are_resolved_restored_and_counted(build):
    """Attach by the provider's id, with the ledger and from the folder alone; restore, cost and tags work."""
    house = build()
    house.faults(submit_drop_after="next:2", list_500=1.0)
    session = house.session()
    asked = ask(PROMPT, provider="runcomfy", private=True, tags={"prompt": PROMPT, "scene": "3"})
    lost = house.run(session, asked)
    assert lost.status == "lost"
    [made] = [run.id for run in house.sandbox.provider.runs]
    house.forget_ledger()
    for each in house.made:
        each.close()
    session = house.session()
    found = session.find(lost.id)
    assert is_redacted(found.record)
    run = resolve(found, attach=made, session=session).wait(90)
    assert (run.status, house.accepted) == ("succeeded", 1)
    # Its cell gives the ledger its words back.
    again = house.run(session, asked)
    assert (again.id, session.find(lost.id).record.request.prompt) == (lost.id, PROMPT)
    (house.media / run.record.media.file).unlink()
    made = notebook("")
    made.cells[0].outputs = [output_of(again)]
    nbformat.write(made, house.folder / "a.ipynb")
    assert [one.word for one in restore(house.folder / "a.ipynb", session=session)] == ["fetched"]
    report = str(costs(by="tag", everything=True, session=session).data())
    assert "scene=sha256:" in report
    assert pieces_in(report, *files_below(house.media).items(), (house.folder / "a.ipynb").read_text()) == {}


def output_of(run):
    """The output of a cell that shows this run."""
    return nbformat.v4.new_output("display_data", data=run.bundle())


# -- what is cut, and what stays ---------------------------------------------------------------------
def test_labels_are_hashes_but_in_their_owners_table(build):
    """Tags and metadata have their hashes in receipts and at the provider; the own sums show the tags."""
    house = build()
    metadata = {"scene": 3, "note": "first cut", "deep": [{"said": f"we asked: {PROMPT}"}], PROMPT: True}
    tags = {
        "series": "birds",
        "prompt": "a bird",
        "words": PROMPT[:60],
        "kind": "morkvassel",
        "split": "train",
    }
    asked = ask(PROMPT, provider="runflow", private=True, tags=tags, metadata=metadata)
    run = house.run(house.session(), asked)
    [sent] = house.sandbox.provider.runs
    shown = to_receipt(run.record)
    for labels in (sent.extra["metadata"], shown["metadata"]):
        assert labels["scene"] == 3
        assert is_hash(labels["note"])
        assert pieces_in(json.dumps(labels)) == {}
    # The value of a benchmark's own tag stays, because exports name folders by it.
    assert shown["tags"].pop("split") == "train"
    assert [*shown["tags"]] == ["series", "prompt", "words", "kind"]
    assert all(is_hash(value) for value in shown["tags"].values())
    assert run.record.tags == tags
    table = str(costs(by="tag", everything=True, session=house.session()).data())
    assert "series=birds" in table
    assert "prompt=sha256:" in table


@pytest.mark.parametrize(
    "said",
    [
        "Content policy violation.",
        "HTTP 422: input.prompt: flagged by moderation",
        "The request was rejected",
        "Term 'Morkvassel' is not allowed",
        "see https://x.example/?q=Zw%C3%B6lfk%C3%A4tzchen",
        "near 狐狸",
        "\\u72d0\\u72f8",
        "drofnibsian",
    ],
)
def test_a_providers_words_about_a_private_run_are_not_shown(said):
    """Whatever they are: nobody guesses which sentence repeats the prompt. A public run keeps them."""
    request = make_request(prompt=PROMPT, duration=3)
    record = stand_in(request=request, private=True, message=said)
    assert redacted(record).message == NOT_SHOWN
    assert redacted(record.model_copy(update={"private": False})).message == said
    assert redacted(redacted(record)) == redacted(record)


def test_the_hash_is_that_of_the_words():
    """Whoever has the words can check them: SHA-256 of the text, with line ends as LF."""
    request = make_request(prompt="one\r\ntwo", duration=3)
    record = stand_in(request=request, private=True)
    assert hash_of(record) == hashlib.sha256(b"one\ntwo").hexdigest()
    assert file_stem(record) == f"private-{hash_of(record)[:8]}-{record.id}"
    assert restore_prompt(redacted(record), request) == record
    assert restore_prompt(redacted(record), make_request(prompt="one", duration=3)) == redacted(record)


# -- other ways in, other faces ----------------------------------------------------------------------
def test_an_adopted_run_may_be_private(build):
    """`%kling adopt ... --private` keeps and shows the hash of what the provider itself tells."""
    house = build()
    house.run(house.session(), ask(PROMPT, provider="runflow"))
    [made] = house.sandbox.provider.runs
    shutil.rmtree(house.media)
    house.forget_ledger()
    session = house.session()
    shown = run_command(session, f"adopt runflow {made.id} --private", {})
    [run] = shown.runs
    assert run.wait(90).status == "succeeded"
    assert run.record.request.prompt == PROMPT
    assert pieces_in(shown.text, str(shown.html), repr(run), *files_below(house.media).items()) == {}
    assert house.accepted == 1


def test_a_ballot_with_a_private_run_shows_no_words(build):
    """Of a public and a private run of one prompt the raters see the hash, and so does the file of votes."""
    house = build()
    session = house.session()
    runs = [
        house.run(session, ask(PROMPT, provider="runflow", tags={"by": "a"})),
        house.run(session, ask(PROMPT, provider="runcomfy", tags={"by": "b"}, private=True)),
    ]
    rating = Rating(runs, session, by="tag:by")
    paper = rating._next({"kind": "hello"})["pair"]
    assert paper["prompt"].startswith("private prompt, sha256:")
    rating._next({"kind": "vote", "mark": paper["mark"], "choice": "left"})
    votes = rating.to_csv(house.folder / "votes.csv").read_text()
    assert hash_of(runs[1].record) in votes
    rows = votes.replace(runs[0].record.media.file, "")
    assert pieces_in(json.dumps(paper), rows, rating._line()) == {}


def test_a_form_stays_private_and_says_so_in_its_cell(build, monkeypatch):
    """Varying a private run gives a private call; what the form leaves in the notebook has no words."""
    house = build()
    session = house.session()
    monkeypatch.setattr("kling_nb.session.api._session", session)
    run = house.run(session, ask(PROMPT, provider="runflow", private=True))
    made = form(run)
    assert made.ask.private
    assert made.ask.request == run.record.request
    assert "--private" in made.cell
    assert pieces_in(repr(made), *made._heading().values(), repr(made.ask)) == {}
    assert pieces_in(json.dumps(dict(assess(session, made.fields).blocks))) == {}
    made.update(private=False)
    assert pieces_in(repr(made))
    made.update(private=True)
    again = made.submit().wait(90)
    assert (again.id, again.reused, house.accepted) == (run.id, True, 1)
    assert pieces_in(repr(made.runs), *made._heading().values()) == {}


def test_private_is_yes_or_no():
    """What is not quite true is refused, and does not come to mean that it is public."""
    for odd in ("yes", "no", 1, None):
        with pytest.raises(UsageError, match="True or False"):
            ask(PROMPT, private=odd)


def test_a_refused_private_line_repeats_nothing_of_it():
    """A message about a line quotes what was typed, but for a private one."""
    for flag, words in (("", "'Brindlesop'"), ("--private", "a word that is not shown")):
        with pytest.raises(UsageError) as caught, repeating(flag):
            parse_cell(f"fox {flag} --negative no Brindlesop", PROMPT, {}, folder=Path())
        assert words in str(caught.value)
    with pytest.raises(UsageError, match="exclude each other"):
        parse_cell("--private --as curl", PROMPT, {}, folder=Path())


def test_a_run_on_its_way_becomes_private_under_whoever_carries_it(build):
    """Asked for in private by another kernel: its file, its receipt and its live card are private."""
    house = build(held=True)
    first, second = house.session(), house.session()
    [run] = first.open(ask(PROMPT, provider="runflow"))
    until(lambda: run.record.provider_run_id)
    [mine] = second.open(ask(PROMPT, provider="runflow", private=True))
    assert pieces_in(repr(mine)) == {}
    house.let_go()
    assert (mine.wait(90).status, run.wait(90).status) == ("succeeded", "succeeded")
    assert run.record.private
    assert run.record.media.file.startswith("private-")
    until(lambda: len(list(house.media.glob("*.json"))) == 1)
    assert pieces_in(repr(run), str(run.bundle()), *files_below(house.media).items()) == {}
    assert (mine.id, house.accepted) == (run.id, 1)


def test_a_run_that_becomes_private_as_it_ends_has_ended():
    """Two threads tell its handle at one moment: neither takes back what the other said."""
    running = stand_in(request=make_request(prompt=PROMPT, duration=3), status=RunStatus.RUNNING)
    failed = running.model_copy(update={"status": RunStatus.FAILED, "charged": "no", "private": True})

    class Slow(type(running)):
        def model_copy(self, **changes):
            ending.start()
            ending.join(0.2)
            return super().model_copy(**changes)

    run = Run(Slow(**running.model_dump()), None)
    ending = threading.Thread(target=run.publish, args=(failed,))
    run.conceal()
    ending.join(30)
    assert (run.status, run.record.private, run.done) == ("failed", True, True)


def test_what_is_said_of_a_run_whose_words_are_not_here_is_not_kept(build):
    """Attached from the folder alone, a provider that repeats the prompt cannot be judged: its words go."""
    house = build()
    house.faults(submit_drop_after="next:1", run_moderated=1.0, message=f"Content policy: {PROMPT}")
    lost = house.run(house.session(), ask(PROMPT, provider="runcomfy", private=True))
    assert lost.status == "lost"
    house.forget_ledger()
    house.made.pop().close()
    [made] = [run.id for run in house.sandbox.provider.runs]
    session = house.session()
    house.faults(poll_500="next:9")
    with pytest.raises(KlingError) as caught:
        resolve(session.find(lost.id), attach=made, session=session)
    house.faults(poll_500=0)
    run = resolve(session.find(lost.id), attach=made, session=session).wait(90)
    assert (run.status, run.record.reason) == ("failed", "moderated")
    assert is_redacted(session.find(lost.id).record)
    said = [repr(run), str(run.error), str(run.bundle()), run.record.model_dump_json(), str(caught.value)]
    assert pieces_in(*said, *files_below(house.media).items()) == {}
    assert NOT_SHOWN in run.record.message


@settings(max_examples=40)
@given(records())
def test_any_private_receipt_is_read_as_what_was_written(record):
    """Whatever is in a record: its texts are hashes, it passes again unchanged, and the words fit only it."""
    private = record.model_copy(update={"private": True})
    receipt = to_receipt(private)
    asked = receipt["request"]
    texts = [
        asked.get("prompt"),
        asked.get("negative_prompt"),
        *(s["prompt"] for s in asked.get("shots") or ()),
    ]
    assert all(is_hash(text) for text in texts if text is not None)
    back = from_receipt(json.loads(json.dumps(receipt, allow_nan=False)))
    assert to_receipt(back) == receipt
    assert is_redacted(back)
    assert redacted(back) == back
    assert restore_prompt(back, record.request).request == record.request
    assert file_stem(back) == file_stem(private)


def test_the_sandbox_draws_no_word_of_a_private_run(build):
    """Its pictures hold words, and so would the notebook with its still: a private run's have the hash."""
    house = build()
    house.keys()
    session = house.session()
    drawn = f"private prompt sha256:{hashlib.sha256(PROMPT.encode()).hexdigest()[:12]}"
    public, private = (house.run(session, ask(PROMPT, takes=(n,), private=n == 1)) for n in (0, 1))
    # By another server, to which these words are as new.
    same = house.run(house.session(), ask(drawn))
    assert [run.provider for run in (public, private, same)] == ["sandbox"] * 3
    assert private.video.sha256 == same.video.sha256
    assert public.video.sha256 != same.video.sha256
    [sent] = [
        row for row in session.sandboxes.running[0].stats()["runs"] if row["id"] == private.provider_run_id
    ]
    assert sent["input"]["prompt"] == PROMPT
