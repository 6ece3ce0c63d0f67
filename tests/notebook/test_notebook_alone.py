"""A notebook without its media folder and ledger: what its outputs tell is neither bought nor drawn again."""

import re
import shutil

import nbformat
import pytest

from kling_nb.commands.estimate.bill import estimate_notebook
from kling_nb.errors import BlockedError, KeyMissingError
from kling_nb.records.receipt import to_receipt
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.records.saved_notebook import runs_in_outputs
from kling_nb.recovery.resolve import resolve
from support.kernels import check_saved, errors, execute, kernel_in, notebook, records
from support.sessions import ask
from support.workbench import until


def save(house, *runs, source="%%kling -d 3\nA red fox in snow"):
    """Save the notebook as it is after its cell was run."""
    made = notebook(source)
    for run in runs:
        data = {"text/plain": "a card", RECEIPT_MIME: to_receipt(run.record)}
        made.cells[0].outputs.append(nbformat.v4.new_output("display_data", data))
    nbformat.write(made, house.folder / "a.ipynb")


def mail(house, session):
    """Leave only the notebook: no ledger, no media folder."""
    session.close()
    house.forget_ledger()
    shutil.rmtree(house.media)


def test_no_sandbox_clip_takes_the_place_of_a_real_one(build, wire):
    """Without a key: words that name the run, in every pass, also once the error has replaced the card."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider=wire))
    save(house, run)
    mail(house, session)
    house.keys()
    for _ in range(2):
        keyless = house.session()
        with pytest.raises(BlockedError, match=f"The clip of run {run.id} was made and paid for") as caught:
            keyless.open(ask())
        assert (caught.value.charged, caught.value.run_id) == ("no", run.id)
        assert "Put the file back" in caught.value.cure
        assert (keyless.ledger().runs(), house.drawn(keyless)) == ([], 0)
        save(house)
    assert [path.name for path in house.media.iterdir()] == [f"{run.path.stem}.json"]
    assert house.run(keyless, ask("Another fox")).provider == "sandbox", "a new request is drawn as ever"
    assert (house.drawn(keyless), house.submissions) == (1, 1)


def test_its_key_fetches_the_clip_again_and_buys_nothing(build, wire):
    """With the key that made it the provider still has it: the same bytes, one submission, no new money."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider=wire))
    whole = run.path.read_bytes()
    save(house, run)
    mail(house, session)
    again = house.session()
    second = house.run(again, ask(provider=wire))
    assert (second.id, second.status, second.reused) == (run.id, "succeeded", True)
    assert second.path.read_bytes() == whole
    assert (again.totals().settled_micros, house.submissions) == (0, 1)


def test_another_key_does_not_buy_what_was_paid_for(build, wire):
    """A colleague with a key of his own is told, and decides."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider=wire))
    save(house, run)
    mail(house, session)
    house.keys(wire, key="other-key-of-a-test-9Zt4")
    colleague = house.session()
    with pytest.raises(BlockedError, match="cannot be fetched again with the keys at hand"):
        colleague.open(ask())
    assert house.submissions == 1
    anew = house.run(colleague, ask(no_cache=True))
    assert (anew.status, anew.record.attempt, house.submissions) == ("succeeded", 2, 2)


def test_a_run_that_the_page_saved_on_its_way_is_reattached(build, wire):
    """Pending without a key; with it the very run is watched to its clip."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider=wire))
    until(lambda: run.provider_run_id)
    save(house, run)
    mail(house, session)
    house.keys()
    keyless = house.session()
    shown = house.run(keyless, ask())
    assert (shown.id, shown.status.pending, house.drawn(keyless)) == (run.id, True, 0)
    assert isinstance(shown.error, KeyMissingError)
    save(house)
    house.keys(wire)
    house.let_go()
    second = house.run(house.session(), ask())
    assert (second.provider_run_id, second.status) == (run.provider_run_id, "succeeded")
    assert house.submissions == 1


def test_a_lost_run_blocks_and_can_be_given_up(build):
    """What nobody knows is asked about first, from the notebook alone too."""
    house = build(faults={"submit_drop_after": {"next": 1}})
    session = house.session()
    lost = house.run(session, ask(provider="runcomfy"))
    save(house, lost)
    mail(house, session)
    again = house.session()
    with pytest.raises(BlockedError, match=lost.id):
        again.open(ask(provider="runcomfy"))
    assert house.submissions == 1
    resolve(lost.id, abandon=True, session=again)
    assert house.run(again, ask(provider="runcomfy")).status == "succeeded"
    assert house.submissions == 2


def test_a_private_run_is_known_by_whoever_has_its_words(build):
    """Its receipt holds no word of the prompt, on the page and in the folder, and its cell still finds it."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider="runcomfy", private=True))
    save(house, run, source="%%kling -d 3 --private\n$prompt")
    mail(house, session)
    house.keys()
    keyless = house.session()
    with pytest.raises(BlockedError, match=f"The clip of run {run.id} was made and paid for"):
        keyless.open(ask(private=True))
    [put_back] = house.media.iterdir()
    assert "fox" not in (house.folder / "a.ipynb").read_text() + put_back.read_text() + put_back.name
    house.keys("runcomfy")
    again = house.run(house.session(), ask(private=True))
    assert (again.id, again.status, house.submissions) == (run.id, "succeeded", 1)
    assert not [path for path in house.media.rglob("*") if "fox" in path.name]


def test_looking_ahead_says_the_same_and_writes_nothing(build):
    """The dry run and the bill of the notebook know of it, and leave the folder as it is."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider="runcomfy"))
    save(house, run)
    mail(house, session)
    house.keys()
    keyless = house.session()
    [take] = keyless.plan(ask()).takes
    assert (take.word, take.error.run_id) == ("blocked", run.id)
    bill = estimate_notebook(keyless, house.folder / "a.ipynb")
    assert [(cell.state, cell.new, run.id in cell.why) for cell in bill.cells] == [("blocked", 0, True)]
    assert not house.media.exists()
    house.keys("runcomfy")
    assert [take.word for take in house.session().plan(ask()).takes] == ["reused"]


def test_the_ledger_and_the_folder_know_better_than_the_page(build):
    """An output from before the end of its run says nothing against them."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider="runflow"))
    until(lambda: run.provider_run_id)
    save(house, run)
    house.let_go()
    assert run.wait(90).status == "succeeded"
    for forget in (lambda: None, house.forget_ledger):
        session.close()
        forget()
        session = house.session()
        [again] = session.open(ask())
        assert (again.id, again.status, again.reused) == (run.id, "succeeded", True)
    assert house.submissions == 1


def test_what_is_no_notebook_stops_nothing(build):
    """A file that cannot be read, or holds a receipt that was changed, is as good as none."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider="runflow"))
    save(house, run)
    text = (house.folder / "a.ipynb").read_text()
    mail(house, session)
    house.keys()
    keyless = house.session()
    spoilt = (text[:-40], text.replace("A red fox in snow", "A white fox"), run.record.request_key, "")
    for take, content in enumerate(spoilt):
        (house.folder / "a.ipynb").write_text(content)
        assert house.run(keyless, ask(no_cache=take > 0)).provider == "sandbox"
    (house.folder / "a.ipynb").unlink()
    (house.folder / "a.ipynb").symlink_to("/dev/zero")
    assert runs_in_outputs(house.folder / "a.ipynb", [run.record.request_key]) == ()
    assert house.drawn(keyless) == len(spoilt)


# -- in a kernel ---------------------------------------------------------------------------------
CELL = "%%kling fox -d 3\nA red fox in snow"
SLOWER = pytest.param("runflow", marks=pytest.mark.matrix)


@pytest.mark.parametrize("wire", ["runcomfy", SLOWER])
def test_a_pending_run_is_shown_without_a_key_and_goes_on_with_one(build, monkeypatch, wire):
    """Run All shows it as pending and sends nothing; a new kernel with the key ends with its clip."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider=wire))
    until(lambda: run.provider_run_id and run.provider_run_id in house.sidecar(run))
    session.close()
    house.forget_ledger()
    house.keys()
    monkeypatch.setenv("JUPYTERHUB_USER", "bob")
    with kernel_in(house.folder) as kernel:
        assert kernel.run("%load_ext kling_nb").status == "ok"
        assert kernel.run(CELL).status == "ok"
        shown = str(kernel.wait_display("not watched"))
        assert re.search(f"{run.id} \\(fox\\) (Queued|Running), not watched", shown)
        assert "there is no key to ask about it" in shown
        assert kernel.value("[fox.provider_run_id, fox.status.pending]") == [run.provider_run_id, True]
        assert kernel.run("%kling list").text.strip() == "There are no runs in the ledger yet."
    pending = notebook("%load_ext kling_nb", CELL)
    pending.cells[1].metadata["tags"] = ["raises-exception"]
    [error] = errors(execute(pending, house.folder))
    assert (error.ename, run.id in error.evalue) == ("KeyMissingError", True)
    assert [record.id for record in records(pending)] == [run.id]
    assert list(house.media.glob("*.mp4")) == []
    house.keys(wire)
    house.let_go()
    done = execute(notebook("%load_ext kling_nb", CELL), house.folder)
    assert [(record.id, record.status) for record in records(done)] == [(run.id, "succeeded")]
    assert check_saved(done, house.folder) == 1
    assert (house.submissions, house.accepted) == (1, 1)


@pytest.mark.parametrize("wire", [SLOWER, "runcomfy"])
def test_a_mailed_notebook_is_not_drawn_over(build, monkeypatch, wire):
    """Without a key: words in the cell, and no clip; only a new prompt is drawn, and says so."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider=wire))
    save(house, run)
    mail(house, session)
    house.keys()
    house.unset("MEDIA")
    monkeypatch.setenv("JPY_SESSION_NAME", str(house.folder / "a.ipynb"))
    with kernel_in(house.folder) as kernel:
        kernel.run("%load_ext kling_nb")
        refused = kernel.run(CELL)
        assert (refused.status, len(refused.outputs)) == ("error", 1)
        assert f"The clip of run {run.id} was made and paid for" in str(refused.error)
        assert list(house.media.glob("*.mp4")) == []
        assert kernel.run(CELL.replace("red", "blue")).status == "ok"
        assert kernel.value("[fox.wait(60).status.value, fox.record.provider]") == ["succeeded", "sandbox"]
        shown = [data.get("text/plain", "") for data in kernel.wait_display("Done")]
        [card] = [text for text in shown if "Done [Sandbox]" in text]
        assert "Done [Sandbox]" in card
        assert "$0.336 of play money" in card
    assert [path.stem.rpartition("-")[0] for path in house.media.glob("*.mp4")] == ["a-blue-fox-in-snow"]
    assert house.submissions == 1
