"""Two people on one ledger, each in a kernel of their own: clips are shared, and money is told apart."""

from contextlib import ExitStack

from support.databases import in_postgresql
from support.kernels import kernel_in, sandbox_beside
from support.workbench import until

PRICE = 336_000
CAPS = "{cap.level: cap.settled_micros + cap.reserved_micros for cap in current().caps()[0]}"


@in_postgresql
def test_two_users_share_clips_and_a_budget_stops_one(tmp_path, where, monkeypatch):
    """Bob gets Ada's clip from the team's store; each sees their own and the team's money; his cap is his."""
    shelf = tmp_path / "shelf"
    with sandbox_beside() as provider, ExitStack() as kernels:

        def kernel(user, **settings):
            (tmp_path / user).mkdir()
            common = {"LEDGER": where, "MEDIA": shelf.as_uri(), "BUDGET": 100, "TEAM_TOTAL": 50}
            for name, value in {**common, "SANDBOX_WAIT": 0, **settings}.items():
                monkeypatch.setenv(f"KLING_NB_{name}", str(value))
            for name, value in provider.environment("runflow", JUPYTERHUB_USER=user).items():
                monkeypatch.setenv(name, value)
            made = kernels.enter_context(kernel_in(tmp_path / user))
            assert made.run("from kling_nb.session.api import current\n%load_ext kling_nb").status == "ok"
            return made

        ada, bob = kernel("ada"), kernel("bob", USER_TOTAL="0.50")
        fox = "%%kling fox -d 3 --wait\nA red fox crosses fresh snow"
        assert ada.run(fox).status == "ok"
        until(lambda: [*shelf.glob("clips/*/*.mp4")])
        [clip] = (tmp_path / "ada" / "kling_media").glob("*.mp4")
        data = clip.read_bytes()
        clip.unlink()
        assert bob.run(fox).status == "ok"
        assert bob.value("[fox.reused, fox.status]") == [True, "succeeded"]
        [same] = (tmp_path / "bob" / "kling_media").glob("*.mp4")
        assert same.read_bytes() == data
        assert provider.counts() == (1, 1)
        heron, owl = (f"%%kling -d 3 --wait\n{what}" for what in ("A heron at dusk", "An owl at night"))
        assert bob.run(heron).status == "ok"
        refused = bob.run(owl)
        assert refused.status == "error"
        assert "of user bob" in " ".join(" ".join(refused.error).split())
        assert provider.counts() == (2, 2)
        assert ada.run(owl).status == "ok"
        assert provider.counts() == (3, 3)
        for one, own in ((ada, 2), (bob, 1)):
            held = one.value(CAPS)
            assert (held["user_total"], held["team_total"]) == (own * PRICE, 3 * PRICE)
            shown = one.run("%kling budget").text
            assert "team, total" in shown
            assert f"${own * PRICE / 1e6:.3f}" in shown
