"""Take the pictures of every state of every view, and write the page that shows them.

Run `make states`; it takes some minutes. Pictures are reduced to a palette, because there are many.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
STATES = HERE.parent / "images" / "states"
PAGE = HERE.parent / "develop" / "states.md"
SCRIPTS = ("pictures_cards.py", "pictures_form.py", "pictures_compare.py", "pictures_gallery.py")
BEGIN, END = "<!-- states: written by docs/tools/states.py -->", "<!-- end of states -->"
LOOKS = ("", "-dark", "-narrow", "-narrow-dark")


def shrink(path: Path) -> None:
    """Keep a picture small; a palette is enough to see what is where."""
    Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)


def names() -> list[str]:
    """Give the states that have a picture in every look, in the order of their names."""
    for path in STATES.glob("*-dark-narrow.png"):
        path.rename(path.with_name(path.name.replace("-dark-narrow", "-narrow-dark")))
    wide = sorted(path.stem for path in STATES.glob("*.png") if not path.stem.endswith(("-dark", "-narrow")))
    return [name for name in wide if all((STATES / f"{name}{look}.png").is_file() for look in LOOKS)]


def write_page(states: list[str]) -> None:
    """Write the table of pictures into the page."""
    lines = [BEGIN, ""]
    for name in states:
        title = name.replace("-", " ")
        where = f"../images/states/{name}"
        pictures = [f"![{title}{look.replace('-', ', ')}]({where}{look}.png)" for look in LOOKS]
        lines += [f"## {title.capitalize()}", "", *pictures, ""]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(before + "\n".join([*lines, END]) + after, encoding="utf-8")


def main() -> None:
    """Take every picture and write the page."""
    STATES.mkdir(parents=True, exist_ok=True)
    for old in STATES.glob("*.png"):
        old.unlink()
    for script in SCRIPTS:
        command = [sys.executable, str(HERE / script), "--all", str(STATES)]
        subprocess.run(command, check=True)  # noqa: S603 - our own scripts, by name
    for path in STATES.glob("*.png"):
        shrink(path)
    write_page(names())
    sys.stdout.write(f"{len(names())} states in {STATES.relative_to(HERE.parent.parent)}\n")


if __name__ == "__main__":
    main()
