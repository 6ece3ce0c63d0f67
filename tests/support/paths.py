"""Where the tests and the repository are, and where scratch may lie."""

import os
import shutil
from pathlib import Path

import psutil

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent

#: The files of one run of all tests take a third of this.
_ROOM = 2 << 30


def memory_folder():
    """A folder in memory, or None where there is not room enough in it."""
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < _ROOM:
        return None
    return folder if psutil.virtual_memory().available >= 2 * _ROOM else None
