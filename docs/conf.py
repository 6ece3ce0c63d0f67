"""How the documentation is built; `make docs` turns every warning into an error."""

from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

project = "kling_nb"
author = "The kling_nb developers"
project_copyright = "2026, The kling_nb developers"
release = version = installed_version("kling-nb")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "python"

html_theme = "furo"
html_title = "kling_nb"
# `--flag` in a sentence stays what is typed.
smartquotes_action = "qe"


def _show_dark_pictures(app: Sphinx, page: nodes.document) -> None:
    """Show a picture that was taken in the dark, too, on a dark page."""
    for light in list(page.findall(nodes.image)):
        dark = light.deepcopy()
        dark["uri"] = light["uri"].replace(".png", "-dark.png")
        here = (Path(app.srcdir) / app.env.docname).parent
        # The page of states shows both.
        if "/states/" not in dark["uri"] and (here / dark["uri"]).is_file():
            light["classes"].append("only-light")
            dark["classes"].append("only-dark")
            light.parent.insert(light.parent.index(light) + 1, dark)


def setup(app: Sphinx) -> None:
    """Add what only these pages have; before Sphinx collects their pictures."""
    app.connect("doctree-read", _show_dark_pictures, priority=100)
