"""Find a Chromium for the browser tests, or install one, and print where it is.

The order: `CHROMIUM_FOR_TESTS`, one of this machine, Playwright's, and then with `--install` a
download by Playwright, and as root the system's package. A browser counts only when it starts.
Where nothing helps, the end is a failure that names the cure, so that no browser test is passed over.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "CHROMIUM_FOR_TESTS"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CURE = (
    "No Chromium to run the browser tests with. Install one (`apt-get install chromium` as root, or "
    f"`python -m playwright install --with-deps chromium`), or set {VARIABLE} to the path of one."
)


class NoChromiumError(RuntimeError):
    """There is no Chromium that starts."""


def find_chromium() -> Path | None:
    """Give the first Chromium that starts, or None; installs nothing."""
    named = os.environ.get(VARIABLE)
    if named:
        if not _starts(Path(named)):
            raise NoChromiumError(f"{VARIABLE} names {named!r}, which does not start.")
        return Path(named)
    found = [path for name in NAMES if (path := shutil.which(name))]
    return next((path for path in map(Path, [*found, *PLACES]) if _starts(path)), None) or _of_playwright()


def install_chromium() -> Path:
    """Install a Chromium and give its path.

    Raises:
        NoChromiumError: Neither Playwright nor the system's packages could.
    """
    playwright = [sys.executable, "-m", "playwright", "install", "chromium"]
    if not (_run(playwright) and (path := _of_playwright())):
        if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
            apt = ["apt-get", "-o", "Dpkg::Use-Pty=0", "-q"]
            _run([*apt, "update"])
            _run([*apt, "install", "--yes", "--no-install-recommends", "chromium"])
        path = find_chromium()
    if path is None:
        raise NoChromiumError(CURE)
    return path


def _starts(path: Path) -> bool:
    """Whether it is there and answers: a snap stub or a build that lacks libraries does not."""
    if not path.is_file():
        return False
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and b"Chrom" in answer.stdout


def _of_playwright() -> Path | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if _starts(path) else None


def _run(command: list[str]) -> bool:
    """Run an installer; its words go to standard error, for standard output is the answer's."""
    print("+", *command, file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env=environment,
            timeout=900,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return False
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="install one where there is none")
    arguments = parser.parse_args()
    try:
        path = find_chromium() or (install_chromium() if arguments.install else None)
    except NoChromiumError as error:
        print(error, file=sys.stderr)
        return 1
    if path is None:
        print(CURE, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
