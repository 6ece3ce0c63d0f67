"""A run made elsewhere is brought in: read for free, fetched, verified, and in no budget's sums."""

import pytest

from kling_nb.errors import KlingError, UsageError
from kling_nb.notebook.line import run_command
from kling_nb.records.run import RunStatus
from kling_nb.recovery.adopt import adopt
from support.sessions import ask
from support.workbench import until

SAID = '--prompt "A red fox in snow" -d 3 --ar 16:9 --no-audio'


@pytest.fixture(params=["runflow", "runcomfy"])
def wire(request):
    return request.param


def elsewhere(house, wire, prompt="A red fox in snow", **options):
    """A run of another ledger in another folder, under the same key."""
    other = house.session(ledger=str(house.folder / "theirs.db"), media=str(house.folder / "theirs"))
    return house.run(other, ask(prompt, provider=wire, **options))


def words(wire):
    return "" if wire == "runflow" else SAID


def test_a_finished_run_is_brought_in_and_its_clip_answers_the_same_cell(build, wire):
    """Clip and sidecar come here, the cost is recorded, nothing is sent, and the cell reuses it."""
    house = build()
    theirs = elsewhere(house, wire)
    session = house.session()
    shown = run_command(session, f"adopt {wire} {theirs.provider_run_id} {words(wire)}", {})
    assert "nothing was sent" in shown.text
    assert "counts against no budget here" in shown.text
    [run] = shown.runs
    assert run.wait(90).status == "succeeded"
    assert run.path.parent == house.media
    assert run.path.with_suffix(".json").is_file()
    record = session.ledger().get(run.id)
    assert (record.request_key, record.provider_run_id) == (
        theirs.record.request_key,
        theirs.provider_run_id,
    )
    assert (record.reported_micros, record.settled_micros, record.reserved_micros) == (336_000, 336_000, 0)
    assert record.session_id == ""
    assert (session.totals().settled_micros, session.totals().reserved_micros) == (0, 0)
    assert run_command(session, "cost --all", {}).value.rows[0]["settled_micros"] == 336_000
    again = house.run(session, ask(provider=wire))
    assert (again.id, again.reused) == (run.id, True)
    assert (house.submissions, house.accepted) == (1, 1)


def test_a_run_on_its_way_is_watched_to_its_end(build, wire):
    """Brought in while it is being made, it is followed, and the same cell attaches to it."""
    house = build(held=True)
    other = house.session(ledger=str(house.folder / "theirs.db"), media=str(house.folder / "theirs"))
    [theirs] = other.open(ask(provider=wire))
    until(lambda: theirs.provider_run_id)
    session = house.session()
    [run] = run_command(session, f"adopt {wire} {theirs.provider_run_id} {words(wire)}", {}).runs
    assert run.status.pending
    [same] = session.open(ask(provider=wire))
    assert same is run
    house.let_go()
    assert run.wait(90).status == "succeeded"
    assert house.submissions == 1


def test_an_id_the_ledger_has_is_only_shown(build, wire):
    """Bringing in what is here already changes nothing and asks nobody."""
    house = build()
    session = house.session()
    mine = house.run(session, ask(provider=wire))
    house.keys()
    polls = house.stats()["polls"]
    shown = run_command(session, f"adopt {wire} {mine.provider_run_id}", {})
    assert "is that run already" in shown.text
    assert [run.id for run in shown.runs] == [mine.id]
    assert house.stats()["polls"] == polls
    assert len(session.ledger().runs()) == 1


def test_a_failed_run_is_brought_in_as_such(build, wire):
    """What failed elsewhere is a failed run here: no money moves, nothing is sent."""
    house = build(faults={"run_failed": 1.0})
    theirs = elsewhere(house, wire)
    session = house.session()
    run = run_command(session, f"adopt {wire} {theirs.provider_run_id} {words(wire)}", {}).runs[0].wait(90)
    assert (run.status, run.record.reserved_micros) == ("failed", 0)
    assert session.totals().unknown == 0
    assert house.submissions == 1


def test_runflow_tells_a_storyboard_and_every_field(build):
    """What its record repeats of the input comes back as the same request, to the key."""
    from kling_nb.records.request import make_request
    from kling_nb.session.plan import Ask

    house = build()
    request = make_request(
        shots=[{"prompt": "A vineyard", "duration": 3}, {"prompt": "Two hands", "duration": 4}],
        aspect_ratio="9:16",
        negative_prompt="blur",
        cfg_scale=0.5,
        shot_type="customize",
    )
    other = house.session(ledger=str(house.folder / "theirs.db"), media=str(house.folder / "theirs"))
    theirs = house.run(other, Ask(request=request, provider="runflow"))
    run = adopt("runflow", theirs.provider_run_id, session=house.session()).wait(90)
    assert run.record.request == request
    assert run.record.request_key == theirs.record.request_key
    assert run.status == "succeeded"


def test_what_runflow_tells_counts(build):
    """What the user says besides must not contradict the provider's own record."""
    house = build()
    theirs = elsewhere(house, "runflow")
    session = house.session()
    with pytest.raises(UsageError, match="says another audio, duration"):
        run_command(session, f"adopt runflow {theirs.provider_run_id} -d 5 --audio", {})
    assert session.ledger().runs() == []
    assert run_command(session, f"adopt runflow {theirs.provider_run_id} -d 3", {}).runs


def test_runcomfy_must_be_told_all_that_price_and_reuse_hang_on(build):
    """It repeats no input: what is missing is named, and nothing is guessed."""
    house = build()
    theirs = elsewhere(house, "runcomfy")
    session = house.session()
    with pytest.raises(UsageError, match="does not say what") as caught:
        run_command(session, f"adopt runcomfy {theirs.provider_run_id}", {})
    assert f"%kling adopt runcomfy {theirs.provider_run_id} --prompt" in caught.value.cure
    with pytest.raises(UsageError) as caught:
        run_command(session, f'adopt runcomfy {theirs.provider_run_id} --prompt "A fox" -d 3', {})
    assert "--ar W:H, --audio or --no-audio" in caught.value.cure
    assert session.ledger().runs() == []
    (house.folder / "board.txt").write_text("[3s] A fox\n[4s] A wolf\n")
    line = f"adopt runcomfy {theirs.provider_run_id} -f board.txt --ar 1:1 --no-audio --take 2 -m standard"
    run = run_command(session, line, {}).runs[0].wait(90)
    assert (run.record.request.duration, run.record.take, run.record.model) == (7, 2, "kling-3.0-standard")


def test_another_accounts_run_and_an_unknown_one_are_refused(build, wire):
    """An id that this key cannot read is refused, and no row is left behind."""
    house = build(faults={"runcomfy.foreign_run": "403", "runflow.foreign_run": "403"})
    house.keys(wire, key="other-account-9Qm2")
    theirs = elsewhere(house, wire)
    house.keys(wire)
    session = house.session()
    with pytest.raises(UsageError, match="another account"):
        run_command(session, f"adopt {wire} {theirs.provider_run_id} {words(wire)}", {})
    with pytest.raises(UsageError, match="has no run no-such-run"):
        run_command(session, f"adopt {wire} no-such-run {words(wire)}", {})
    house.keys()
    with pytest.raises(KlingError, match="There is no key"):
        run_command(session, f"adopt {wire} no-such-run {words(wire)}", {})
    assert session.ledger().runs() == []


def test_a_lost_run_of_this_ledger_is_resolved_and_not_adopted(build):
    """On Runflow the reference gives it away: adopting it would leave its money held for ever."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider="runflow"))
    changes = {"status": RunStatus.LOST, "provider_run_id": None, "media": None}
    session.ledger().change(run.id, "test", **changes)
    with pytest.raises(UsageError) as caught:
        run_command(session, f"adopt runflow {run.provider_run_id}", {})
    assert f"%kling resolve {run.id} --attach {run.provider_run_id}" in caught.value.cure


def test_a_live_run_of_the_same_request_keeps_its_place(build):
    """One request and take is one run at a time; another take has room."""
    house = build(faults={"submit_drop_after": "next:1"})
    session = house.session()
    lost = house.run(session, ask(provider="runcomfy"))
    assert lost.status == "lost"
    theirs = elsewhere(house, "runcomfy")
    line = f"adopt runcomfy {theirs.provider_run_id} {SAID}"
    with pytest.raises(UsageError) as caught:
        run_command(session, line, {})
    assert f"%kling resolve {lost.id} --attach" in caught.value.cure
    assert "--take 1" in caught.value.cure
    assert run_command(session, f"{line} --take 1", {}).runs[0].wait(90).status == "succeeded"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("adopt", "takes a provider and the id"),
        ("adopt runcomfy", "takes a provider and the id"),
        ("adopt sandbox abc", "from runflow or runcomfy"),
        ("adopt nobody abc", "from runflow or runcomfy"),
        ("adopt runflow a/b", "is not a run id"),
        ("adopt runflow abc --seed 3", "has no flag"),
        ("adopt runflow abc -d long", "-d takes"),
        ("adopt runflow abc --take -1", "--take takes"),
    ],
)
def test_a_wrong_line_is_one_line(build, line, told):
    """What cannot be brought in is said in one line, before anybody is asked."""
    house = build()
    session = house.session()
    with pytest.raises(UsageError) as caught:
        run_command(session, line, {})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert house.stats()["polls"] == 0


def test_the_api_does_the_same(build):
    """`kling.adopt` and `kling.resolve` are the same engine; both come lazily."""
    import kling_nb as kling

    house = build()
    theirs = elsewhere(house, "runcomfy")
    run = kling.adopt(
        "runcomfy",
        theirs.provider_run_id,
        prompt="A red fox in snow",
        duration=3,
        aspect_ratio="16:9",
        audio=False,
        session=house.session(),
    )
    assert run.wait(90).status == "succeeded"
    assert callable(kling.resolve)
    with pytest.raises(UsageError, match="whole number"):
        kling.adopt("runcomfy", theirs.provider_run_id, take=-1)


def test_an_adopted_run_follows_the_users_own_price(build, wire, tmp_path, monkeypatch):
    """Its estimate, which is its bill where the provider reports no cost, is that of a run made here."""
    house = build(faults={"cost_told": "never"})
    theirs = elsewhere(house, wire)
    config = tmp_path / "config" / "kling_nb" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[prices.{wire}."kling-3.0-pro"]\nsilent = "0.10"\nas_of = 2026-11-01\nsource = "contract"\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    session = house.session()
    [run] = run_command(session, f"adopt {wire} {theirs.provider_run_id} {words(wire)}", {}).runs
    record = run.wait(90).record
    assert record.estimate == session.price(ask("Another", provider=wire))
    assert record.estimate.basis == "$0.10/s silent, your own price (contract), 2026-11-01"
    assert (record.reported_micros, record.settled_micros) == (None, 300_000)


def test_an_adopted_run_follows_what_the_provider_billed(build, wire):
    """What its provider's own bills taught outranks the list for a run made elsewhere, too."""
    house = build()
    theirs = elsewhere(house, wire)
    session = house.session()
    house.run(session, ask("Another", provider=wire))
    [run] = run_command(session, f"adopt {wire} {theirs.provider_run_id} {words(wire)}", {}).runs
    assert run.record.estimate == session.price(ask("A third", provider=wire))
    assert "from your last run" in run.record.estimate.basis
    run.wait(90)
