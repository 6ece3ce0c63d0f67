"""A Jupyter server for tests; those of one process share it.

Invariants: server and kernels have their own configuration, data and runtime folders and listen on
127.0.0.1; a kernel has the environment that was laid down last, and nothing of an earlier one; what was
started is ended, and nothing else is.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from ipykernel.kernelspec import get_kernel_dict

START_S = 90
# A kernel on a busy machine has half of this to empty its outputs before it is killed.
EXIT_S = 30
# What a kernel is to know of the user; the server that all tests share has nothing of it.
OF_A_TEST = ("KLING_NB_", "RUNFLOW_", "RUNCOMFY_")
# Takes the environment that is laid down at this moment, and what the server says to this kernel alone.
BECOME = """
import json, os, sys
with open(sys.argv[1]) as file:
    environment = json.load(file)
environment |= {name: value for name, value in os.environ.items() if name.startswith("JPY_")}
os.execve(sys.executable, [sys.executable, *sys.argv[2:]], environment)
"""


class Server:
    """A running Jupyter server over one folder.

    Args:
        root: The folder it serves.
        ui: `lab` or `notebook`.
        env: Variables for the server too, and not only for its kernels; None takes one away.
    """

    def __init__(self, root: Path, ui: str, env: Mapping[str, str | None] | None = None) -> None:
        self.root, self.ui = root, ui
        self.token = secrets.token_hex(16)
        self._prepared = 0
        self.scratch = Path(tempfile.mkdtemp(prefix="lab-"))
        self._log = (self.scratch / "server.log").open("w+")
        self._lay_down_kernel()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_TEST)}
        try:
            # What is laid down goes before what is installed.
            own = {**self._places(), "JUPYTER_PREFER_ENV_PATH": "0"}
            self._process = self._start({**clean, **own, **(env or {})})
            self.pid = self._process.pid
            self.base = self._address()
        except BaseException:
            self.stop()
            raise

    def prepare(self, settings: Mapping[str, Mapping[str, Any]], env: Mapping[str, str | None]) -> None:
        """Lay down JupyterLab's settings by plugin, and the environment of the kernels to come."""
        shutil.rmtree(self.scratch / "settings", ignore_errors=True)
        for plugin, values in settings.items():
            package, name = plugin.split(":")
            file = self.scratch / "settings" / package / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        self._prepared += 1
        own = {"IPYTHONDIR": str(self.scratch / f"ipython{self._prepared}")}
        kernels = {**os.environ, **self._places(), **own, **env}
        given = {name: value for name, value in kernels.items() if value is not None}
        (self.scratch / "environment.json").write_text(json.dumps(given))

    def rest(self, path: str, *, method: str = "GET", body: object = None) -> Any:
        """Call the REST interface, e.g. `rest("kernels")`."""
        request = urllib.request.Request(
            f"{self.base}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=START_S) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def log(self) -> str:
        """Give what the server and its kernels wrote so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def stop(self) -> None:
        """End the server, then whatever it left behind: kernels sit in sessions of their own."""
        try:
            family = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, left = psutil.wait_procs(family, timeout=3)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=3)
        self._log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _places(self) -> dict[str, str]:
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "run",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        folders = {name: str(self.scratch / folder) for name, folder in places.items()}
        return {**folders, "JUPYTER_TOKEN": self.token}

    def _lay_down_kernel(self) -> None:
        spec = get_kernel_dict()
        python, *words = spec["argv"]
        environment = str(self.scratch / "environment.json")
        spec["argv"] = [python, "-I", "-S", "-c", BECOME, environment, *words]
        file = self.scratch / "data" / "kernels" / "python3" / "kernel.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(spec))

    def _start(self, environment: Mapping[str, str | None]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "notebook" if self.ui == "notebook" else "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--expose-app-in-browser",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={_free_port()}",
                f"--ServerApp.root_dir={self.root}",
                # The folders of tests may lie anywhere.
                "--ContentsManager.allow_hidden=True",
                f"--KernelManager.shutdown_wait_time={EXIT_S}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )

    def _address(self) -> str:
        """Wait until the server answers. It says itself which port it got: the free one may be taken."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            for file in (self.scratch / "run").glob(f"jpserver-{self.pid}.json"):
                try:
                    told = json.loads(file.read_text())
                    self.base = f"http://127.0.0.1:{told['port']}{told['base_url'].rstrip('/')}"
                    self.rest("status")
                except (ValueError, KeyError, urllib.error.URLError, ConnectionError):
                    continue
                return self.base
            time.sleep(0.05)
        raise RuntimeError(f"The Jupyter server did not start:\n{self.log()[-4000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
