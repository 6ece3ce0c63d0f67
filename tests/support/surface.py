"""What the package offers: its names, words and columns, read from the code as one JSON document."""

import dataclasses
import inspect
import json
import sys

import typer

import kling_nb as kling
from kling_nb.cli import app
from kling_nb.commands.syntax.flags import FLAGS
from kling_nb.commands.syntax.subcommands import COMMANDS
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.settings import OPTIONS, PREFIX
from kling_nb.ledger.schema import EVENTS, MIGRATIONS, RUNS, VOTES

FUNCTIONS = (staticmethod, classmethod)


def surface():
    """Return every public name of the package, its parameters, its words and its columns."""
    names = {name: getattr(kling, name) for name in kling.__all__ if name != "last"}
    return {
        "__all__": sorted(kling.__all__),
        "classes": {name: _class(thing) for name, thing in names.items() if inspect.isclass(thing)},
        "functions": {name: _call(thing) for name, thing in names.items() if inspect.isfunction(thing)},
        "errors": {
            name: {"bases": [base.__name__ for base in thing.__mro__[1:-1]], "attributes": _attributes(thing)}
            for name, thing in names.items()
            if inspect.isclass(thing) and issubclass(thing, kling.KlingError)
        },
        "cell flags": {flag.name: list(flag.spellings) for flag in FLAGS},
        "line commands": {command.name: sorted(command.flags) for command in COMMANDS},
        "command line": _commands(typer.main.get_command(app)),
        "environment": sorted(
            [PREFIX + name.upper() for name in OPTIONS]
            + [name for names in KEY_VARIABLES.values() for name in names]
        ),
        "receipt": sorted(_fields(kling.receipt_schema())),
        "ledger": {
            table.name: [f"{column.name} {column.type}" for column in table.columns]
            for table in (RUNS, EVENTS, VOTES, MIGRATIONS)
        },
    }


def differences(before, now, where=""):
    """Name each place where two such documents differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in sorted({*before, *now})
            for line in differences(before.get(name), now.get(name), f"{where}/{name}")
        ]
    if isinstance(before, list) and isinstance(now, list):
        gone = [one for one in before if one not in now]
        new = [one for one in now if one not in before]
        moved = [] if gone or new or before == now else [f"{where}: {before} is now {now}"]
        return [f"{where}: {one} is gone" for one in gone] + [f"{where}: {one} is new" for one in new] + moved
    return [] if before == now else [f"{where}: {json.dumps(before)} is now {json.dumps(now)}"]


def _call(function):
    """Return the parameters of a function, with their kinds and whether they have a default."""
    return [
        f"{one.name} ({one.kind.description}{'' if one.default is one.empty else ', optional'})"
        for one in inspect.signature(function).parameters.values()
    ]


def _class(thing):
    """Return the public attributes of a class; of methods, their parameters."""
    fields = {field.name for field in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()
    names = fields | set(getattr(thing, "model_fields", {}))
    found = {name: "field" for name in names if not name.startswith("_")}
    for base in reversed(thing.__mro__):
        if not base.__module__.startswith("kling_nb"):
            continue
        for name, value in vars(base).items():
            if name.startswith(("_", "model_")) or name in names:
                continue
            plain = value.__func__ if isinstance(value, FUNCTIONS) else value
            found[name] = _call(plain) if inspect.isfunction(plain) else "attribute"
    # Nobody else makes a run; what a model takes are its fields.
    if issubclass(thing, Exception):
        found["__init__"] = _call(thing)
    return found


def _attributes(error):
    """Return what an instance of an error class has, whatever its arguments are."""
    given = inspect.signature(error).parameters.values()
    needed = {one.name: "no" for one in given if one.kind is one.KEYWORD_ONLY and one.default is one.empty}
    return sorted(vars(error("what", **needed)))


def _commands(group):
    return {
        name: _commands(command)
        if hasattr(command, "commands")
        else sorted(word for one in command.params for word in (*one.opts, *one.secondary_opts))
        for name, command in group.commands.items()
    }


def _fields(schema):
    """Yield each field of the schema with its path."""
    parts = schema["$defs"] | {"": schema}
    for part, said in parts.items():
        required = said.get("required", ())
        for name in said.get("properties", {}):
            yield f"{part}.{name}{' (required)' if name in required else ''}"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(surface(), indent=1, sort_keys=True) + "\n")
