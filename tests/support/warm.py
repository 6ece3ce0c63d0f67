"""Processes that have the package imported: each is forked from one server, which saves it two seconds.

Run as a script, it is the server: it starts no thread, and forks a child for each order. Imported, it gives
tests `Popen`, which stands for the one of `subprocess`. Where it matters what a new interpreter loads,
a test starts a new interpreter.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

_LENGTH = 8
_PROGRAM = "from kling_nb.cli import main; main()"
_IMPORTED = (
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "anyio._backends._asyncio",
    "anywidget",
    "av.subtitles.stream",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipywidgets",
    "kling_nb.cli",
    "kling_nb.commands.answer",
    "kling_nb.commands.runs",
    "kling_nb.network.client",
    "kling_nb.notebook.cell",
    "kling_nb.notebook.completion",
    "kling_nb.notebook.magics",
    "kling_nb.notebook.surroundings",
    "kling_nb.sandbox.serve",
    "kling_nb.session.session",
    "uvicorn.lifespan.off",
)


class Popen(subprocess.Popen):
    """A forked process for `[python, "-c", code, ...]`, `[python, "-m", name, ...]`, `["kling-nb", ...]`."""

    def _execute_child(self, args, *options):
        cwd, env, pipes, new_session = options[4], options[5], options[9:15], options[20]
        program, *words = map(os.fspath, args)
        if Path(program).name == "kling-nb":
            words = ["-c", _PROGRAM, *words]
        env = dict(os.environ if env is None else env)
        server = _server()
        assert _read_at_start(env) == server.read_at_start, "this needs a new interpreter"
        order = {
            "words": words,
            "folder": str(Path(cwd or ".").absolute()),
            "env": env,
            "session": new_session,
        }
        ends = [own if theirs == -1 else theirs for own, theirs in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = server.ask(order, ends)
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _internal_poll(self, _deadstate=None):
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode

    def _try_wait(self, wait_flags):
        if not wait_flags:
            # Until it is waited for it stays a zombie, so that this is no other process.
            end = os.pidfd_open(self.pid)
            ends = select.poll()
            ends.register(end, select.POLLIN)
            ends.poll()
            os.close(end)
        return _server().ask({"wait": self.pid})


def run_process(command, *, timeout=60, **options):
    """Run a command to its end; gives what `subprocess.run` gives, with both outputs as text."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with Popen(command, text=True, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def tool(*words, **options):
    """Run the command line so."""
    return run_process(["kling-nb", *words], **options)


def _read_at_start(env):
    """What Python reads of an environment as it starts."""
    return {name: value for name, value in env.items() if name.startswith("PYTHON")}


class _Server:
    def __init__(self):
        self._lock = threading.Lock()
        self.read_at_start = _read_at_start(os.environ)
        self._ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "support.warm", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )

    def ask(self, order, descriptors=()):
        text = json.dumps(order).encode()
        with self._lock:
            socket.send_fds(self._ours, [len(text).to_bytes(_LENGTH)], list(descriptors))
            self._ours.sendall(text)
            return json.loads(self._ours.recv(64))

    def close(self):
        self._ours.close()
        self._process.wait(60)


@cache
def _server():
    server = _Server()
    atexit.register(server.close)
    return server


# -- the server, and what is forked from it -----------------------------------------------------
def _serve(ours):
    """Answer orders; returns in each child, with its order and the descriptors of its streams."""
    living = set()
    while True:
        head, descriptors, _, _ = socket.recv_fds(ours, _LENGTH, 3)
        if not head:
            for pid in living:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        text = b""
        while len(text) < int.from_bytes(head):
            text += ours.recv(int.from_bytes(head) - len(text))
        order = json.loads(text)
        if "wait" in order:
            ended = os.waitpid(order["wait"], os.WNOHANG)
            living.discard(ended[0])
            ours.sendall(json.dumps(ended).encode())
        elif pid := os.fork():
            living.add(pid)
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            if order["session"]:
                os.setsid()
            ours.sendall(json.dumps(os.getpid()).encode())
            ours.close()
            return order, descriptors


def _become(order, descriptors):
    """Take the place of a new interpreter, and run what was ordered."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - streams for good
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["folder"])
    form, what, *words = order["words"]
    sys.argv = [form, *words]
    if form == "-m":
        sys.path[0] = str(Path.cwd())
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.path[0] = ""
    main = sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(what, "<string>", "exec"), main.__dict__)
    except Exception as error:  # noqa: BLE001 - as the interpreter does with what nobody catches
        sys.excepthook(type(error), error.with_traceback(error.__traceback__.tb_next), None)
        sys.exit(1)


def _import_all():
    """Import what a kernel, a script or the command line would, so that children need not."""
    # A kernel ends with its parent, which it learns as it is imported.
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    for name in _IMPORTED:
        import_module(name)
    # What is made once for the tests of one process is made once for these too.
    httpx.create_ssl_context = cache(httpx.create_ssl_context)
    httpx.create_ssl_context(trust_env=False)
    cutting_room.render = render_once(Path(os.environ["TESTS_CLIPS"]))
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    import httpx

    from kling_nb.sandbox.render import cache as cutting_room
    from support.rendered import render_once

    _import_all()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
