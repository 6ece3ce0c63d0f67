"""A `%%kling` cell as it is written, before IPython edits it.

IPython takes what looks like a pasted prompt (`>>> `, `... `, `In [1]: `) out of a cell's body, each of its
versions by rules of its own, and takes a cell for Python where a comment stands above the magic.

Invariants: the body is byte for byte what stands in the cell; another cell is given back as it is; nothing
heavy is imported, because the first step of every cell is taken here.
"""

import re

__all__ = ["earlier_spellings", "shield"]

_TOP = re.compile(r"([ \t]*)(?:#.*|%%(\w+)(?:\s(.*))?)?\s*")


def shield(lines: list[str]) -> list[str]:
    r"""Write a `%%kling` cell as the call that runs it; to be IPython's first step with every cell.

    Comments, empty lines and other cell magics (`%%time`) may stand above it. Where the magic is indented, so
    much is taken off each line.

    Args:
        lines: Of a cell, with their ends.

    Returns:
        The call below the comments; of any other cell its lines.

    Example:
        >>> shield(["# take two\n", "%%kling fox\n", ">>> A red fox\n"])
        ['# take two\n', "get_ipython().run_cell_magic('kling', 'fox', '>>> A red fox\\n')\n"]
    """
    first = None
    for number, line in enumerate(lines):
        found = _TOP.fullmatch(line)
        if found is None:
            break
        if found[2] and first is None:
            first = number, found
        if found[2] == "kling" and first is not None:
            above, top = first
            # IPython itself would refuse a cell without a body, before `--file` or `--help` is read.
            body = "".join(text.removeprefix(top[1]) for text in lines[above + 1 :]) or "\n"
            call = f"get_ipython().run_cell_magic({top[2]!r}, {(top[3] or '').rstrip()!r}, {body!r})\n"
            return [*lines[:above], call]
    return lines


# So that IPython in a terminal does not ask it whether the cell is complete: there, more is being typed.
shield.has_side_effects = True  # type: ignore[attr-defined]


def earlier_spellings(body: str) -> list[str]:
    r"""Give a body as IPython used to hand it over, where that differs: clips were bought under it.

    Args:
        body: As it is written.

    Returns:
        What the rules of this IPython, and of those before 9.10, made of it.

    Example:
        >>> earlier_spellings(">>> A red fox\n")
        ['A red fox\n']
    """
    from IPython.core.inputtransformer2 import PromptStripper, classic_prompt, ipython_prompt

    lines = ["%%kling\n", *body.splitlines(keepends=True)]
    older = PromptStripper(classic_prompt.prompt_re, classic_prompt.initial_re)
    made = dict.fromkeys("".join(ipython_prompt(strip(lines))[1:]) for strip in (classic_prompt, older))
    return [text for text in made if text != body]
