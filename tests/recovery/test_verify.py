"""What a receipt tells of its surroundings is true and no more, and an edited receipt is found out."""

import hashlib
import json
import shutil
import subprocess

import pytest

from kling_nb.config import git as checkout
from kling_nb.config.git import commit_of
from kling_nb.records.provenance import Cell
from kling_nb.recovery.verify import verify_folder
from support.kernels import kernel_in
from support.marked import LABEL, c2pa, labelled, with_boxes
from support.sessions import ask, sessions_in


# -- the commit around a notebook ------------------------------------------------------------
def git(folder, *words):
    """Run git in a folder, with nobody's settings."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working tree with one commit and a folder for notebooks; git has the time of a busy machine."""
    monkeypatch.setattr(checkout, "_LIMIT_S", 30)
    top = tmp_path / "work"
    (top / "notebooks").mkdir(parents=True)
    git(top, "init", "-q", "-b", "main")
    (top / "notebooks" / "a.ipynb").write_text("one")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "one")
    return top


def test_the_commit_is_that_of_git(tree):
    """On a branch, packed, detached, in a worktree and at a tag, it is what git itself says."""
    folder = tree / "notebooks"
    seen = []

    def check(where):
        found = commit_of(where)
        assert found.sha == git(where, "rev-parse", "HEAD")
        assert found.dirty is False
        seen.append(found.sha)

    check(folder)
    git(tree, "pack-refs", "--all")
    check(folder)
    (folder / "a.ipynb").write_text("two")
    git(tree, "commit", "-q", "-a", "-m", "two")
    check(folder)
    git(tree, "worktree", "add", "-q", "-b", "other/side", str(tree.parent / "beside"), "HEAD~1")
    check(tree.parent / "beside" / "notebooks")
    git(tree, "pack-refs", "--all")
    check(tree.parent / "beside")
    git(tree, "checkout", "-q", "--detach", "HEAD~1")
    check(folder)
    assert len(set(seen)) == 2


def test_changes_of_tracked_files_are_seen(tree):
    """An edit, a staged edit and a removal differ from the commit; a new file does not."""
    folder = tree / "notebooks"
    (folder / "new.txt").write_text("x")
    assert commit_of(folder).dirty is False
    (folder / "a.ipynb").write_text("edited")
    assert commit_of(folder).dirty is True
    git(tree, "add", "notebooks/a.ipynb")
    assert commit_of(folder).dirty is True
    git(tree, "reset", "-q", "--hard")
    assert commit_of(folder).dirty is False
    (folder / "a.ipynb").unlink()
    assert commit_of(folder).dirty is True


def test_where_there_is_no_commit_there_is_none(tmp_path, tree):
    """Outside git, before the first commit, and beside broken files nothing is claimed."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert commit_of(empty) is None
    assert commit_of(None) is None
    git(empty, "init", "-q")
    assert commit_of(empty) is None
    head = tree / ".git" / "HEAD"
    for content in (
        b"",
        b"\xff\xfe",
        b"ref: refs/heads/../../../secret\n",
        b"ref: refs/heads/none\n",
        b"x" * 40,
    ):
        head.write_bytes(content)
        assert commit_of(tree) is None
    shutil.rmtree(tree / ".git")
    (tree / ".git").write_text("gitdir: /nowhere/at/all\n")
    assert commit_of(tree) is None


def program(path, words):
    """Write a script."""
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(0o755)
    return str(path)


def test_no_program_of_a_repository_is_run(tree):
    """What a repository's settings name is not started: no watcher, no filter, nothing that fetches."""
    started = f"touch {tree}/started"
    notebook, code = tree / "notebooks" / "a.ipynb", tree / "b.py"
    code.write_text("one")
    (tree / ".gitattributes").write_text("*.ipynb filter=strip\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "two")
    git(tree, "config", "core.fsmonitor", program(tree / "watcher", started))
    assert commit_of(tree).dirty is False
    code.write_text("two")
    assert commit_of(tree).dirty is True
    git(tree, "config", "filter.strip.clean", program(tree / "clean", f"{started}; cat"))
    git(tree, "config", "filter.strip.required", "true")
    # Of the same length, so that git has to look inside; its filter might make the old text of it.
    notebook.write_text("two")
    assert commit_of(tree).dirty is None
    git(tree, "config", "filter.a=b.clean", str(tree / "clean"))
    assert commit_of(tree).dirty is None
    assert not (tree / "started").exists()
    git(tree, "status")
    assert (tree / "started").exists()


def test_nothing_is_fetched_to_find_out(tree):
    """A clone that lacks its files is not completed, by whatever program its settings name."""
    part, started = tree.parent / "part", tree.parent / "started"
    git(tree, "config", "uploadpack.allowFilter", "true")
    git(tree, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(tree.parent, "clone", "-q", "--filter=tree:0", "--no-checkout", tree.as_uri(), str(part))
    git(part, "config", "remote.origin.uploadpack", f"touch {started}; git-upload-pack")
    assert commit_of(part).dirty is None
    assert not started.exists()
    git(part, "status")
    assert started.exists()


def test_the_users_own_filter_is_run_without_keys(tree, tmp_path, monkeypatch):
    """A filter of the user's own settings runs, or stripped notebooks would always differ; it gets no key."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUNFLOW_API_KEY", "made-up-key-of-a-test-7Qm2")
    clean = program(tree / "clean", f"env > {home}/environment; echo one | tr -d '\\n'")
    git(tree, "config", "--global", "filter.strip.clean", clean)
    (tree / ".gitattributes").write_text("*.ipynb filter=strip\n")
    (tree / "notebooks" / "a.ipynb").write_text("two")
    assert commit_of(tree).dirty is False
    assert "GIT_OPTIONAL_LOCKS" in (home / "environment").read_text()
    assert "7Qm2" not in (home / "environment").read_text()


def test_a_slow_git_is_asked_once(tree, monkeypatch):
    """Where git takes too long, nothing is claimed, and no later cell waits for it."""
    monkeypatch.setattr(checkout, "_LIMIT_S", 0.5)
    asked = tree.parent / "asked"
    slow = tree.parent / "bin"
    slow.mkdir()
    (slow / "git").write_text(f"#!/bin/sh\necho x >> {asked}\nexec sleep 60\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:/usr/bin:/bin")
    assert [commit_of(tree), commit_of(tree)] == [None, None]
    assert asked.read_text() == "x\n"


def test_a_run_knows_its_commit(tmp_path, tree, monkeypatch):
    """A new run has the commit around its notebook, and no path of it; reusing it asks git for nothing."""
    monkeypatch.chdir(tree)
    sessions = sessions_in(tree / "notebooks")
    make = next(sessions)
    session = make(provider="sandbox", ledger=str(tmp_path / "ledger.db"))
    [run] = session.open(ask())
    receipt = run.wait(60).path.with_suffix(".json").read_text()
    commit = json.loads(receipt)["who"]["commit"]
    assert commit == {"sha": git(tree, "rev-parse", "HEAD"), "dirty": False}
    assert str(tree) not in receipt
    shutil.rmtree(tree / ".git")
    [again] = session.open(ask())
    assert (again.reused, again.record.commit.sha) == (True, commit["sha"])
    sessions.close()


def test_a_cell_id_is_a_notebooks_own():
    """JupyterLab's ids are kept; VS Code's, which hold a path of the machine, and odd ones are not."""
    ids = ["cell-1", "0a1b2c3d", "vscode-notebook-cell:/home/ann/a.ipynb#W0sZmlsZQ==", "", "x" * 65, 7, None]
    kept = [Cell.of("a = 1", cell_id=one, count=1).id for one in ids]
    assert kept == ["cell-1", "0a1b2c3d", None, None, None, None, None]
    assert Cell.of("a \ud800", cell_id=None, count=1).sha256


# -- edited receipts -----------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    """A media folder with one clip of the sandbox and its receipt; its file bears marks."""
    sessions = sessions_in(tmp_path)
    session = next(sessions)(provider="sandbox")
    [run] = session.open(ask(tags={"suite": "vbench", "index": "3"}))
    run.wait(60)
    sessions.close()
    return tmp_path / "kling_media"


def edit(folder, *path, value):
    """Change one place of the receipt in a folder."""
    [file] = folder.glob("*.json")
    data = json.loads(file.read_text())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(data))


def verdict(folder):
    """Give what `verify` says of each receipt and clip."""
    return {(one.word, one.why) for one in verify_folder(folder)}


def test_a_receipt_that_is_true_is_here(folder):
    """An untouched one passes, and so does one of the first edition, which says less."""
    assert verdict(folder) == {("here", "")}
    [file] = folder.glob("*.json")
    data = json.loads(file.read_text())
    for name in ("schema_version", "sent", "sample", "earlier", "terms", "safety"):
        del data[name]
    for name in ("marks", "digital_source_type"):
        del data["file"][name]
    file.write_text(json.dumps(data))
    assert verdict(folder) == {("here", "")}


EDITS = [
    (("prompt_sha256",), "0" * 64, "wrong", "prompt_sha256"),
    (("sample", "index"), 4, "wrong", "sample"),
    (("safety", "moderated"), True, "wrong", "safety"),
    (("file", "source_type"), "trainedAlgorithmicMedia", "wrong", "source_type"),
    (("sent", "body", "duration"), 15, "wrong", "sent.body"),
    (("sent", "sha256"), "0" * 64, "wrong", "sent.body"),
    (("file", "width"), 1920, "wrong", "file.width is not that of the clip, which is 640"),
    (("file", "frames"), 71, "wrong", "file.frames"),
    (("file", "fps"), 30.0, "wrong", "file.fps"),
    (("file", "duration_s"), 5.0, "wrong", "file.duration_s"),
    (("file", "codec"), "hevc", "wrong", "file.codec"),
    (("file", "audio_codec"), "aac", "wrong", "which is none"),
    (("file", "marks"), [{"kind": "c2pa", "where": "uuid box", "text": "manifest"}], "wrong", "(c2pa)"),
    (("file", "sha256"), "0" * 64, "changed", "bytes"),
    (("file", "size"), 7, "changed", "bytes"),
    (("file", "sha256"), "zz", "unreadable", "file.sha256"),
    (("request", "prompt"), "A blue fox", "unreadable", "key"),
    (("schema_version",), "2.0", "unreadable", "schema_version"),
    (("earlier",), [{"id": "x"}], "unreadable", "earlier"),
]


def test_an_edited_receipt_is_found_out(folder):
    """Whatever was changed in a receipt, `verify` says that it is not well, and where."""
    [file] = folder.glob("*.json")
    whole = file.read_bytes()
    for path, value, word, why in EDITS:
        edit(folder, *path, value=value)
        found = [one for one in verify_folder(folder) if one.word == word]
        assert (len(found), found[0].good) == (1, False), path
        assert why in found[0].why
        assert "blue" not in found[0].why
        file.write_bytes(whole)
    assert len(EDITS) > 15


def test_marks_that_are_gone_are_missed(folder):
    """A clip whose marks were taken out has other bytes; with the hash edited too, the marks are missed."""
    from kling_nb.files import file_sha256
    from kling_nb.media.probe import probe

    [clip] = folder.glob("*.mp4")
    bare = clip.read_bytes()
    labelled(clip, {"AIGC": LABEL})
    whole = clip.read_bytes()
    with_boxes(clip, c2pa())
    facts = probe(clip)
    for name in ("width", "height", "fps", "frames", "duration_s"):
        edit(folder, "file", name, value=getattr(facts, name))
    edit(folder, "file", "marks", value=[mark.model_dump() for mark in facts.marks])

    def say_hash():
        edit(folder, "file", "sha256", value=file_sha256(clip))
        edit(folder, "file", "size", value=clip.stat().st_size)

    say_hash()
    assert verdict(folder) == {("here", "")}
    clip.write_bytes(whole)
    assert {one.word for one in verify_folder(folder)} == {"changed"}
    say_hash()
    [found] = verify_folder(folder)
    assert (found.word, found.why) == (
        "wrong",
        "the clip does not have the mark (c2pa) that the receipt tells of",
    )
    assert bare != whole


# -- the cell in a kernel ----------------------------------------------------------------------
CLICKED = """
import kling_nb as kling
def clicked(comm, message):
    global run
    run = kling.submit("A fox by a click", duration=3)
get_ipython().kernel.comm_manager.register_target("click", clicked)
"""


def test_a_kernel_tells_which_cell_asked(tmp_path, monkeypatch):
    """A cell's run has the id, text and number of that cell, also the first one; a later click has none."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    with kernel_in(tmp_path) as kernel:

        def page(kind, content, **metadata):
            """Send what a page sends."""
            message = kernel.client.session.msg(kind, content, metadata=metadata)
            kernel.client.shell_channel.send(message)
            kernel._outputs = []
            kernel._until(
                message["header"]["msg_id"],
                lambda _, said: said.get("execution_state") == "idle",
            )

        asked = {"silent": False, "store_history": True, "allow_stdin": True, "stop_on_error": True}
        first = "%%kling one -d 3\nA fox of the first cell"
        assert kernel.run("%load_ext kling_nb").status == "ok"
        page("execute_request", {**asked, "code": first}, cellId="0a1b-2c")
        second = "%%kling two -d 3\nA fox of VS Code"
        page("execute_request", {**asked, "code": second}, cellId="vscode-notebook-cell:/home/ann/a#W0")
        assert kernel.run(CLICKED).status == "ok"
        page("comm_open", {"comm_id": "c1", "target_name": "click", "data": {}})
        cells = kernel.value(
            "[run.wait(60).record.cell and run.record.cell.model_dump() for run in (one, two, run)]"
        )
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (first, second)]
    assert cells == [
        {"id": "0a1b-2c", "sha256": digests[0], "count": 2},
        {"id": None, "sha256": digests[1], "count": 3},
        None,
    ]
    kept = [path.read_text() for path in (tmp_path / "kling_media").glob("*.json")]
    assert (len(kept), [text for text in kept if "/home/ann" in text]) == (3, [])
