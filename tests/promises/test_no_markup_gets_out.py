"""Some 250 hostile texts in every place that a stranger reaches: shown whole, none of them run or fetched."""

import json
import re
from contextlib import suppress
from datetime import timedelta

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import TimeoutError  # noqa: A004 - Playwright's own, which is not Python's

from kling_nb.records.base import utc_now
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunStatus
from kling_nb.views.card import card, line
from kling_nb.views.card_parts import CardState
from kling_nb.views.html import details, link, prose
from kling_nb.views.receipt import receipt
from kling_nb.views.tables import table, text_table
from support.hostile_text import CORPUS, JUDGE, mark_of
from support.kernels import sandbox_beside
from support.lab import Lab, write_notebook
from support.stage import Stage
from support.watch import Watch

pytestmark = pytest.mark.browser
MARKS = {mark_of(number) for number in range(len(CORPUS))}

#: Frames of their own, so that one text cannot spoil the next.
RAW = """async ([texts, enough]) => {
  const frames = texts.map((text) => {
    const frame = document.createElement('iframe');
    frame.srcdoc = `<div title='${text}'>${text}</div>`;
    return document.body.appendChild(frame);
  });
  const ran = (frame) => { try { return frame.contentWindow.pwned; } catch { return false; } };
  const end = performance.now() + 60000;
  while (frames.filter(ran).length < enough && performance.now() < end)
    await new Promise((resolve) => setTimeout(resolve, 100));
  return frames.filter(ran).length;
}"""

DRAWN = """(marks) => {
  const areas = [...document.querySelectorAll('.jp-OutputArea-output, .mine')];
  const text = areas.map((area) => area.textContent).join('\\n');
  return marks.every((mark) => text.includes(mark));
}"""


def check(page, watch, *own, shown=MARKS):
    """Nothing ran, nothing was asked for, no dialog; and everything that should be there is there to read."""
    # What a page still draws is waited for; what never comes is named below.
    with suppress(TimeoutError):
        page.wait_for_function(DRAWN, arg=sorted(shown), timeout=60_000)
    seen = page.evaluate(JUDGE)
    page.wait_for_timeout(300)
    assert page.evaluate("typeof window.pwned") == seen["pwned"] == "undefined"
    assert seen["foreign"] == []
    assert watch.dialogs == 0
    assert watch.foreign_files(*own) == []
    assert set(seen["marks"]) >= shown, sorted(shown - set(seen["marks"]))
    assert seen["elements"] > len(shown)


def test_the_texts_would_bite(browser):
    """There are enough, no two alike, and unescaped they do run, fetch and open dialogs."""
    assert len(CORPUS) == len(set(CORPUS)) >= 200
    assert all(mark_of(number) in text for number, text in enumerate(CORPUS))
    page = browser.new_page()
    watch = Watch(page)
    page.set_content("<body></body>")
    ran = page.evaluate(RAW, [list(CORPUS), 80])
    fetched = {url for url in watch.foreign_files() if "evil.example" in url}
    page.close()
    assert ran >= 80
    assert len(fetched) >= 15
    assert watch.dialogs >= 1


def test_every_piece_of_markup_shows_them_and_runs_none(browser, tmp_path):
    """Cards, receipts, tables, links: each text in every field, in a page without any sanitizer."""
    stage = Stage(tmp_path, "runflow")
    try:
        record = stage.go().record
    finally:
        stage.close()
    now, page = utc_now(), browser.new_page()
    watch = Watch(page)
    for start in range(0, len(CORPUS), 65):
        parts = []
        for number, text in enumerate(CORPUS[start : start + 65], start):
            status = list(RunStatus)[number % len(RunStatus)]
            changes = {
                "request": TextToVideo(prompt=text, negative_prompt=text, shots=None),
                "status": status,
                "message": text,
                "seed": text,
                "timing": {text: text},
                "tags": {text: text},
                "metadata": {text: [text]},
                "notebook": text,
                "project": text,
                "user": text,
                "version": text,
                "account": text,
                "client_ref": text,
                "provider_run_id": text,
                "provider_model": text,
                "model": text,
                "finished_at": now + timedelta(seconds=1),
                "estimate": record.estimate.model_copy(update={"source": text, "basis": text}),
                "media": record.media.model_copy(update={"codec": text, "container": text, "file": text}),
            }
            hostile = record.model_copy(update=changes)
            state = CardState(record=hostile, name=text, src=text, note=text, poster=text, embed=text)
            parts += [
                card(state, totals=None, now=now),
                receipt(hostile),
                details(text, prose(text)),
                table([text], [[text]], caption=text),
                link(text, text),
            ]
            plain = line(CardState(record=hostile, name=text), totals=None, now=now)
            # A terminal would obey control characters, and a second line could be faked.
            assert all(sign.isprintable() or sign == "\n" for sign in plain)
            assert plain.count("\n") <= 1
            assert mark_of(number) in text_table([text], [[text]])
        page.set_content(f"<div class=mine>{''.join(parts)}</div>")
        shown = {mark_of(number) for number in range(start, min(start + 65, len(CORPUS)))}
        # A relative name of a stranger is asked for beside the page, as a clip is; there is nothing here.
        check(page, watch, shown=shown)
    page.close()


PROVIDED = """
import json, urllib.request
import kling_nb as kling
texts = json.load(open('texts.json'))
def set_fault(**faults):
    data = json.dumps(faults).encode()
    urllib.request.urlopen(urllib.request.Request(CONTROL, data=data, method='POST')).read()
groups = [texts[number:number + 4] for number in range(0, len(texts), 4)]
failed, blocked = [], []
for number, group in enumerate(groups):
    a, b, c, d = (group * 4)[:4]
    set_fault(message=' '.join(group), **{['run_failed', 'submit_moderated'][number % 2]: 'next:1'})
    words = dict(
        prompt='\\n'.join(group), negative_prompt=' '.join([d, c, b, a])[:500], duration=3,
        provider=['runflow', 'runcomfy'][number % 4 > 1], tags={'a': b, 'c': d}, metadata={a[:60]: [b, c, d]},
    )
    failed.append(kling.submit(**words).wait(90))
    if failed[-1].record.reason == 'moderated':
        try:
            kling.submit(**words)
        except kling.KlingError as error:
            blocked.append(error)
set_fault(message='own')
print(len(failed), {run.status.value for run in failed}, len(blocked))
"""

SHOWN = "from kling_nb.engine.runs import Runs\nRuns(failed[{}:{}])"


ERRORS = "print(*blocked, sep='\\n')"

STRANGERS = """
import copy, os
from kling_nb.errors import StoreError
from kling_nb.records.request import TextToVideo, request_key, run_key
from kling_nb.records.receipt import from_receipt
own = kling.submit('A hare of a stranger', duration=3, provider='runflow').wait(60)
genuine = json.loads(own.path.with_suffix('.json').read_text())
KEEP = {'schema', 'status', 'request_key', 'run_key', 'model', 'provider', 'origin', 'sha256', 'name', 'id'}
def leaves(value, way=()):
    for key, inner in value.items():
        if key not in KEEP and way[:1] != ('request',) and key != 'request':
            if isinstance(inner, dict):
                yield from leaves(inner, (*way, key))
            yield (*way, key)
def changed(receipt, ways, value):
    made = copy.deepcopy(receipt)
    for way in ways:
        inner = made
        for step in way[:-1]:
            inner = inner[step]
        old = inner[way[-1]]
        inner[way[-1]] = old | {value: value} if isinstance(old, dict) else value
    return made
def taken(receipt):
    try:
        return bool(from_receipt(receipt))
    except StoreError:
        return False
def filled(receipt, ways, value):
    # In one step where all places take the value, and by halves where some do not.
    made = changed(receipt, ways, value)
    if taken(made):
        return made
    if len(ways) < 2:
        return receipt
    half = len(ways) // 2
    return filled(filled(receipt, ways[:half], value), ways[half:], value)
places = [way for way in leaves(genuine) if taken(changed(genuine, [way], texts[0]))]
for number, text in enumerate(texts):
    take, prompt = number % 100, f'A hare of a stranger, {number // 100}'
    request = {**genuine['request'], 'prompt': prompt}
    made = {**copy.deepcopy(genuine), 'id': f'kxss{number:04d}', 'take': take, 'request': request}
    made['request_key'] = request_key(TextToVideo(**request), made['model'], take)
    made['run_key'] = run_key(TextToVideo(**request), made['model'], 'runflow', take)
    name = ''.join(c for c in text if c.isprintable() and c not in '/\\\\:*?"<>|').strip('. ')[:100] + '.mp4'
    os.link(own.path, own.path.with_name(name))
    made['file']['name'] = name
    made = filled(made, places, text)
    assert taken(made)
    (own.path.parent / f'stranger-{number}.json').write_text(json.dumps(made))
print(len(places), 'places', places)
kling.connect(ledger='other.db')
"""


def cells(corpus):
    """The cells of one notebook; outputs of the last ones come from the files of a stranger alone."""
    strange = []
    for number, start in enumerate(range(0, len(corpus), 100)):
        takes = min(100, len(corpus) - start)
        line = f"%%kling strange{number} -q -n {takes} -p runflow -d 3 --cached-only"
        strange += [f"{line}\nA hare of a stranger, {number}", f"strange{number}"]
    groups = -(-len(corpus) // 4)
    shown = [SHOWN.format(start, start + 22) for start in range(0, groups, 22)]
    return [
        "%load_ext kling_nb",
        PROVIDED,
        *shown,
        ERRORS,
        "%kling list --all",
        "%kling models",
        STRANGERS,
        *strange,
    ]


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.matrix)])
def test_no_notebook_runs_or_fetches_them(browser, tmp_path, step):
    """In JupyterLab as executed and as received from a stranger, and as a page: by two echoing providers."""
    # Every text takes two processors for a minute: `make test` has some of each kind.
    corpus, marks = CORPUS[::step], {mark_of(number) for number in range(0, len(CORPUS), step)}
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "texts.json").write_text(json.dumps(corpus))
    with sandbox_beside() as provider:
        control = provider.urls["runcomfy"].removesuffix("/runcomfy") + "/_sandbox/faults"
        sources = [source.replace("CONTROL", repr(control)) for source in cells(corpus)]
        strangers = sources.index(STRANGERS)
        write_notebook(folder / "a.ipynb", *sources)
        variables = {
            "KLING_NB_LEDGER": str(tmp_path / "ledger.db"),
            "KLING_NB_BUDGET": "1000",
            **provider.environment("runflow"),
            **provider.environment("runcomfy"),
        }
        with Lab(folder, browser, env=variables) as jupyter:
            tab = jupyter.open("a.ipynb")
            watch = Watch(tab.page)
            for number in range(len(sources)):
                tab.run_cell(number, timeout_s=200)
            own = (jupyter.base, jupyter.base.replace("http", "ws"))
            assert re.match(r"\d+ \{'failed'\} \d+$", tab.outputs(1)[0]), tab.outputs(1)
            assert re.match(r"\d\d places ", tab.outputs(strangers)[0]), tab.outputs(strangers)
            for number in range(strangers + 2, len(sources), 2):
                assert "done, reused" in "".join(tab.outputs(number)).lower(), number
            assert len(list((folder / "kling_media").glob("stranger-*.json"))) == len(corpus)
            check(tab.page, watch, *own, shown=marks)
            tab.save()
            stats = provider.stats()
            tab = jupyter.reopen_untrusted("a.ipynb")
            watch = Watch(tab.page)
            check(tab.page, watch, *own, shown=marks)
            # The next one is not to be judged, nor its dialogs answered, by what listens here.
            tab.close()
        groups = -(-len(corpus) // 4)
        assert provider.stats()["accepted"] == stats["accepted"]
        # Each group once, and the clip whose receipt the strangers' are made of: they sent nothing.
        assert stats["submissions"] == groups + 1
        assert stats["accepted"] >= groups // 2
    saved = nbformat.read(folder / "a.ipynb", as_version=4)
    exported, _ = HTMLExporter(template_name="lab").from_notebook_node(saved)
    (folder / "page.html").write_text(exported, encoding="utf-8")
    page = browser.new_page()
    watch = Watch(page)
    page.goto((folder / "page.html").as_uri())
    # The page's own libraries come from the net, which is not there.
    libraries = tuple(set(re.findall(r'(?:src|href)="(https://cdnjs[^"]+)"', exported)))
    check(page, watch, "file:", *libraries, shown=marks)
    page.close()
