"""Real kernels for tests: notebooks run headless, one kernel spoken to as a page does, a sandbox beside them.

Invariants: what was started is ended; every wait is for a condition and has a limit; outputs are read as
a saved notebook or a page would show them.
"""

import json
import os
import re
import subprocess
import time
from contextlib import contextmanager, nullcontext
from queue import Empty
from unittest.mock import patch

import av
import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from kling_nb.loop import Loop
from kling_nb.records.receipt import from_receipt, receipts_in
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.sandbox.serve import Sandbox, parse_faults
from support.stage import HELD, HeldTime
from support.warm import Popen

#: Made up; it must appear nowhere.
KEY = "made-up-key-of-a-test-7Qm2"
LIMIT_S = 90
START_S = 180
WIRES = {
    "runflow": ("RUNFLOW_API_KEY", "KLING_NB_RUNFLOW_URL"),
    "runcomfy": ("RUNCOMFY_API_TOKEN", "KLING_NB_RUNCOMFY_URL"),
}


# -- a sandbox beside the kernels -------------------------------------------------------
class Provider:
    """The sandbox of this process, as kernels and other processes see it."""

    def __init__(self, sandbox, clock):
        self.stats, self.let_go = sandbox.stats, clock.let_go
        self.urls = {"runflow": sandbox.runflow, "runcomfy": sandbox.runcomfy}

    def counts(self):
        """Give (submissions seen, runs created)."""
        stats = self.stats()
        return stats["submissions"], stats["accepted"]

    def environment(self, wire, **more):
        """Give the variables that make it the provider of this wire."""
        key, url = WIRES[wire]
        return {key: KEY, url: self.urls[wire], **more}


@contextmanager
def sandbox_beside(*, wait_scale=0, faults=(), held=False):
    """Run a sandbox that other processes reach; faults are given as on the command line.

    Where it is `held`, its runs go on and on until `let_go`, however slow the machine is.
    """
    loop, clock = Loop(), HeldTime()
    options = {"wait_scale": wait_scale, "faults": parse_faults(faults)}
    if held:
        options = {"wait_scale": 1, "faults": {**HELD, **options["faults"]}, "clock": clock}
    sandbox = loop.start(Sandbox.start(**options)).result(90)
    try:
        yield Provider(sandbox, clock)
    finally:
        loop.start(sandbox.stop()).result(90)


#: A first cell, for `let_go`: runs are read each second, and not seldom because they may take minutes.
WATCHFUL = """\
%load_ext kling_nb
from kling_nb.engine.polling import follow, poller
follow.MOST_S = poller.MOST_S = 1
"""


def let_go(count):
    """Give a cell that lets so many runs of the kernel's own sandbox end, which would else take minutes."""
    return f"""
import time
from kling_nb.session.api import current
end = time.monotonic() + {LIMIT_S}
while not (running := current().sandboxes.running) or len(running[0].provider.runs) < {count}:
    assert time.monotonic() < end
    time.sleep(0.01)
for made in running[0].provider.runs:
    made.born_s -= 3600
"""


# -- headless notebooks ---------------------------------------------------------------
def notebook(*sources):
    """Make a notebook of code cells; one that starts with `# parameters` is papermill's."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for number, source in enumerate(sources):
        tags = {"tags": ["parameters"]} if source.startswith("# parameters") else {}
        made.cells.append(nbformat.v4.new_code_cell(source, id=f"cell{number}", metadata=tags))
    return made


def forked_kernels():
    """What starts a kernel meanwhile gets one that has the package imported."""
    return patch("jupyter_client.launcher.Popen", Popen)


def execute(made, folder, **options):
    """Run a notebook in a fresh kernel of the folder, with the environment as it is now."""
    with forked_kernels():
        NotebookClient(
            made,
            timeout=LIMIT_S,
            startup_timeout=START_S,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(folder)}},
            **options,
        ).execute()
    return made


def texts(cell):
    """Give what a cell shows, as text."""
    shown = []
    for output in cell.outputs:
        if output.output_type == "error":
            shown.append(f"{output.ename}: {output.evalue}\n")
        elif output.output_type == "stream":
            # One print may come in several pieces.
            shown.append(output.text)
        else:
            shown.append(output.data.get("text/plain", "") + "\n")
    return "".join(shown)


def records(made):
    """Give the record on each card, in order of the page."""
    return [
        from_receipt(receipt)
        for cell in made.cells
        for output in cell.get("outputs", [])
        for receipt in receipts_in(output.get("data", {}).get(RECEIPT_MIME))
    ]


def errors(made):
    """Give every error output."""
    return [o for cell in made.cells for o in cell.get("outputs", []) if o.output_type == "error"]


def check_saved(made, folder):
    """Check that a saved notebook reads true alone: final cards, no widget, each clip playing beside it.

    Give how many clips there are.
    """
    assert "widgets" not in made.metadata
    sources, done = set(), set()
    for cell in made.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "application/vnd.jupyter.widget-view+json" not in data
            page = data.get("text/html", "")
            assert len(page.encode()) < 40_000
            for receipt in receipts_in(data.get(RECEIPT_MIME)):
                record = from_receipt(receipt)
                assert record.status.ended, data["text/plain"]
                done |= {record.id} if record.status == "succeeded" else set()
                sources |= set(re.findall(r'<video [^>]*src="([^"]*)"', page))
    assert len(sources) == len(done)
    for source in sources:
        assert source.startswith("kling_media/")
        with av.open(str(folder / source)) as clip:
            assert next(clip.decode(video=0)).width > 0
    return len(sources)


def short_words(error):
    """The words of an error of ours, on one line: it is shown as three short parts and no traceback."""
    lines = error["traceback"]
    assert 1 <= len(lines) <= 3, lines
    assert all(len(line) <= 90 for part in lines for line in part.splitlines()), lines
    words = " ".join(" ".join(lines).split())
    assert words.startswith(f"{error['ename']}: {error['evalue'].partition(' Charged:')[0]}"), words
    return words


# -- one kernel, spoken to as a page does ----------------------------------------------
class CommandValue:
    """What came of one cell."""

    def __init__(self, reply, outputs):
        self.reply = reply
        self.outputs = outputs

    @property
    def status(self):
        """`ok` or `error`."""
        return self.reply["status"]

    @property
    def error(self):
        """The traceback lines."""
        return self.reply.get("traceback", [])

    @property
    def text(self):
        """What the cell shows, as text."""
        return "\n".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in self.outputs)

    @property
    def page(self):
        """What a pager shows."""
        return "\n".join(p["data"]["text/plain"] for p in self.reply["payload"] if p["source"] == "page")


class Kernel:
    """A kernel and its client; `displays` holds the present content of each display id."""

    def __init__(self, manager, client):
        self.manager = manager
        self.client = client
        self.displays = {}

    def run(self, code, *, watched=True, cell=None):
        """Run one cell to its end; `watched` as by a page, else as headless; `cell` is its id there."""
        return self.finish(self.start(code, watched=watched, cell=cell))

    def start(self, code, *, watched=True, cell=None):
        """Send one cell, and wait until it has begun."""
        if cell is None:
            message = self.client.execute(code, allow_stdin=watched)
        else:
            content = {"code": code, "allow_stdin": watched, "store_history": True}
            sent = self.client.session.msg("execute_request", content, metadata={"cellId": cell})
            self.client.shell_channel.send(sent)
            message = sent["header"]["msg_id"]
        self._outputs = []
        self._until(message, lambda kind, content: kind == "execute_input")
        return message

    def until_printed(self, message):
        """Wait until a running cell prints something."""
        self._until(message, lambda kind, content: kind == "stream")

    def finish(self, message):
        """Wait for the end of a cell."""
        self._until(message, lambda kind, content: content.get("execution_state") == "idle")
        end = time.monotonic() + LIMIT_S
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.1, end - time.monotonic()))
            if reply["parent_header"].get("msg_id") == message:
                return CommandValue(reply["content"], self._outputs)

    def value(self, expression):
        """Give a Python value of the notebook, by way of JSON."""
        answer = self.run(f"import json as _json; print(_json.dumps({expression}, default=str))")
        assert answer.status == "ok", answer.error
        return json.loads(answer.text)

    def complete(self, code, cursor=None):
        """Give what the Tab key offers."""
        message = self.client.complete(code, len(code) if cursor is None else cursor)
        while True:
            reply = self.client.get_shell_msg(timeout=LIMIT_S)
            if reply["parent_header"].get("msg_id") == message:
                return reply["content"]["matches"]

    def wait_display(self, words):
        """Wait until some display shows this text, and give all that are shown."""
        end = time.monotonic() + LIMIT_S
        while not any(words in data.get("text/plain", "") for data in self.displays.values()):
            assert time.monotonic() < end, self.displays
            self._read(0.2)
        return list(self.displays.values())

    def updates(self, words):
        """Wait until an output is updated to this text; gives each update till then, and when it was sent."""
        end, seen = time.monotonic() + LIMIT_S, []
        while not seen or words not in seen[-1][1]["text/plain"]:
            assert time.monotonic() < end, seen
            message = self._read(0.2)
            if message and message["msg_type"] == "update_display_data":
                seen.append((message["header"]["date"], message["content"]["data"]))
        return seen

    def _until(self, message, condition):
        end = time.monotonic() + LIMIT_S
        while True:
            assert time.monotonic() < end, "the kernel did not answer"
            got = self._read(1)
            if got and got["parent_header"].get("msg_id") == message:
                kind, content = got["msg_type"], got["content"]
                if kind in {"stream", "display_data", "execute_result", "error"}:
                    self._outputs.append(content)
                if condition(kind, content):
                    return

    def _read(self, timeout_s):
        try:
            message = self.client.get_iopub_msg(timeout=timeout_s)
        except Empty:
            return None
        if message["msg_type"] in {"display_data", "update_display_data"}:
            display_id = message["content"].get("transient", {}).get("display_id")
            if display_id:
                self.displays[display_id] = message["content"]["data"]
        return message


@contextmanager
def kernel_in(folder, *, new=False):
    """Start a kernel whose working folder this is, with the environment as it is now.

    It has the package imported, unless it is to be `new`.
    """
    manager = KernelManager(kernel_name="python3")
    with nullcontext() if new else forked_kernels():
        manager.start_kernel(
            cwd=str(folder),
            env=dict(os.environ),
            extra_arguments=["--log-level=ERROR"],
            stderr=subprocess.DEVNULL,
        )
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=START_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
