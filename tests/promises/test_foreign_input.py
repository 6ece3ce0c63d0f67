"""Text, files and addresses of strangers: nothing of theirs is run, fetched, believed or given a key."""

import json
import re
import socket
import threading
from contextlib import ExitStack, contextmanager
from decimal import Decimal

import nbformat
import pytest
from nbconvert import HTMLExporter

from kling_nb.errors import ConsentError, KlingError, SettingsError
from kling_nb.notebook.line import run_command
from kling_nb.records.base import utc_now
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunStatus
from kling_nb.views.card import card
from kling_nb.views.card_parts import CardState
from support.hostile_text import CORPUS
from support.kernels import execute, notebook, sandbox_beside
from support.lab import open_windows
from support.markup import judge
from support.matrix import ONE_WIRE
from support.played import clip_at
from support.sessions import ask
from support.stage import WIRES, Stage
from support.workbench import until

PWN = "window.pwned=1"
HOSTILE = (
    f"<script>{PWN}</script>",
    f'"><img src=x onerror="{PWN}">',
    f"'><svg/onload={PWN}>",
    f'</div></details></table><iframe srcdoc="<script>parent.{PWN}</script>"></iframe>',
    '<img src="https://evil.example/pixel.png"><link rel=stylesheet href=https://evil.example/a.css>',
    f"[x](javascript:{PWN}) `</code><video src=x onerror={PWN}>`",
    f"\\(\\href{{javascript:{PWN}}}{{x}}\\) $$\\unicode{{<img src=x onerror={PWN}>}}$$",
    f"<style>@import 'https://evil.example/b.css'</style>{{{{constructor.constructor('{PWN}')()}}}}",
    f"<!--<img src=--><img src=x onerror={PWN}//>&lt;b&gt;{PWN}&lt;/b&gt;<base href=//evil.example>",
)
ALL = " ".join(HOSTILE)


# -- a server that must not be met ---------------------------------------------------------
class Trap:
    """Listens, and keeps what anybody sent."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.heard = []
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self):
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            with line:
                line.settimeout(1)
                try:
                    self.heard.append(line.recv(65536))
                except OSError:
                    self.heard.append(b"")

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def trap():
    made = Trap()
    # It really would hear.
    with socket.create_connection(("127.0.0.1", made.listener.getsockname()[1])) as line:
        line.sendall(b"hello")
    while not made.heard:
        pass
    made.heard.clear()
    yield made
    made.close()


@contextmanager
def page_of(browser, address=None, markup=None):
    """Open a page as a careless reader would; give it with the addresses that it asked for."""
    # A window for each page would cost more than the page.
    window = next(iter(open_windows(browser)), None) or browser.new_context()
    page = window.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (asked.append("dialog"), dialog.dismiss()))
    try:
        if address:
            page.goto(address)
        else:
            page.set_content(markup)
        page.wait_for_timeout(300)
        yield page, asked
    finally:
        page.close()


def is_quiet(page, asked):
    """Nothing ran, and no stranger was asked for anything."""
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert not [url for url in asked if "evil.example" in url or url == "dialog"]


# -- in a real browser ------------------------------------------------------------------------
def test_the_canary_would_sing(browser):
    """Unescaped, the same texts do run and do fetch: the judge below is no stone."""
    with ExitStack() as pages:
        opened = [
            pages.enter_context(page_of(browser, markup=f"<div title='{text}'>{text}</div>"))
            for text in HOSTILE
        ]

        def sung():
            return sum(page.evaluate("typeof window.pwned") != "undefined" for page, _ in opened)

        def fetched():
            return sum(any("evil.example" in url for url in asked) for _, asked in opened)

        until(lambda: sung() >= 4 and fetched() >= 2)


def test_no_card_runs_or_fetches_what_strangers_wrote(browser, tmp_path):
    """Every state of a run, its every text hostile, in a page that trusts it wholly."""
    stage = Stage(tmp_path, "runflow")
    try:
        good = stage.go()
        record = good.record
    finally:
        stage.close()
    drawn = []
    for status in RunStatus:
        for text in HOSTILE:
            changes = {
                "request": TextToVideo(prompt=text, negative_prompt=text),
                "status": status,
                "message": text,
                "seed": text,
                "timing": {text: text},
                "tags": {"a": text},
                "metadata": {"b": text},
                "notebook": text,
                "project": text,
                "user": text,
                "provider_run_id": text,
                "media": record.media.model_copy(update={"codec": text, "container": text}),
            }
            hostile = record.model_copy(update=changes)
            src = f"kling_media/{text}"
            state = CardState(record=hostile, name=text, src=src, note=text, poster=text)
            drawn.append(card(state, totals=None, now=utc_now()))
    for one in drawn:
        judge(one)
    assert len(drawn) == len(RunStatus) * len(HOSTILE)
    with page_of(browser, markup="".join(map(str, drawn))) as (page, asked):
        is_quiet(page, asked)
        assert page.evaluate("document.querySelectorAll('script,iframe,svg,link,style,base').length") == 0
        for summary in page.query_selector_all("summary")[:20]:
            summary.click()
        is_quiet(page, asked)
        assert PWN in page.inner_text("body")


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_no_saved_notebook_runs_or_fetches_what_strangers_wrote(browser, tmp_path, monkeypatch, wire):
    """Prompts, provider's messages and results, tables, payloads and errors, as an exported page has them."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_BUDGET", "50")
    monkeypatch.setenv({"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}[wire], "any-key")
    good = [
        f"%%kling fox{n} -p {wire} -d 3\n{text}".replace("{{", "{ {") for n, text in enumerate(HOSTILE[:3])
    ]
    after = ["%kling list", "%kling show fox0", "%kling models", "fox0", "fox0.record"]
    bad = f"%%kling bad -p {wire} -d 3 --tag a=b\nA fox {HOSTILE[0]}"
    dry = f"%%kling -p {wire} --dry-run --as curl\n{HOSTILE[1]}"
    lines = [f"%kling show '{HOSTILE[0]}'", f"%kling {HOSTILE[1]!r}", f"%%kling --{HOSTILE[0]}\nA fox"]
    with sandbox_beside(faults=[f"message={ALL[:3000]}"]) as provider:
        monkeypatch.setenv(f"KLING_NB_{wire.upper()}_URL", provider.urls[wire])
        control = provider.urls["runcomfy"].removesuffix("/runcomfy") + "/_sandbox/faults"
        turn = (
            "import urllib.request as u\n"
            f"_ = u.urlopen(u.Request('{control}', data=b'{{\"run_failed\": 1}}', method='POST')).read()"
        )
        cells = ["%load_ext kling_nb", *good, *after, dry, turn, bad, "bad", *lines, "%kling list"]
        made = execute(notebook(*cells), tmp_path, allow_errors=True)
        assert provider.stats()["accepted"] == 4
    judged = 0
    for cell in made.cells:
        for output in cell.outputs:
            markup = output.get("data", {}).get("text/html")
            if markup:
                # Code to copy stands in <pre>, which JupyterLab keeps and the judge does not list.
                markup = re.sub("<pre [^>]*>", "<div>", markup).replace("</pre>", "</div>")
                judge(markup)
                judged += 1
    assert judged >= 8
    # Sources of cells are the author's own and are escaped by nbconvert; only outputs are ours.
    page_file = tmp_path / "page.html"
    exported, _ = HTMLExporter(template_name="lab").from_notebook_node(nbformat.from_dict(made))
    page_file.write_text(exported, encoding="utf-8")
    with page_of(browser, address=page_file.as_uri()) as (page, asked):
        is_quiet(page, asked)
        own = [url for url in asked if url.startswith(("file:", "data:"))]
        assert own
        for button in page.query_selector_all(".jp-OutputArea summary")[:10]:
            button.click()
        is_quiet(page, asked)
        assert PWN in page.inner_text("body")


# -- addresses ---------------------------------------------------------------------------------
LINKS = (
    "http://10.0.0.7/clip.mp4",
    "https://10.0.0.7/clip.mp4",
    "http://169.254.169.254/latest/meta-data/clip.mp4",
    "https://169.254.169.254/clip.mp4",
    "https://[fd00::1]/clip.mp4",
    "http://evil.example/clip.mp4",
    "https://user:pw@evil.example/clip.mp4",
    "https://2130706433/clip.mp4",
    "file:///etc/passwd",
    "ftp://evil.example/clip.mp4",
    f"javascript:{PWN}",
    "//evil.example/clip.mp4",
)


@pytest.fixture
def connected(monkeypatch):
    """Where sockets of this process were connected to."""
    places, connect = [], socket.socket.connect

    def noted(self, address):
        places.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    return places


@pytest.mark.parametrize("wire", WIRES)
def test_links_to_strange_places_are_not_followed(tmp_path, connected, wire):
    """Private, local, plain, odd: nothing is asked for, the run stays paid for and on its way."""
    stage = Stage(tmp_path, wire)
    stage.engine.limits = type(stage.limits)(save_tries=1, watch_s=30, look_again_s=0.01)
    try:
        for number, link in enumerate(LINKS):
            stage.faults(play=clip_at(link, wire))
            run = stage.go(negative_prompt=f"number {number}")
            assert run.status == "saving", (link, run)
            assert run.error.charged == "yes"
            assert not list(run.record.folder and (tmp_path / "kling_media").glob("*.mp4"))
        assert stage.stats()["downloads"] == 0
        assert {address[1] for address in connected} == {stage.sandbox.port}
        assert stage.stats()["accepted"] == len(LINKS)
        # The link mends, and nothing was paid for again.
        stage.faults(play="own")
        assert run.resume().wait(90).status == "succeeded"
        assert stage.stats()["accepted"] == len(LINKS)
    finally:
        stage.close()


@pytest.mark.parametrize("wire", WIRES)
def test_no_redirect_leads_to_a_stranger(tmp_path, trap, wire):
    """That of a submit or a reading is not followed; that of a download, on this machine, without a key."""
    stage = Stage(tmp_path, wire)
    stage.engine.limits = type(stage.limits)(save_tries=2, watch_s=30, look_again_s=0.01)
    try:
        # The download last: on a stand-in, another port of this machine may have the clip.
        places = ["submit", "poll", *["list"] * (wire == "runflow"), "download"]
        for moment in places:
            stage.sandbox.provider.faults.reset()
            lost = {"submit_drop_after": 1} if moment == "list" else {}
            if moment == "download":
                stage.faults(play={"download": {"status": 302, "headers": {"Location": f"{trap.url}/x"}}})
            else:
                stage.faults(redirect_to=f"{trap.url}/x", **{f"{moment}_redirect": {"next": 3}}, **lost)
            stage.go(negative_prompt=moment)
            fired = "play_download" if moment == "download" else f"{moment}_redirect"
            assert stage.stats()["fired"][f"{wire}.{fired}"] >= 1
            assert moment == "download" or trap.heard == []
        assert trap.heard
        assert all(b"authorization" not in heard.lower() for heard in trap.heard)
    finally:
        stage.close()


@pytest.mark.parametrize("wire", WIRES)
def test_the_sandboxs_own_links_to_a_stranger_get_no_key(tmp_path, trap, wire):
    """A clip on another port of this machine may be fetched for a stand-in, but never with its key."""
    stage = Stage(tmp_path, wire, faults={"play": clip_at(f"{trap.url}/clip.mp4", wire)})
    stage.engine.limits = type(stage.limits)(save_tries=1, watch_s=30)
    try:
        assert stage.go().status == "saving"
    finally:
        stage.close()
    assert all(b"authorization" not in heard.lower() for heard in trap.heard)
    assert len(trap.heard) >= 1


# -- files of strangers ---------------------------------------------------------------------------
def from_folder(sidecar, **changes):
    """Change a sidecar as a stranger could."""
    data = json.loads(sidecar.read_text())
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = data
        for step in way:
            inner = inner[step]
        inner[last] = value
    sidecar.write_text(json.dumps(data))


@pytest.mark.parametrize("wire", WIRES)
def test_a_sidecar_sends_no_key_to_its_own_address(  # noqa: PLR0917 - fixtures
    tmp_path, make_session, monkeypatch, wires, trap, wire
):
    """A pending run in a cloned folder that names its author's server: it is not asked, and gets no key."""
    variable = {"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}[wire]
    monkeypatch.setenv(variable, "a-key-of-the-user")
    monkeypatch.setenv(f"KLING_NB_{wire.upper()}_URL", getattr(wires, wire))
    first = make_session(ledger=str(tmp_path / "theirs.db"))
    run = first.open(ask(provider=wire))[0].wait(60)
    sidecar = run.path.with_suffix(".json")
    data = json.loads(sidecar.read_text())
    assert data["origin"] == getattr(wires, wire)
    for status in ("running", "saving", "queued", "submitting"):
        from_folder(sidecar, status=status, file=None, origin=trap.url)
        second = make_session(ledger=str(tmp_path / f"ours-{status}.db"))
        try:
            taken = second.open(ask(provider=wire))
            for one in taken:
                one.wait(90)
        except KlingError:
            pass
        for line in ("list", "resume"):
            shown = run_command(second, line, {})
            judge(shown.html) if shown.html else None
    assert trap.heard == []


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "..\\..\\x.mp4",
        "a.html",
        ".hidden.mp4",
        "x\u0000.mp4",
        f"<img src=x onerror={PWN}>.mp4",
        "CON:.mp4",
        "http://evil.example/a.mp4",
    ],
)
def test_a_sidecar_names_no_file_elsewhere(tmp_path, make_session, name):
    """A strange name in a stranger's sidecar shows no file; the cell is served anew, in play money."""
    first = make_session(ledger=str(tmp_path / "theirs.db"))
    run = first.open(ask())[0].wait(60)
    from_folder(run.path.with_suffix(".json"), file__name=name)
    second = make_session(ledger=str(tmp_path / "ours.db"))
    again = second.open(ask())[0].wait(60)
    assert again.status == "succeeded"
    assert again.path.parent == run.path.parent
    assert again.id != run.id
    judge(again.bundle()["text/html"])


# -- a cloned project ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "table",
    [
        'runflow_url = "TRAP"',
        'runcomfy_url = "TRAP"',
        'allow_origin = ["TRAP"]',
        "yes = true",
        'ledger = "stolen.db"',
        'media = "../outside"',
        '[tool.kling_nb.keys]\nrunflow = "theirs"',
    ],
)
def test_a_cloned_project_is_refused_whole(tmp_path, make_session, monkeypatch, trap, table):
    """What a project may not set stops the cell before anything is sent, in words."""
    monkeypatch.setenv("RUNFLOW_API_KEY", "a-key-of-the-user")
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "a-key-of-the-user")
    (tmp_path / "pyproject.toml").write_text("[tool.kling_nb]\n" + table.replace("TRAP", trap.url))
    session = make_session()
    for wire in WIRES:
        with pytest.raises(SettingsError) as caught:
            session.open(ask(provider=wire))
        assert "a-key" not in str(caught.value)
    assert trap.heard == []
    assert not (tmp_path / "stolen.db").exists()
    assert not (tmp_path.parent / "outside").exists()


def test_a_project_says_prices_in_words_that_are_only_text(tmp_path, make_session):
    """The source of a price in a stranger's project is shown with the price, and stays text."""
    fit = [text for text in CORPUS if len(text) <= 80 and text.isprintable()][::2][:40]
    head = '[tool.kling_nb.prices.{}."kling-3.0-pro"]'
    table = f'{head}\nsilent = "9.99"\naudio = "9.99"\nas_of = 2026-11-01\nsource = {{}}\n'
    session, shown = make_session(), set()
    for pair in zip(fit[::2], fit[1::2], strict=False):
        prices = [table.format(wire, json.dumps(text)) for wire, text in zip(WIRES, pair, strict=True)]
        (tmp_path / "pyproject.toml").write_text("".join(prices))
        html = run_command(session, "models", {}).html
        shown |= set(re.findall(r"pwn\d{3}", judge(html)[1]))
    assert len(shown) == 40


def test_a_cloned_project_neither_consents_nor_raises_a_cap(tmp_path, make_session, monkeypatch, wires):
    """Its high budget is no consent for a headless cell, and lifts nothing for a watched one."""
    monkeypatch.setenv("RUNFLOW_API_KEY", "a-key-of-the-user")
    monkeypatch.setenv("KLING_NB_RUNFLOW_URL", wires.runflow)
    (tmp_path / "pyproject.toml").write_text("[tool.kling_nb]\nbudget = 5000\nuser_daily = 5000")
    with pytest.raises(ConsentError):
        make_session(headless=True).open(ask(provider="runflow"))
    watched = make_session()
    assert watched.settings().budget_micros == 10_000_000
    with pytest.raises(KlingError, match="does not fit"):
        watched.open(ask(provider="runflow", takes=tuple(range(40))))
    assert wires.stats()["submissions"] == 0
    assert watched.open(ask(provider="runflow"))[0].wait(60).cost == Decimal("0.336")
    assert wires.stats()["submissions"] == 1
