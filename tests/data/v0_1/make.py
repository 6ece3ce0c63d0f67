"""Make the fixture of version 0.1: a ledger, a media folder and a saved notebook.

It was run once, with that version: `python make.py FOLDER`. It uses only the public interface, so that it
also runs with a later version; the files beside it must not be made again, because what they test is that
later versions read what version 0.1 wrote. Everything is made in a neutral folder (/tmp/kling-fixture),
whose path stands in the ledger; FOLDER gets a copy without the write-ahead log.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PLACE = Path("/tmp/kling-fixture")
KEY = "made-up-key-of-the-fixture"
URLS = {"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}
CELLS = (
    "%load_ext kling_nb",
    "%%kling heron -d 3 --tag suite=fixture\nA heron at dawn",
    "%kling list",
)
VOTE = (
    'INSERT INTO votes (run_a, run_b, "left", vote, axes, rater, at, note, session_id, project) VALUES (?{})'
)


@contextmanager
def sandbox(*faults):
    """Run the loopback server, and be a user with both keys."""
    command = [str(Path(sys.executable).with_name("kling-nb")), "sandbox", "serve", "--wait-scale", "0"]
    command += [f"--fault={fault}" for fault in faults]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for wire, url in json.loads(process.stdout.readline()).items():
                os.environ[f"KLING_NB_{wire.upper()}_URL"] = url
                os.environ[URLS[wire]] = KEY
            yield
        finally:
            for wire, variable in URLS.items():
                del os.environ[f"KLING_NB_{wire.upper()}_URL"], os.environ[variable]
            process.terminate()


def runs():
    """Make a run of each kind; return them by name."""
    import kling_nb as kling

    kling.connect(session="fixture", budget="9")

    def run(prompt, **options):
        made = kling.submit(prompt, duration=3, aspect_ratio="1:1", **options)
        try:
            made.wait(90)
        except kling.KlingError as error:
            print(type(error).__name__)
        return made

    made = {}
    with sandbox():
        made["runflow"] = run("A red fox in snow", provider="runflow", tags={"scene": "1"})
        made["take 1"] = run("A red fox in snow", provider="runflow", take=1, metadata={"team": "a"})
        made["runcomfy"] = run("A hare in grass", provider="runcomfy")
        made["private"] = run("A paper boat", provider="runflow", private=True)
    with sandbox("run_failed=1"):
        made["failed"] = run("An owl that fails", provider="runflow")
    with sandbox("submit_drop_after=1"):
        made["lost"] = run("A seal that is lost", provider="runcomfy")
    with sandbox("run_canceled=1"):
        made["canceled"] = run("A crow that is canceled", provider="runcomfy")
    return made


def main(folder):
    """Make everything, and copy it."""
    shutil.rmtree(PLACE, ignore_errors=True)
    (PLACE / "home").mkdir(parents=True)
    os.chdir(PLACE)
    for name in [
        name for name in os.environ if name.startswith(("KLING_NB_", "RUNFLOW_", "RUNCOMFY_", "JPY_"))
    ]:
        del os.environ[name]
    ledger = PLACE / "ledger.db"
    os.environ |= {
        "HOME": str(PLACE / "home"),
        "LOGNAME": "ada",
        "USER": "ada",
        "KLING_NB_LEDGER": str(ledger),
        "KLING_NB_MEDIA": str(PLACE / "kling_media"),
        "KLING_NB_PROJECT": "fixture",
        "KLING_NB_SANDBOX_WAIT": "0",
        "KLING_NB_PROVIDER": "auto",
    }
    made = runs()
    about = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": about})
    notebook.cells = [
        nbformat.v4.new_code_cell(source, id=f"cell{number}") for number, source in enumerate(CELLS)
    ]
    resources = {"metadata": {"path": str(PLACE)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    nbformat.write(notebook, PLACE / "study.ipynb")
    pair = sorted([made["runflow"].id, made["take 1"].id])
    with closing(sqlite3.connect(ledger)) as database:
        for choice, rater in (("A>B", "ada"), ("A=B=Good", "bob")):
            database.execute(
                VOTE.format(", ?" * 9),
                (
                    *pair,
                    "A",
                    choice,
                    '{"motion": "A"}',
                    rater,
                    "2026-11-29T06:00:00+00:00",
                    "",
                    "",
                    "fixture",
                ),
            )
        database.commit()
        # The copy has no write-ahead log.
        (folder / "ledger.db").unlink(missing_ok=True)
        database.execute("PRAGMA page_size=1024")
        database.execute("VACUUM INTO ?", (str(folder / "ledger.db"),))
    shutil.copyfile(PLACE / "study.ipynb", folder / "study.ipynb")
    shutil.rmtree(folder / "kling_media", ignore_errors=True)
    shutil.copytree(PLACE / "kling_media", folder / "kling_media")
    # To keep the fixture small, and to have one clip that is missing.
    next((folder / "kling_media").glob(f"*{made['take 1'].id}.mp4")).unlink()
    (folder / "runs.json").write_text(
        json.dumps({name: run.id for name, run in made.items()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
