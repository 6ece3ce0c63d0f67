"""Finding the browser of the browser tests: one that starts, or a loud failure that names the cure."""

import os
import stat

import pytest

from support import chromium


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A machine without a browser, whose Playwright can download none; this folder is its whole PATH."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setattr(chromium, "PLACES", ())
    monkeypatch.setenv("PATH", str(found))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", "http://127.0.0.1:9")
    return found


def _program(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_browser_that_does_not_start_is_passed_over(folder):
    """A stub that only tells where to get a browser is none."""
    _program(folder / "chromium", "echo 'install the snap' >&2; exit 1")
    works = _program(folder / "google-chrome", "echo Google Chrome 150.0")
    assert chromium.find_chromium() == works


def test_a_named_browser_is_the_one_or_an_error(folder, monkeypatch):
    """The variable is obeyed; a wrong one is not replaced by another browser behind one's back."""
    _program(folder / "chromium", "echo Chromium 150.0")
    named = _program(folder / "mine", "echo Chromium 151.0")
    monkeypatch.setenv(chromium.VARIABLE, str(named))
    assert chromium.find_chromium() == named
    monkeypatch.setenv(chromium.VARIABLE, str(folder / "gone"))
    with pytest.raises(chromium.NoChromiumError, match="gone"):
        chromium.find_chromium()


def test_root_gets_one_from_the_system(folder, monkeypatch):
    """Where Playwright cannot download one, root installs the system's package, with no question asked."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    _program(
        folder / "apt-get",
        f'echo "$DEBIAN_FRONTEND $@" >> {folder}/said\n'
        f"case \"$*\" in *install*) printf '#!/bin/sh\\necho Chromium 150.0\\n' > {folder}/chromium;"
        f" /bin/chmod +x {folder}/chromium;; esac",
    )
    assert chromium.install_chromium() == folder / "chromium"
    said = (folder / "said").read_text().splitlines()
    assert len(said) == 2
    assert said[0].endswith("update")
    assert said[1].startswith("noninteractive")
    assert "--yes" in said[1]


def test_without_any_the_end_is_a_failure_that_names_the_cure(folder, monkeypatch, capsys):
    """No browser is never a skip: the step fails, prints no path, and says what to do."""
    monkeypatch.setattr("sys.argv", ["chromium.py", "--install"])
    assert chromium.main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "apt-get install chromium" in printed.err
