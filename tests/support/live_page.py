"""A live view on a bare page of a real browser: its own scripts and styles, a real `ClipSource`.

Only the way between page and kernel is played, by a function of this process; what a real notebook adds is
tested in one (`test_compare_browser.py`).
"""

import base64
import hashlib

from kling_nb.files import part_name
from kling_nb.media.folder import Store
from kling_nb.notebook.widgets import ClipSource, static_text
from kling_nb.records.run import RunStatus
from support.clips import make_clip, make_record

OPEN = """async ([code, css, state]) => {
  const listeners = new Set();
  window.sent = [];
  const model = {
    get: () => state,
    on: (_event, heard) => listeners.add(heard),
    off: (_event, heard) => listeners.delete(heard),
    send: async (message) => {
      window.sent.push(message);
      const reply = await window.askKernel(message);
      if (!reply) return;
      const bytes = reply[1].map((piece) => Uint8Array.from(atob(piece), (c) => c.charCodeAt(0)));
      for (const heard of [...listeners]) heard(reply[0], bytes.map((b) => new DataView(b.buffer)));
    },
  };
  document.head.append(Object.assign(document.createElement('style'), { textContent: css }));
  const address = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  window.done = (await import(address)).default.render({ model, el: document.body });
}"""


def keep_clip(folder, *, run_id, **changes):
    """Make a small clip, keep it in a media folder as a finished run would be, and give the record."""
    shape = {
        name: changes.pop(name)
        for name in ("seconds", "size", "fps", "audio", "colour", "noise", "codec")
        if name in changes
    }
    record = make_record(id=run_id, status=RunStatus.SUCCEEDED, folder=str(folder), **changes)
    folder.mkdir(exist_ok=True)
    made = make_clip(folder.parent / f"{run_id}.mp4", **shape)
    part = made.rename(folder / part_name(run_id))
    media = Store(folder).keep(record, part, hashlib.sha256(part.read_bytes()).hexdigest())
    return record.model_copy(update={"media": media, "settled_micros": 560_000, "charged": "yes"})


class LivePage:
    """One view on a page of its own.

    Args:
        browser: Playwright's.
        scripts: As given to `make_widget`.
        styles: The same.
        state: The same.
        source: Answers what the page asks for.
    """

    def __init__(self, browser, scripts, styles, state, source, **window):
        self.page = browser.new_context(viewport={"width": 1000, "height": 900}, **window).new_page()
        self.page.set_default_timeout(150_000)
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.source = source or ClipSource([], store=Store)
        self.page.expose_function("askKernel", self._answer)
        self.page.goto("about:blank")
        self.page.evaluate(OPEN, [static_text(*scripts), static_text(*styles), state])
        self.root = self.page.locator(".kling-live")

    def _answer(self, message):
        if message.get("kind") != "clip":
            return None
        reply, pieces = self.source.answer(message)
        return [reply, [base64.b64encode(piece).decode() for piece in pieces]]

    def ready(self):
        """Wait until it can play."""
        self.root.locator(".kling-play").wait_for()
        self.settle()
        return self

    def settle(self):
        """Wait until no video is on its way to a picture."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('video')].every((v) => !v.seeking && v.readyState >= 2)"
        )

    def stopped(self):
        """Wait until nothing plays any more; that videos stand still is also true while they gather."""
        self.root.locator(".kling-play", has_text="Play").wait_for()
        self.settle()

    def press(self, *keys):
        """Press keys on the view, one after the other, each to its end."""
        for key in keys:
            self.root.press(key)
            self.settle()

    def times(self):
        """Give where each video stands, in seconds."""
        return self.page.evaluate("() => [...document.querySelectorAll('video')].map((v) => v.currentTime)")

    def muted(self):
        """Give which videos are silent."""
        return self.page.evaluate("() => [...document.querySelectorAll('video')].map((v) => v.muted)")

    def paused(self):
        """Give which videos stand still."""
        return self.page.evaluate("() => [...document.querySelectorAll('video')].map((v) => v.paused)")

    def said(self):
        """Give what the line of time says."""
        return self.root.locator(".kling-time").inner_text()

    def close(self):
        """End the page."""
        self.page.context.close()
