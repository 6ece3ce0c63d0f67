"""Settings: where they come from, who wins, and what a stranger's project may not do."""

import dataclasses
import os
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.config import loading
from kling_nb.config.loading import current_settings, load_settings
from kling_nb.config.settings import CAPS, OPTIONS, PREFIX, Settings, provider_origin
from kling_nb.config.toml_files import default_user_file
from kling_nb.errors import SettingsError, UsageError
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.providers.runflow import Runflow


@pytest.fixture
def load(tmp_path):
    """Load from a user file, a project and an environment that the test writes."""
    project = tmp_path / "work"
    project.mkdir()

    def load(*, user="", pyproject="", start=None, overrides=None, **environ):
        user_file = tmp_path / "config.toml"
        user_file.write_text(user)
        user_file.chmod(0o600)
        if pyproject:
            (project / "pyproject.toml").write_text("[tool.kling_nb]\n" + pyproject)
        environ = {PREFIX + name.upper(): value for name, value in environ.items()}
        return load_settings(
            overrides=overrides, environ=environ, start=start or project, user_file=user_file
        )

    return load


# -- precedence ---------------------------------------------------------------


def test_defaults_are_safe(load):
    """With nothing set: ten dollars a session, four in flight, no consent, no declared budget."""
    settings = load()
    assert (settings.provider, settings.model) == ("auto", "kling-3.0-pro")
    assert (settings.budget_micros, settings.max_in_flight) == (10_000_000, 4)
    assert (settings.yes, settings.cached_only, settings.budget_declared) == (False, False, False)
    assert (settings.runflow_url, settings.runcomfy_url) == (Runflow.default_url, RunComfy.default_url)
    assert set(settings.sources.values()) == {"default"}


def test_stronger_places_win(load):
    """Argument beats environment beats project beats user file beats default."""
    seen = []
    given = {"user": 'provider = "runflow"'}
    seen.append(load(**given).provider)
    given["pyproject"] = 'provider = "runcomfy"'
    seen.append(load(**given).provider)
    given["provider"] = "sandbox"
    seen.append(load(**given).provider)
    given["overrides"] = {"provider": "auto", "model": None}
    seen.append(load(**given).provider)
    assert seen == ["runflow", "runcomfy", "sandbox", "auto"]


def test_sources_tell_where_each_value_came_from(load):
    """Every field names its place, so that `%kling config` can show it."""
    settings = load(
        user="user_total = 100", pyproject='model = "4k"', yes="1", overrides={"budget": Decimal("2.50")}
    )
    assert {name: place for name, place in settings.sources.items() if place != "default"} == {
        "user_total_micros": "user file",
        "model": "project",
        "yes": "environment",
        "budget_micros": "argument",
    }
    assert set(settings.sources) == {f.name for f in dataclasses.fields(Settings)}


def test_every_setting_is_read_from_the_environment(load):
    """Each fixed variable name has its effect."""
    settings = load(
        provider="runcomfy",
        model="std",
        budget="2.50",
        project_daily="5",
        user_daily="6",
        user_total="70",
        team_daily="80",
        team_total="90",
        yes="1",
        cached_only="true",
        ledger="postgresql://host/db",
        media="/clips",
        runflow_url="http://127.0.0.1:8000/runflow/",
        runcomfy_url="https://proxy.example.org:443/comfy",
        callback_url="https://hub.example.org/kling/callbacks/runflow",
        max_in_flight="7",
        sandbox_wait="0",
        project="fox film",
        notify="1",
        embed="poster",
        allow_origin="https://other.example.org , https://proxy.example.org",
    )
    assert set(settings.sources.values()) == {"environment", "default"}
    assert sum(place == "environment" for place in settings.sources.values()) == len(OPTIONS) == 21
    assert settings.model == "kling-3.0-standard"
    assert [getattr(settings, f"{cap}_micros") for cap in CAPS] == [
        2_500_000,
        5_000_000,
        6_000_000,
        70_000_000,
        80_000_000,
        90_000_000,
    ]
    assert (settings.yes, settings.cached_only, settings.sandbox_wait, settings.max_in_flight) == (
        True,
        True,
        0,
        7,
    )
    assert settings.ledger == "postgresql://host/db"
    assert settings.runflow_url == "http://127.0.0.1:8000/runflow"
    assert settings.runcomfy_url == "https://proxy.example.org/comfy"
    assert settings.allow_origin == ("https://other.example.org", "https://proxy.example.org")
    assert settings.project == "fox film"


def test_a_blank_variable_counts_as_not_set(load):
    """`KLING_NB_BUDGET=` in a job script leaves the default and declares nothing."""
    settings = load(budget="", provider="  ")
    assert (settings.budget_micros, settings.budget_declared, settings.provider) == (
        10_000_000,
        False,
        "auto",
    )


@pytest.mark.parametrize(
    ("places", "declared"),
    [
        ({}, False),
        ({"pyproject": "budget = 1"}, False),
        ({"yes": "1"}, False),
        ({"max_in_flight": "2"}, False),
        ({"user": "user_daily = 5.5"}, True),
        ({"project_daily": "5"}, True),
        ({"overrides": {"budget": 5}}, True),
        ({"user": "budget = 20", "pyproject": "budget = 1"}, True),
    ],
)
def test_only_a_person_declares_a_budget(load, places, declared):
    """The default cap and a project's are caps, not consent."""
    assert load(**places).budget_declared is declared


# -- a project only tightens ---------------------------------------------------


@pytest.mark.parametrize(
    ("places", "budget", "source"),
    [
        ({"pyproject": "budget = 5"}, 5, "project"),
        ({"pyproject": "budget = 50"}, 10, "default"),
        ({"pyproject": "budget = 5", "user": "budget = 20"}, 5, "project"),
        ({"pyproject": "budget = 50", "user": "budget = 20"}, 20, "user file"),
        ({"pyproject": "budget = 50", "budget": "20"}, 20, "environment"),
        ({"pyproject": "budget = 5", "budget": "20"}, 20, "environment"),
        ({"pyproject": "budget = 5", "overrides": {"budget": "20"}}, 20, "argument"),
    ],
)
def test_a_project_lowers_a_cap_and_never_raises_it(load, places, budget, source):
    """A cloned stranger's project cannot make a session spend more than its user would."""
    settings = load(**places)
    assert (settings.budget_micros, settings.sources["budget_micros"]) == (budget * 1_000_000, source)


def test_a_raised_cap_is_told(load):
    """A project's cap without effect is said in words, not hidden."""
    settings = load(pyproject="budget = 50\nmax_in_flight = 90\nuser_daily = 3")
    assert settings.notes == (
        "The project's budget has no effect: the user's own is lower ($10.00).",
        "The project's max_in_flight has no effect: the user's own is lower (4).",
    )
    assert settings.user_daily_micros == 3_000_000


@pytest.mark.parametrize(
    "line",
    [
        'runflow_url = "https://api.runflow.io"',
        'runcomfy_url = "http://127.0.0.1:1"',
        'ledger = "/tmp/x.db"',
        "yes = true",
        "cached_only = false",
        'allow_origin = ["https://evil.example.org"]',
        'project = "other"',
        "sandbox_wait = 100",
        'runflow_api_key = "rf_live_canary"',
        '[tool.kling_nb.keys]\nrunflow = "rf_live_canary"',
    ],
)
def test_a_project_may_not_set(load, line):
    """Addresses, the ledger, consent and keys are refused in a project, with the place they belong to."""
    with pytest.raises(SettingsError) as caught:
        load(pyproject=line)
    text = str(caught.value)
    assert "may not set" in text
    assert "environment" in text or PREFIX in text
    assert "canary" not in text


@pytest.mark.parametrize("media", ["clips", "out/clips", "./clips"])
def test_a_project_names_a_folder_inside(load, tmp_path, media):
    """A media subfolder is taken from the project's own folder, also from a notebook deeper down."""
    deep = tmp_path / "work" / "notebooks"
    deep.mkdir()
    settings = load(pyproject=f'media = "{media}"', start=deep)
    assert Path(settings.media) == tmp_path / "work" / media


@pytest.mark.parametrize(
    "media",
    ["/tmp/x", "../out", "a/../../b", "~/clips", "C:clips", ".", "a\\\\..\\\\..", "s3://x/y", "link/x"],
)
def test_a_project_does_not_name_a_folder_outside(load, tmp_path, media):
    """No spelling, and no link, sends clips out of the project."""
    (tmp_path / "work" / "link").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="media"):
        load(pyproject=f'media = "{media}"')


def test_the_nearest_project_with_a_table_counts(load, tmp_path):
    """A `pyproject.toml` without our table is passed over, also a broken one of somebody else's."""
    deep = tmp_path / "work" / "sub" / "sub"
    deep.mkdir(parents=True)
    (deep / "pyproject.toml").write_text("not toml [")
    (deep.parent / "pyproject.toml").write_text('[project]\nname = "kling_nb-user"')
    assert load(pyproject="budget = 5", start=deep).budget_micros == 5_000_000


# -- bad values -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (cap, bad)
            for cap in CAPS
            for bad in ("abc", "-1", "nan", "inf", "1e400", "$5", "5,00", "0x10", "1_0")
        ],
        ("budget", "1000000000.01"),
        ("budget", "٣"),
        ("max_in_flight", "0"),
        ("max_in_flight", "-1"),
        ("max_in_flight", "2.5"),
        ("sandbox_wait", "-1"),
        ("sandbox_wait", "101"),
        ("sandbox_wait", "nan"),
        ("provider", "fal"),
        ("model", "kling-9"),
        ("yes", "maybe"),
        ("cached_only", "2"),
        ("media", "s3://ann:pw-7Qm2@bucket/clips"),
        ("media", "a\nb"),
        ("project", "x" * 101),
        ("runflow_url", "http://api.runflow.io"),
        ("runflow_url", "http://127.0.0.1.example.org"),
        ("runflow_url", "http://2130706433/"),
        ("runflow_url", "http://127.1/"),
        ("runflow_url", "https://api.runflow.io/v1"),
        ("runflow_url", "https://api.runflow.io/v1/"),
        ("runflow_url", "https://user:pw@api.runflow.io"),
        ("runflow_url", "https://api.runflow.io/?a=b"),
        ("runflow_url", "https://api.runflow.io/#x"),
        ("runflow_url", "https://api.runflow.io\\@evil.example.org"),
        ("runflow_url", "ftp://127.0.0.1"),
        ("runflow_url", "file:///etc/passwd"),
        ("runflow_url", "api.runflow.io"),
        ("runflow_url", "https://evil.example.org"),
        ("runflow_url", "https://api.runflow.io:8443"),
        ("runflow_url", "https://api.runflow.io.evil.example.org"),
        ("runflow_url", "https://model-api.runcomfy.net"),
        ("runcomfy_url", "https://api.runflow.io"),
        ("allow_origin", "https://a.example.org/path"),
        ("allow_origin", "http://a.example.org"),
        ("allow_origin", "*"),
    ],
)
def test_a_bad_variable_is_one_line_that_names_it(load, name, value):
    """A value without sense stops everything, names its variable and is not repeated."""
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    text = str(caught.value)
    assert PREFIX + name.upper() in text
    assert "\n" not in text
    if len(value) > 4 and name not in {"runflow_url", "runcomfy_url"}:
        assert value not in text
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://127.8.8.8", "http://[::1]:8000", "http://LOCALHOST:1/x"]
)
def test_loopback_may_be_plain(load, url):
    """A stand-in on this machine needs no TLS and no permission."""
    assert provider_origin(load(runcomfy_url=url), "runcomfy") == url.lower()


def test_another_origin_needs_permission(load):
    """A key goes to a foreign address only if the user listed exactly that origin."""
    url = "https://proxy.example.org/runflow"
    assert load(runflow_url=url, allow_origin="https://PROXY.example.org:443").runflow_url == url
    assert (
        load(user=f'runflow_url = "{url}"\nallow_origin = ["https://proxy.example.org"]').runflow_url == url
    )
    for other in ("https://example.org", "https://proxy.example.org:444", "https://x.proxy.example.org"):
        with pytest.raises(SettingsError, match="ALLOW_ORIGIN"):
            load(runflow_url=url, allow_origin=other)


def test_the_sandbox_has_no_configured_address(load):
    """Asking for it is an error, never a wrong address."""
    with pytest.raises(UsageError):
        provider_origin(load(), "sandbox")


@pytest.mark.parametrize("bad", [True, float("nan"), float("inf"), "-0.01", -1, Decimal("-0.01"), None])
def test_a_bad_argument_is_refused_and_none_means_not_set(load, bad):
    """`connect(budget=...)` is checked like every other place."""
    if bad is None:
        assert load(overrides={"budget": bad}).budget_micros == 10_000_000
        return
    with pytest.raises(SettingsError, match="budget must be dollars"):
        load(overrides={"budget": bad})


def test_an_unknown_argument_is_refused(load):
    """A misspelt setting is not silently dropped."""
    with pytest.raises(SettingsError, match="budgt is not a setting"):
        load(overrides={"budgt": 1})


def test_an_unknown_variable_is_told(load):
    """A misspelt cap is pointed out with the right name."""
    assert load(budgt="1").notes == (
        "KLING_NB_BUDGT is not a setting of kling_nb and has no effect; did you mean KLING_NB_BUDGET?",
    )


@given(cents=st.integers(0, 10**11), shape=st.sampled_from(["text", "float", "decimal", "toml"]))
def test_dollars_are_exact(tmp_path_factory, cents, shape):
    """Whatever is typed becomes exactly that many micro-dollars, also a float of the caller's."""
    text = f"{cents // 100}.{cents % 100:02d}"
    if shape == "toml":
        user_file = tmp_path_factory.getbasetemp() / f"exact-{os.getpid()}.toml"
        user_file.write_text(f"budget = {text}")
        settings = load_settings(environ={}, user_file=user_file)
    else:
        value = {"text": str, "float": float, "decimal": Decimal}[shape](text)
        settings = load_settings(environ={}, overrides={"budget": value})
    assert settings.budget_micros == cents * 10_000
    assert type(settings.budget_micros) is int


def test_a_cap_is_rounded_down(load):
    """Less than a micro-dollar is no leave to spend one."""
    assert load(budget="0.0000019").budget_micros == 1


# -- files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"budget = ", b"\xff\xfe", b"budget = 'rf_live_canary", b"[", b"budget = rf_live_canary"]
)
def test_a_broken_user_file_is_an_error(tmp_path, content):
    """A file that cannot be read never means the defaults, and its content is not repeated."""
    user_file = tmp_path / "config.toml"
    user_file.write_bytes(content)
    with pytest.raises(SettingsError, match="is not valid TOML") as caught:
        load_settings(environ={}, user_file=user_file)
    assert "canary" not in str(caught.value)
    assert str(user_file) in str(caught.value)


def test_an_unreadable_user_file_is_an_error(tmp_path):
    """A folder in its place, or missing rights, stop everything."""
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(environ={}, user_file=tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
def test_a_project_file_that_is_none_neither_blocks_nor_fills_the_memory(tmp_path, kind):
    """A stranger's folder may hold anything under that name: a pipe, a link to a device, gigabytes."""
    path = tmp_path / "pyproject.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(3 << 30)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(environ={}, user_file=tmp_path / "config.toml", start=tmp_path)


def test_an_unknown_name_in_the_user_file_is_an_error(load):
    """The user's own file is held to the letter, since a misspelt cap would be no cap."""
    with pytest.raises(SettingsError, match=r"user_dayly in .*config\.toml is not a setting"):
        load(user="user_dayly = 5")


def test_keys_in_a_file_that_others_can_read_are_refused(tmp_path):
    """A file with keys must be its owner's alone."""
    user_file = tmp_path / "config.toml"
    user_file.write_text('[keys]\nrunflow = "rf_live_canary"')
    refused = 0
    for mode in (0o640, 0o604, 0o644, 0o660):
        user_file.chmod(mode)
        with pytest.raises(SettingsError, match="chmod 600") as caught:
            load_settings(environ={}, user_file=user_file)
        assert "canary" not in str(caught.value)
        refused += 1
    user_file.chmod(0o600)
    assert "canary" not in repr(load_settings(environ={}, user_file=user_file))
    assert refused == 4


def test_the_users_file_is_found_in_its_usual_place(monkeypatch, tmp_path):
    """Without further words the file is where the platform keeps such files."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "kling_nb").mkdir()
    (tmp_path / "kling_nb" / "config.toml").write_text("max_in_flight = 9")
    assert load_settings().max_in_flight == 9


# -- paths and names -----------------------------------------------------------------


def test_a_ledger_path_does_not_move_with_the_working_folder(load, monkeypatch, tmp_path):
    """A relative ledger is fixed when it is read, or a later `%cd` would open a second, empty one."""
    monkeypatch.chdir(tmp_path)
    assert load(ledger="runs.db").ledger == str(tmp_path / "runs.db")
    assert load(ledger="~/runs.db").ledger == str(Path.home() / "runs.db")
    assert load(ledger="sqlite:///runs.db").ledger == f"sqlite:///{tmp_path / 'runs.db'}"
    assert load(ledger="sqlite:////data/runs.db").ledger == "sqlite:////data/runs.db"
    assert load(ledger="sqlite:///:memory:").ledger == "sqlite:///:memory:"
    assert load(media="clips").media == str(tmp_path / "clips")


def test_a_ledger_password_is_in_no_repr(load):
    """Settings can be shown; a database address cannot."""
    settings = load(ledger="postgresql://me:canary@host/db")
    assert "canary" in settings.ledger
    assert "canary" not in repr(settings)


def test_the_default_ledger_is_in_the_users_data_folder(load, monkeypatch, tmp_path):
    """Every kernel of a user keeps one book."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load().ledger == str(tmp_path / "kling_nb" / "ledger.db")


def test_the_project_is_named_after_its_repository(load, tmp_path):
    """The git top level names the project, else the folder; the variable beats both."""
    deep = tmp_path / "film" / "notebooks"
    deep.mkdir(parents=True)
    assert load(start=deep).project == "notebooks"
    (tmp_path / "film" / ".git").write_text("gitdir: elsewhere")
    assert load(start=deep).project == "film"
    assert load(start=deep, project="fox").project == "fox"


def test_the_user_is_the_hubs_or_the_systems(tmp_path):
    """On a hub, every user of one image has their own caps."""
    missing = tmp_path / "none.toml"
    on_hub = load_settings(environ={"JUPYTERHUB_USER": "ada\n"}, user_file=missing)
    assert on_hub.user == "ada"
    assert load_settings(environ={}, user_file=missing).user not in {"", "unnamed"}


# -- read again only where something changed ------------------------------------


def test_what_changed_counts_at_once_and_nothing_is_read_twice(tmp_path, monkeypatch):
    """A variable, an argument, a file of the same size and time, a new project: the next call sees each."""
    read, real = [], load_settings
    monkeypatch.setattr(loading, "load_settings", lambda **given: read.append(1) or real(**given))
    later = time.time_ns() + 10**10

    def now(**overrides):
        return current_settings(overrides, tmp_path, clock=lambda: later)

    own = default_user_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("max_in_flight = 5")
    assert [now().max_in_flight for _ in range(5)] == [5] * 5
    assert len(read) == 1
    times = own.stat()
    own.write_text("max_in_flight = 6")
    os.utime(own, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert now().max_in_flight == 6
    monkeypatch.setenv("KLING_NB_MAX_IN_FLIGHT", "7")
    assert now().max_in_flight == 7
    assert now(max_in_flight=8).max_in_flight == 8
    (tmp_path / "pyproject.toml").write_text("[tool.kling_nb]\nmax_in_flight = 2")
    assert now(budget="1").budget_micros == 1_000_000
    monkeypatch.delenv("KLING_NB_MAX_IN_FLIGHT")
    assert now().max_in_flight == 2
    assert now(budget="2").budget_micros == 2_000_000
    before = len(read)
    assert now(budget="2").budget_micros == 2_000_000
    assert len(read) == before


def test_a_file_that_was_written_just_now_is_read_again(tmp_path, monkeypatch):
    """It may be written once more within the same moment, and look the same."""
    read, real = [], load_settings
    monkeypatch.setattr(loading, "load_settings", lambda **given: read.append(1) or real(**given))
    own = default_user_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("max_in_flight = 5")
    moment = own.stat().st_mtime_ns + 1000
    for _ in range(3):
        assert current_settings({}, tmp_path, clock=lambda: moment).max_in_flight == 5
    assert len(read) == 3
