"""What every test stands on: a clean environment and state in temporary folders."""

import os

import pytest

KEEP = {"KLING_NB_TEST_CHROMIUM"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    """No test sees the user's keys, settings, ledger or home."""
    for name in list(os.environ):
        if (
            name.startswith(("KLING_NB_", "RUNFLOW_", "RUNCOMFY_", "JPY_", "PAPERMILL_", "JUPYTERHUB_"))
            and name not in KEEP
        ):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in (
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "XDG_STATE_HOME",
        "IPYTHONDIR",
    ):
        monkeypatch.setenv(name, str(home if name == "HOME" else home / name.lower()))
