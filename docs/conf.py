"""How the documentation is built; `make docs` turns every warning into an error."""

from importlib.metadata import version as installed_version

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
