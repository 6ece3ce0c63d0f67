"""The sandbox's clips, rendered once for all tests: drawing one costs more than all the rest of its run."""

import shutil
from uuid import uuid4

from kling_nb.sandbox.render.clip import render


def render_once(folder):
    """A stand-in for `render` that draws each plan once, and copies the file from then on."""

    def rendered(plan, target, stopped=bool):
        kept = folder / f"{plan.digest}.mp4"
        if not kept.exists():
            made = folder / f"{uuid4().hex}.mp4"
            render(plan, made, stopped)
            made.replace(kept)
        shutil.copyfile(kept, target)

    return rendered
