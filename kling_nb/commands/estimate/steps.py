"""What the cells of a notebook would ask for, read without running any of it.

Invariants: nothing of a notebook is executed or imported; a cell is split as IPython itself splits it; no
variable is followed: a statement that uses the package, and is neither one literal call nor known to be free,
is a step of its own, with its line, and never left out.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kling_nb.commands.estimate.cells import SKIP, Cell
from kling_nb.commands.syntax.cell import HelpWantedError, parse_cell
from kling_nb.commands.syntax.cell_source import shield
from kling_nb.commands.syntax.values import repeating
from kling_nb.config.loading import check_option
from kling_nb.config.settings import OPTIONS
from kling_nb.errors import KlingError, SettingsError, UsageError, one_line
from kling_nb.records.privacy import in_place_of
from kling_nb.session.api import ask_for
from kling_nb.session.plan import Ask

__all__ = ["Step", "read_steps"]

_PACKAGE = "kling_nb"
#: What of the package buys one clip a call, and what of it buys nothing; any other use of it is unknown.
_BUYS = frozenset({"generate", "submit"})
_FREE = re.compile(
    r"[A-Z]\w*|__version__|compare|costs|estimate|export|find|form|gallery|last|(un)?load_ipython_extension|play|"
    r"rate|receipt_schema|restore|resume|run_sync|runs|spend|verify_folder"
)
#: What runs code that is text or finds the package by its name, as a name, a method or a text.
_HIDES = re.compile(
    r"__import__|compile|eval|exec|'kling(_nb)?'|"
    r"\.(magic|import_module|run_(cell|cell_async|cell_magic|code|line_magic|module|path))"
)
#: Cell magics whose body is run once, as a cell of its own.
_TRANSPARENT = frozenset({"capture", "time"})
#: Magics that run no Python of this kernel, whatever they name.
_FOREIGN = re.compile(
    r"!|bash|cmd|conda|env|file|html|javascript|js|latex|load_ext|markdown|perl|pinfo2?|pip|reload_ext|ruby|script|"
    r"set_env|sh|svg|sx|system|unload_ext|writefile"
)
#: What a name stands for that can lead to purchases and is not followed.
_OPAQUE = "?"
#: A cell that asks for a private run, or seems to: none of its text is repeated.
_PRIVATE = re.compile(r"--private\b|\bprivate\s*=\s*(?!False)")
#: What a notebook may set and the bill goes by the user's own: a foreign notebook may name any file or host.
_NOT_FOLLOWED = {
    "ledger": "names a ledger of its own, which is not looked into",
    "session": "joins a session by name; what that one has spent is not counted here",
    "project": "names a project, whose caps are not looked at",
    "runflow_url": "names an address, which is not followed",
    "runcomfy_url": "names an address, which is not followed",
}
_UNKNOWN = "may make runs: known only when it runs"
_NO_LITERAL = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing of a notebook that matters for its bill.

    Args:
        cell: The cell's place, counted from 1.
        line: The line in it, counted from 1.
        kind: `order` for a clip asked for in full; `unknown` for what only running would tell; `invalid` for
            a cell that would be refused as it stands; `setting` for a setting made on the way; `note`.
        ask: What is asked for.
        dry_run: Whether the cell only shows its plan.
        name: The variable that it binds.
        words: The text it is recognised by.
        why: Why it is unknown or invalid, or what the note says.
        cure: What to do about it.
        settings: Settings by name.
    """

    cell: int
    line: int = 1
    kind: Literal["order", "unknown", "invalid", "setting", "note"]
    ask: Ask | None = None
    dry_run: bool = False
    name: str | None = None
    words: str = ""
    why: str = ""
    cure: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_steps(cells: Iterable[Cell], *, folder: Path) -> list[Step]:
    r"""Read what the cells would ask for, in order, without running them.

    Args:
        cells: Of one notebook.
        folder: What a relative `--file` is relative to.

    Returns:
        The steps; cells that have nothing to do with clips have none.

    Example:
        >>> [step] = read_steps([Cell(number=1, source="%%kling fox -d 3\nA red fox")], folder=Path())
        >>> step.kind, step.name, step.ask.request.duration
        ('order', 'fox', 3)
    """
    reader = _Reader(folder)
    for cell in cells:
        reader.cell, reader.source, reader.base = cell.number, cell.source, 0
        if not cell.skipped:
            reader.read(cell.source)
        elif "kling" in cell.source:
            reader.add(1, "note", f"is left out: it is tagged {SKIP}")
    return reader.steps


class _NeedsRunError(UsageError):
    """A variable of the notebook was asked for."""


class _NoNames(dict[str, Any]):
    """The variables of a notebook that does not run: to ask for one is to need it run."""

    def __contains__(self, name: object) -> bool:
        raise _NeedsRunError(f"the variable {name} is known only when it runs")


class _Reader:
    """Reads the Python that IPython would make of each cell, statement by statement."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        #: What a name of the notebook stands for: "" for the package, or the name of one thing in it.
        self.names = {_PACKAGE: "", "kling": ""}
        self.cell, self.base, self.source = 0, 0, ""

    def add(self, line: int, kind: Any, why: str = "", **more: Any) -> None:
        """Add what stands in a line of the code that is read just now."""
        lines, line = self.source.splitlines(), line + self.base
        words = more.pop("words", "") or (one_line(lines[line - 1]) if 0 < line <= len(lines) else "")
        ask = more.get("ask")
        if ask is not None and ask.private:
            words = in_place_of(ask.request)
        elif _PRIVATE.search(self.source):
            words = "private"
        self.steps.append(Step(cell=self.cell, line=line, kind=kind, why=why, words=words, **more))

    def read(self, source: str, base: int = 0) -> None:
        from IPython.core.inputtransformer2 import TransformerManager

        # IPython drops empty lines at the top, and counts without them.
        code = re.sub(r"\A(?:[^\S\n]*\n)*", "", source)
        self.base = base + source.count("\n") - code.count("\n")
        try:
            with warnings.catch_warnings():
                # What Python has to say about the user's own strings is no business of ours.
                warnings.simplefilter("ignore")
                manager = TransformerManager()
                manager.cleanup_transforms.insert(0, shield)
                tree = ast.parse(manager.transform_cell(code))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            if "kling" in source:
                misplaced = re.search(r"^\s*%%kling", source, re.MULTILINE)
                why = (
                    "`%%kling` must be the first line of its cell" if misplaced else "it is not valid Python"
                )
                self.add(1, "invalid", why)
            return
        for statement in tree.body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        value = node.value if isinstance(node, ast.Expr | ast.Assign) else None
        nodes = list(ast.walk(node))
        bound = {one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        defined = {one.name for one in nodes if isinstance(one, kinds)}
        # A name that is bound again stands for something else from here on.
        opaque = (bound | defined) & self.names.keys()
        for one in nodes:
            if isinstance(one, ast.Import | ast.ImportFrom):
                self._import(one)
        if isinstance(value, ast.Call):
            public = self._public(value.func)
            if public == "connect":
                for one in value.keywords:
                    text = ast.unparse(one.value)
                    self._setting(value.lineno, one.arg or "settings", text, followed=one.arg is not None)
                opaque |= bound
                nodes = [part for one in value.keywords for part in ast.walk(one)]
            elif public in _BUYS and self._literal_call(value, min(bound, default=None)):
                nodes = []
        uses = self._uses(nodes, value)
        if uses:
            line, name, _ = min(uses, key=lambda use: use[0])
            self.add(line, "unknown", f"`{name}` {_UNKNOWN}")
            # What a call gives back buys nothing; a function that is not called here can be called later.
            later = any(isinstance(one, ast.Lambda) for one in nodes) or not all(use[2] for use in uses)
            opaque |= defined | (bound if later else set())
        self.names |= dict.fromkeys(opaque, _OPAQUE)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        whole = isinstance(node, ast.Import)
        for alias in node.names:
            module = alias.name if isinstance(node, ast.Import) else "." * node.level + (node.module or "")
            name = alias.asname or (alias.name.split(".")[0] if whole else alias.name)
            if module.split(".")[0] != _PACKAGE:
                self.names.pop(name, None)
            elif alias.name == "*":
                self.names |= {name: name for name in (*_BUYS, "adopt", "connect", "resolve")}
            elif _PACKAGE in {module, name}:
                self.names[name] = "" if whole else alias.name
            else:
                self.names[name] = _OPAQUE

    # -- the package -----------------------------------------------------------------
    def _public(self, node: ast.AST) -> str | None:
        """Give the name of the public thing that an expression is, if it is one."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whose = self.names.get(node.value.id)
            return node.attr if whose == "" else whose
        return self.names.get(node.id) if isinstance(node, ast.Name) else None

    def _uses(self, nodes: list[Any], value: ast.expr | None) -> list[tuple[int, str, bool]]:
        """Find what may buy: its line, its name, and whether it is called right there."""
        calls = [one for one in nodes if isinstance(one, ast.Call)]
        owners = {id(one.value): one for one in nodes if isinstance(one, ast.Attribute)}
        called, read = {id(one.func) for one in calls}, set[int]()
        for one in calls:
            if found := _magic(one):
                self._run_magic(one.lineno, *found, followed=one is value)
                read |= {id(part) for part in ast.walk(one)}
        uses = []
        for one in nodes:
            text = one.value if isinstance(one, ast.Constant) else None
            if isinstance(text, str) and (
                named := re.match(r"KLING_NB_[A-Z_]+|RUN(FLOW|COMFY)_API_\w+", text)
            ):
                self.add(one.lineno, "note", f"names {named[0]}, which is not followed")
            whole = owners.get(id(one), one)
            if isinstance(one, ast.Name) and one.id in self.names:
                buys = isinstance(one.ctx, ast.Load) and not _FREE.fullmatch(self._public(whole) or "")
            else:
                name = f".{one.attr}" if isinstance(one, ast.Attribute) else getattr(one, "id", repr(text))
                buys = _HIDES.fullmatch(name) is not None
            if buys and id(one) not in read:
                uses.append((one.lineno, ast.unparse(whole), id(whole) in called))
        return uses

    def _literal_call(self, call: ast.Call, name: str | None) -> bool:
        at = call.lineno
        try:
            options = {one.arg or "**": ast.literal_eval(one.value) for one in call.keywords}
            options.pop("timeout_s", None)
            ask = ask_for(*map(ast.literal_eval, call.args), **options)
        except KlingError as error:
            self.add(at, "invalid", error.what, cure=error.cure)
        except _NO_LITERAL:
            return False
        else:
            self.add(at, "order", ask=ask, name=name, words=one_line(ask.request.words))
        return True

    def _setting(self, at: int, name: str, text: str, *, followed: bool) -> None:
        if name in _NOT_FOLLOWED:
            self.add(at, "note", _NOT_FOLLOWED[name])
            return
        try:
            value = ast.literal_eval(text.strip())
        except _NO_LITERAL:
            followed = False
        if not followed:
            self.add(at, "note", f"sets {name} to something known only when it runs")
        elif name in OPTIONS and _refused(name, value):
            self.add(at, "note", f"sets {name} to a value that is refused: it stays as it was")
        elif name in OPTIONS:
            # Money is no float: a number with a point stays the text that it was written as.
            self.add(at, "setting", settings={name: text.strip() if isinstance(value, float) else value})

    # -- magics ----------------------------------------------------------------------
    def _run_magic(self, at: int, magic: str, line: str, body: str | None = None, *, followed: bool) -> None:
        words = re.findall(r"\w+", f"{line}\n{body or ''}")
        if body is not None and magic == "kling" and followed:
            self._order(at, line, body)
        elif body is not None and magic in _TRANSPARENT and followed:
            base = self.base
            self.read(body, base + 1)
            self.base = base
        elif magic == "%kling":
            self.add(at, "invalid", "`%%kling` must be the first line of its cell")
        elif magic == "config" and (found := re.match(r"KlingMagics\.(\w+)\s*=\s*(.*)", line, re.DOTALL)):
            self._setting(at, found[1], found[2], followed=followed)
        elif magic == "kling" and body is None:
            if re.match(r"\s*budget\b.*--session\b", line):
                self.add(at, "note", _NOT_FOLLOWED["session"])
        elif magic == "kling" or (
            not _FOREIGN.fullmatch(magic) and (self.names.keys() | {"eval", "exec"}) & set(words)
        ):
            self.add(at, "unknown", f"`%{magic}` {_UNKNOWN}")
        elif magic in {"run", "rerun"}:
            self.add(at, "note", "runs code that is not in it, which is not read")

    def _order(self, at: int, line: str, body: str) -> None:
        words = one_line(body) or one_line(line)
        try:
            with repeating(line):
                call = parse_cell(line, body, _NoNames(), folder=self.folder)
            if call.sweep:
                self.add(at, "unknown", "a sweep is quoted when it is run", words=words)
                return
            ask = call.ask
        except HelpWantedError:
            return
        except KlingError as error:
            later = isinstance(error, _NeedsRunError) or "--file: there is no file" in error.what
            self.add(at, "unknown" if later else "invalid", error.what, words=words, cure=error.cure)
        else:
            words = one_line(call.rendered) or words
            self.add(at, "order", ask=ask, name=call.dest, dry_run=call.dry_run, words=words)


def _magic(call: ast.Call) -> list[str] | None:
    """Give name, line and body of the magic that a call runs, where each is plain text."""
    count = {"run_line_magic": 2, "run_cell_magic": 3}.get(getattr(call.func, "attr", ""), 0)
    given = [one.value for one in call.args[:count] if isinstance(one, ast.Constant)]
    texts = [text for text in given if isinstance(text, str)]
    return texts if count and len(texts) == count else None


def _refused(name: str, value: object) -> bool:
    """Whether `%config` does not take a value; the cell goes on all the same."""
    try:
        if value is not None:
            check_option(name, value)
    except SettingsError:
        return True
    return False
