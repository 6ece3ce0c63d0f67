"""What the cells of a notebook would ask for, read without running any of it.

Invariants: nothing of a notebook is executed or imported; a cell is split as IPython itself splits it; what
hangs on code that would have to run is a step of its own, with its line and the reason, and never left out.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kling_nb.commands.estimate.cells import SKIP, Cell
from kling_nb.commands.syntax.cell import CellOrder, HelpWantedError, ask_of, parse_cell
from kling_nb.commands.syntax.cell_source import shield
from kling_nb.commands.syntax.values import repeating
from kling_nb.config.options import Options
from kling_nb.errors import KlingError, UsageError, one_line

__all__ = ["Step", "read_steps"]

#: Cell magics whose body is run once, as a cell of its own.
_TRANSPARENT = frozenset({"capture", "time"})
_REPEATING = frozenset({"timeit", "prun"})

#: What makes runs, of the functions of `import kling_nb as kling`.
_PAYING = frozenset({"generate", "submit", "sweep"})
_PACKAGE = "kling_nb"

#: A cell that asks for a private run, or seems to: none of its text is repeated.
_PRIVATE = re.compile(r"--private\b|\bprivate\s*=\s*(?!False)")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing of a notebook that matters for its bill.

    Args:
        cell: The cell's place, counted from 1.
        line: The line in it, counted from 1.
        kind: `call` for a clip asked for in full; `unknown` for what only running would tell; `invalid` for
            a cell that would be refused as it stands; `setting` for a setting made on the way; `note`.
        order: What is asked for.
        words: The text it is recognised by.
        why: Why it is unknown or invalid, or what the note says.
        cure: What to do about it.
        settings: Settings by name.
    """

    cell: int
    line: int = 1
    kind: Literal["order", "unknown", "invalid", "setting", "note"]
    call: CellOrder | None = None
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
        >>> step.kind, step.call.dest, step.call.fields
        ('order', 'fox', {'prompt': 'A red fox', 'duration': 3})
    """
    reader = _Reader(folder)
    for cell in cells:
        if cell.skipped:
            if "kling" in cell.source:
                reader.steps.append(
                    Step(cell=cell.number, kind="note", why=f"is left out: it is tagged {SKIP}")
                )
            continue
        reader.read(cell.number, cell.source)
    return reader.steps


class _NeedsRunError(Exception):
    """A variable of the notebook was asked for."""


class _NoNames(dict[str, Any]):
    """The variables of a notebook that does not run: to ask for one is to need it run."""

    def __contains__(self, name: object) -> bool:
        raise _NeedsRunError(f"the variable {name} is known only when it runs")


class _Reader(ast.NodeVisitor):
    """Walks the Python that IPython would make of each cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        self.modules = {_PACKAGE, "kling"}
        self.names: dict[str, str] = {}
        self.cell = 0
        self.base = 0
        self.source = ""
        self.within: list[str] = []

    def read(self, number: int, source: str, *, base: int = 0) -> None:
        from IPython.core.inputtransformer2 import TransformerManager

        # IPython drops empty lines at the top, and counts without them.
        empty = re.match(r"(?:[^\S\n]*\n)*", source)
        above = empty[0] if empty else ""
        source = source[len(above) :]
        base += above.count("\n")
        self.cell, self.base, self.source = number, base, source
        try:
            with warnings.catch_warnings():
                # What Python has to say about the user's own strings is no business of ours.
                warnings.simplefilter("ignore")
                manager = TransformerManager()
                manager.cleanup_transforms.insert(0, shield)
                tree = ast.parse(manager.transform_cell(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            if "kling" in source:
                misplaced = re.search(r"^\s*%%kling", source, re.MULTILINE)
                why = "`%%kling` must be the first line of its cell" if misplaced else "it is no valid Python"
                self._add(1 + base, "invalid", why)
            return
        try:
            self.visit(tree)
        except RecursionError:
            self.within.clear()
            if "kling" in source:
                self._add(1 + base, "unknown", "its code is nested too deeply to be read here")

    def _add(self, line: int, kind: Any, why: str = "", **more: Any) -> None:
        words = more.pop("words", None) or _line_of(self.source, line - self.base)
        if _PRIVATE.search(self.source):
            words = "private"
        self.steps.append(Step(cell=self.cell, line=line, kind=kind, why=why, words=words, **more))

    # -- where code stands -------------------------------------------------------
    def generic_visit(self, node: ast.AST) -> None:
        why = _NESTS.get(type(node), "")
        self.within += [why] if why else []
        super().generic_visit(node)
        if why:
            self.within.pop()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == _PACKAGE:
                self.modules.add(alias.asname or _PACKAGE)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] != _PACKAGE or node.level:
            return
        for alias in node.names:
            if alias.name == "*":
                self.names |= {name: name for name in (*_PAYING, "connect")}
            elif alias.name in {*_PAYING, "connect"}:
                self.names[alias.asname or alias.name] = alias.name
            else:
                self.modules.add(alias.asname or alias.name)

    def visit_Assign(self, node: ast.Assign) -> None:
        # Another name for the package: its calls cost the same.
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            self.modules |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        self.generic_visit(node)

    # -- the functions of the package --------------------------------------------
    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in _PAYING and _root(node.value) in self.modules:
            self._call(node.lineno, node.attr)
            return
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if self.names.get(node.id) in _PAYING and isinstance(node.ctx, ast.Load):
            self._call(node.lineno, self.names[node.id])

    def _call(self, line: int, name: str) -> None:
        where = f" {self.within[-1]}" if self.within else ""
        self._add(line + self.base, "unknown", f"`{name}()`{where} is code: known only when it runs")

    def visit_Call(self, node: ast.Call) -> None:
        name, words = _magic(node)
        if name == "cell":
            self._cell_magic(node, words)
            return
        if name == "line":
            self._line_magic(node, words)
            return
        if self._connects(node.func):
            self._connect(node)
            return
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and re.fullmatch(
            r"KLING_NB_[A-Z_]+|RUN(FLOW|COMFY)_API_\w+", node.value
        ):
            self._add(node.lineno + self.base, "note", f"names {node.value}, which is not followed")

    # -- magics --------------------------------------------------------------------
    def _cell_magic(self, node: ast.Call, words: list[str | None]) -> None:
        magic, line, body = words[0], words[1], words[2]
        at = node.lineno + self.base
        if magic == "kling":
            if self.within or line is None or body is None:
                where = self.within[-1] if self.within else "with text made by code"
                self._add(at, "unknown", f"`%%kling` {where}: known only when it runs")
            else:
                self._order(at, line, body)
        elif magic in _TRANSPARENT and body is not None and not self.within:
            cell, base, source = self.cell, self.base, self.source
            self.read(cell, body, base=base + 1)
            self.cell, self.base, self.source = cell, base, source
        elif magic in _REPEATING and body is not None and re.search(r"kling|submit|generate|sweep", body):
            self._add(at, "unknown", f"`%%{magic}` runs its cell many times: known only when it runs")

    def _order(self, at: int, line: str, body: str) -> None:
        words = one_line(body) or one_line(line)
        if line.strip() in {"-h", "--help"}:
            return
        try:
            with repeating(line):
                call = parse_cell(line, body, _NoNames(), folder=self.folder)
            ask_of(call)
        except HelpWantedError:
            return
        except _NeedsRunError as error:
            self._add(at, "unknown", str(error), words=words)
        except UsageError as error:
            if "--file: there is no file" in error.what:
                self._add(at, "unknown", f"{error.what} It may be there when it runs.", words=words)
            else:
                self._add(at, "invalid", error.what, words=words, cure=error.cure)
        except KlingError as error:
            self._add(at, "invalid", error.what, words=words, cure=error.cure)
        else:
            self._add(at, "order", call=call, words=one_line(call.rendered) or words)

    def _line_magic(self, node: ast.Call, words: list[str | None]) -> None:
        magic, line = words[0], words[1] or ""
        at = node.lineno + self.base
        if magic == "%kling":
            self._add(at, "invalid", "`%%kling` must be the first line of its cell")
        elif magic == "run":
            self._add(at, "note", "runs another file, which is not read")
        elif magic in {"env", "set_env"} and re.search(r"KLING_NB_|_API_KEY|_TOKEN", line):
            self._add(at, "note", "sets the environment, which is not followed")
        elif magic == "config" and (found := re.match(r"KlingMagics\.(\w+)\s*=\s*(.*)", line, re.DOTALL)):
            self._setting(at, {found[1]: found[2]})
        elif magic == "kling" and re.match(r"\s*budget\b.*--session\b", line):
            self._add(at, "note", _JOINS)

    def _setting(self, at: int, texts: Mapping[str, str]) -> None:
        settings = {}
        for name, text in texts.items():
            if name == "ledger":
                # A stranger's notebook may name any file or host: looking would open it.
                self._add(at, "note", "names a ledger of its own, which is not looked into")
                continue
            if name == "session":
                self._add(at, "note", _JOINS)
                continue
            try:
                settings[name] = _literal(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                self._add(at, "note", f"sets {name} to something known only when it runs")
        if self.within and settings:
            self._add(at, "note", f"sets {', '.join(settings)} {self.within[-1]}, which is not followed")
        elif settings:
            self._add(
                at, "setting", settings={k: v for k, v in settings.items() if k in Options.model_fields}
            )

    def _connects(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Attribute):
            return func.attr == "connect" and _root(func.value) in self.modules
        return isinstance(func, ast.Name) and self.names.get(func.id) == "connect"

    def _connect(self, node: ast.Call) -> None:
        texts = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg}
        if len(texts) != len(node.keywords) or node.args:
            self._add(node.lineno + self.base, "note", "connects with settings known only when it runs")
        self._setting(node.lineno + self.base, texts)


_JOINS = "joins a session by name; what that one has spent is not counted here"
_LOOP, _FUNCTION, _BRANCH = "in a loop", "in a function", "under a condition"

_NESTS: dict[type[ast.AST], str] = {
    **dict.fromkeys(
        (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), _LOOP
    ),
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda), _FUNCTION),
    **dict.fromkeys((ast.If, ast.IfExp, ast.Try, ast.Match, ast.BoolOp), _BRANCH),
}


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _magic(node: ast.Call) -> tuple[str, list[str | None]]:
    """Give `cell` or `line` and the three texts, where a call runs a magic; None for no plain text."""
    kinds = {"run_cell_magic": "cell", "run_line_magic": "line", "magic": "line"}
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in kinds:
        return "", []
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    texts = [
        one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else None for one in given
    ]
    return kinds[node.func.attr], [*texts, None, None, None][:3]


def _literal(text: str) -> Any:
    """Read a plain value; a number stays the text it was written as, because it may be money."""
    value = ast.literal_eval(text.strip())
    if isinstance(value, bool | str | None | int):
        return value
    if isinstance(value, float):
        return text.strip()
    raise ValueError("no plain value")


def _line_of(source: str, line: int) -> str:
    lines = source.splitlines()
    return one_line(lines[line - 1]) if 0 < line <= len(lines) else ""
