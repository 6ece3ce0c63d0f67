"""The pages of the public names, the errors and the command line, as Markdown, read from the code."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from kling_nb import errors as error_tree
from kling_nb.cli import app
from kling_nb.errors import KlingError

PACKAGE = Path(__file__).parents[2] / "kling_nb"
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Examples?|Notes?):$")
_ITEM = re.compile(r"^    (\*{0,2}[\w.]+)(?: \([^)]*\))?: (.*)$")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def api() -> str:
    """Every public name that is no error: its signature, and the sections of its docstring."""
    made: dict[str, list[str]] = {"Functions": [], "Classes": [], "Values": []}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module not in {None, "errors"}:
            for name in node.names:
                group, text = _public(str(node.module), name.name)
                made[group].append(text)
        elif isinstance(node, ast.AnnAssign):
            made["Values"].append(f"- `{ast.unparse(node)}`")
        elif isinstance(node, ast.FunctionDef):
            made["Values"].append(f"- `{_signature(node)}`: called by IPython.")
    functions, classes = (sorted(made[group], key=str.lower) for group in ("Functions", "Classes"))
    parts = ["## Functions", *functions, "## Classes", *classes, "## Other names", "\n".join(made["Values"])]
    return "\n\n".join(parts)


def _public(module: str, name: str) -> tuple[str, str]:
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    found = [n for n in tree.body if isinstance(n, Function | ast.ClassDef) and n.name == name]
    if not found:
        raise SystemExit(f"kling_nb.{name} is neither a function nor a class of {module}")
    node = found[-1]
    words = "\n\n".join(_sections(ast.get_docstring(node) or ""))
    if isinstance(node, Function):
        return "Functions", f"### {name}\n\n```{{code-block}} python\n{_signature(node)}\n```\n\n{words}"
    made = next((n for n in node.body if isinstance(n, Function) and n.name == "__init__"), None)
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and not ast.unparse(n).startswith("_")]
    head = f"class {name}({', '.join(map(ast.unparse, node.bases))})".replace("()", "")
    if made is not None:
        head = _signature(made).replace("__init__", name, 1).removesuffix(" -> None")
    elif fields:
        head += "\n" + "\n".join(f"    {ast.unparse(n.target)}: {ast.unparse(n.annotation)}" for n in fields)
    return "Classes", "\n\n".join(
        part
        for part in (f"### {name}\n\n```{{code-block}} python\n{head}\n```", words, "\n".join(_members(node)))
        if part
    )


def _members(node: ast.ClassDef) -> Iterator[str]:
    for one in node.body:
        if isinstance(one, Function) and not one.name.startswith("_"):
            marks = {ast.unparse(mark).partition("(")[0] for mark in one.decorator_list}
            if marks & {"field_validator", "model_validator", "field_serializer", "model_serializer"}:
                continue
            told = " ".join((ast.get_docstring(one) or "").partition("\n\n")[0].split())
            shown = one.name if any("property" in mark for mark in marks) else _signature(one, width=10_000)
            yield f"- `{shown}`: {told}"


def _signature(node: Function, width: int = 96) -> str:
    args = node.args
    plain = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    parts = [_argument(one, default) for one, default in zip(plain, defaults, strict=True)]
    if parts and parts[0] in {"self", "cls"}:
        del parts[0]
    if args.vararg or args.kwonlyargs:
        parts.append("*" + (ast.unparse(args.vararg) if args.vararg else ""))
    parts += [_argument(one, default) for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg:
        parts.append("**" + ast.unparse(args.kwarg))
    head = f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}{node.name}("
    tail = f") -> {ast.unparse(node.returns)}" if node.returns else ")"
    line = head + ", ".join(parts) + tail
    return line if len(line) <= width else head + "".join(f"\n    {part}," for part in parts) + "\n" + tail


def _argument(one: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(one) + (f" = {ast.unparse(default)}" if default is not None else "")


def _sections(text: str) -> Iterator[str]:
    """Turn a docstring into Markdown: paragraphs, a list for each section, code for the example."""
    name, block = "", list[str]()
    for line in [*text.splitlines(), "Note:"]:
        if found := _SECTION.match(line):
            yield from _section(name, block)
            name, block = found[1], []
        else:
            block.append(line)


def _section(name: str, block: list[str]) -> Iterator[str]:
    body = "\n".join(block).strip("\n")
    if not body:
        return
    if name.startswith("Example"):
        yield f"**{name}**\n\n```pycon\n{inspect.cleandoc(body)}\n```"
    elif name in {"Args", "Raises", "Attributes"}:
        items: list[str] = []
        for line in body.splitlines():
            if found := _ITEM.match(line):
                items.append(f"- `{found[1]}`: {found[2]}")
            elif items:
                items[-1] += f" {line.strip()}" if line.strip() else ""
            else:
                items.append(f"- {line.strip()}")
        yield f"**{name}**\n\n" + "\n".join(items)
    elif "```" in body:
        yield inspect.cleandoc(body)
    else:
        paragraphs = [" ".join(part.split()) for part in body.split("\n\n")]
        yield "\n\n".join([*([f"**{name}**"] if name else []), *paragraphs])


def errors() -> list[list[str]]:
    """Every public error, what it is a kind of, and what it means."""
    names = [name for name in error_tree.__all__ if name.endswith("Error")]
    kinds = [getattr(error_tree, name) for name in names]
    return [
        [
            f"`{kind.__name__}`",
            ", ".join(f"`{base.__name__}`" for base in kind.__bases__),
            " ".join(inspect.getdoc(kind).partition("\n\n")[0].split()),
        ]
        for kind in sorted(kinds, key=lambda kind: (kind is not KlingError, kind.__name__))
    ]


def command_line() -> str:
    """Every command of `kling-nb` with its arguments and options."""
    return "\n\n".join(_commands("kling-nb", get_command(app)))


def _commands(above: str, group: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{above} {name}", command)
            continue
        rows = [
            f"- `{' / '.join([*one.opts, *one.secondary_opts])}`: {one.help or ''}".rstrip(": ")
            if one.param_type_name == "option"
            else f"- *{one.name}*: {getattr(one, 'help', None) or ''}".rstrip(": ")
            for one in command.params
            if one.name != "help"
        ]
        told = "\n\n".join(
            " ".join(p.split()) for p in re.split(r"\n\s*\n|\f", command.help or "") if p.strip()
        )
        yield "\n\n".join(part for part in (f"## {above} {name}", told, "\n".join(rows)) if part)
