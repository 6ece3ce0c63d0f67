"""Write the generated parts of the documentation, and the schema of receipts, from the code.

Run `make tables` after a flag, a command, a setting, a price, a switch or a field of a receipt has changed;
`--check` writes nothing and fails where a file is stale.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api import api, command_line, errors
from picture_of_layers import picture

from kling_nb.commands.syntax.flags import FLAGS
from kling_nb.commands.syntax.subcommands import COMMANDS
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.settings import OPTIONS, PREFIX
from kling_nb.pricing.catalog import models, provider_label
from kling_nb.records.receipt_schema import SCHEMA_FILE, receipt_schema, schema_text
from kling_nb.sandbox.faults.switches import SWITCHES

DOCS = Path(__file__).parent.parent


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _table(headers: list[str], rows: list[list[str]]) -> str:
    return "\n".join([_row(*headers), _row(*["---"] * len(headers)), *(_row(*row) for row in rows)])


def flags() -> str:
    """Every flag of `%%kling`, by what it is for."""
    groups = dict.fromkeys(flag.group for flag in FLAGS)
    return "\n\n".join(
        _table(
            [group, ""],
            [
                [
                    ", ".join(f"`{s}`" for s in flag.spellings)
                    + (f" *{flag.metavar}*" if flag.metavar else ""),
                    flag.help,
                ]
                for flag in FLAGS
                if flag.group == group
            ],
        )
        for group in groups
    )


def commands() -> str:
    """Every command of `%kling`."""
    return _table(
        ["`%kling ...`", ""],
        [[f"`{(command.name + ' ' + command.usage).strip()}`", command.help] for command in COMMANDS],
    )


def prices() -> str:
    """Every price of the catalog, with its source and date."""

    def price(amount: object) -> str:
        return "unknown" if amount is None else f"${amount}"

    rows = [
        [
            f"`{model.id}`",
            ", ".join(f"`{alias}`" for alias in model.aliases),
            provider_label(name),
            price(offer.usd_per_s_silent),
            price(offer.usd_per_s_audio),
            offer.source,
            offer.as_of.isoformat(),
        ]
        for model in models().values()
        for name, offer in model.providers.items()
        if name != "sandbox"
    ]
    return _table(
        ["model", "also", "provider", "silent, per s", "with sound, per s", "source", "as of"], rows
    )


def settings() -> str:
    """Every setting and key variable by its name in the environment."""
    rows = [[f"`{PREFIX}{name.upper()}`", f"`{name}`", f"`%config KlingMagics.{name}`"] for name in OPTIONS]
    keys = [f"`{variable}`" for names in KEY_VARIABLES.values() for variable in names]
    return _table(["environment", "user file", "notebook"], rows) + "\n\nKeys: " + ", ".join(keys) + "."


def switches() -> str:
    """Every switch of the sandbox."""
    rows = [[f"`{switch.name}`", switch.kind, switch.about] for switch in SWITCHES.values()]
    return _table(["switch", "kind", "what it does"], rows)


def receipt() -> str:
    """Every field of a receipt, in the words of its schema."""
    schema = receipt_schema()
    return _table(["field", "", "meaning"], list(_fields(schema, schema["$defs"])))


def _fields(part: dict[str, Any], parts: dict[str, Any], above: str = "") -> Iterator[list[str]]:
    for name, said in part["properties"].items():
        options = [_named(option, parts) for option in said.get("anyOf", [said])]
        inner = next(
            (o for one in options for o in (one, _named(one.get("items", {}), parts)) if "properties" in o),
            None,
        )
        many = any(one.get("type") == "array" for one in options)
        kinds = ["list" if one.get("type") == "array" else _kind(one) for one in options]
        yield [f"`{above}{name}`", ", ".join(kinds), said["description"]]
        if inner is not None:
            yield from _fields(inner, parts, f"{above}{name}{'[]' if many else ''}.")


def _named(part: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    return parts[part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def _kind(part: dict[str, Any]) -> str:
    if "const" in part or "enum" in part:
        return "word"
    if part.get("format") == "date-time":
        return "time"
    return {"string": "text", "integer": "whole number", "boolean": "true, false"}.get(
        part["type"], part["type"]
    )


def error_table() -> str:
    """Every error that has a public name."""
    return _table(["error", "is a", "meaning"], errors())


PAGES = {
    "reference/api.md": {"api": api},
    "reference/errors.md": {"errors": error_table},
    "reference/command_line.md": {"command line": command_line},
    "reference/magics.md": {"flags": flags, "commands": commands},
    "guide/providers.md": {"prices": prices},
    "reference/settings.md": {"settings": settings},
    "reference/sandbox.md": {"switches": switches},
    "reference/receipt.md": {"receipt": receipt},
}


def main() -> int:
    """Write or check every table; give the exit code."""
    stale = []
    for page, tables in PAGES.items():
        path = DOCS / page
        before = text = path.read_text(encoding="utf-8")
        for name, make in tables.items():
            start, end = f"<!-- {name}: written by docs/tools/tables.py -->\n", f"<!-- end of {name} -->"
            head, _, rest = text.partition(start)
            _, found, tail = rest.partition(end)
            if not found:
                sys.stderr.write(f"{page} has no place for {name}\n")
                return 2
            text = f"{head}{start}\n{make()}\n\n{end}{tail}"
        if text != before:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    schema = DOCS.parent / "kling_nb" / "records" / SCHEMA_FILE
    for path, text in ((schema, schema_text()), (DOCS / "images" / "layers.svg", picture())):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale:
        sys.stdout.write(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale)}\n")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
