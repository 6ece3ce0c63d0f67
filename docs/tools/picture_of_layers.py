"""Draw the layers of the package from the contract in `pyproject.toml`; `tables.py` writes and checks it."""

import tomllib
from pathlib import Path

PURPOSES = {
    "__main__": "python -m kling_nb",
    "cli": "terminal and scripts",
    "notebook": "magics, cards, viewers",
    "commands": "lines into answers",
    "sweeps": "whole experiments",
    "spending": "what was spent",
    "exports": "clips for others",
    "recovery": "getting runs back",
    "team": "callbacks",
    "session": "one call decided",
    "ratings": "votes and scores",
    "engine": "a run's life",
    "config": "settings and keys",
    "ledger": "runs and money",
    "media": "clips on disk",
    "views": "how runs look",
    "network": "one HTTP client",
    "pricing": "what clips cost",
    "providers": "the pure wires",
    "sandbox": "a loopback provider",
    "records": "what runs are",
    "errors": "every named failure",
    "loop": "one background thread",
    "files": "atomic file writes",
    "addresses": "where calls go",
    "interrupts": "Ctrl-C, held back",
}
WIDTH, ROW, GAP = 900, 58, 8
# An image does not hear the page's own switch, so it brings its background with it in both looks.
STYLE = """
  .page { fill: #ffffff; } .box { fill: #eef3fb; stroke: #5b7db1; } text { fill: #1b2430; }
  .why { fill: #465468; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #131416; } .box { fill: #1f2b3d; stroke: #7f9fd0; } text { fill: #f0f4fa; }
    .why { fill: #c3cedd; }
  }
"""


def picture() -> str:
    """Return the picture as SVG, one row for each row of the root contract.

    Raises:
        KeyError: A package of the contract has no purpose here.
    """
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    rows = [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]
    height = len(rows) * (ROW + GAP) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        ' font-family="system-ui, sans-serif" text-anchor="middle">',
        "<title>The packages of kling_nb: each row imports only from the rows below it</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
    ]
    for number, row in enumerate(rows):
        width, top = (WIDTH - GAP) / len(row), GAP + number * (ROW + GAP)
        for place, name in enumerate(row):
            left = GAP + place * width
            middle, wide = left + (width - GAP) / 2, width - GAP
            lines += [
                f'<rect class="box" x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{ROW}" rx="6"/>',
                f'<text x="{middle:.1f}" y="{top + 25}" font-size="17" font-weight="600">{name}</text>',
                f'<text class="why" x="{middle:.1f}" y="{top + 44}" font-size="13">{PURPOSES[name]}</text>',
            ]
    return "\n".join([*lines, "</svg>", ""])
