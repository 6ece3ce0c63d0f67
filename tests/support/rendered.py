"""The sandbox's clips, rendered once for all tests: drawing one costs more than all the rest of its run."""

import os
from dataclasses import replace
from uuid import uuid4

from kling_nb.sandbox.render.clip import render

# What x264 says of itself in a clip; no player looks at it.
_SPARE = b"http://www.videolan.org/x264.html"


def render_once(folder):
    """A stand-in for `render`: plans of the same cuts, form, sound and look share the pictures of one file.

    Each plan's file is one of its own all the same; its words are drawn where `TESTS_DRAW_WORDS` is set.
    """

    def rendered(plan, target, stopped=bool):
        drawn = plan
        if "TESTS_DRAW_WORDS" not in os.environ:
            drawn = replace(plan, shots=tuple(replace(shot, text="") for shot in plan.shots))
        kept = folder / f"{drawn.digest}.mp4"
        if not kept.exists():
            made = folder / f"{uuid4().hex}.mp4"
            render(drawn, made, stopped)
            made.replace(kept)
        film = kept.read_bytes()
        assert film.count(_SPARE) == 1
        target.write_bytes(film.replace(_SPARE, plan.digest.encode().ljust(len(_SPARE))))

    return rendered
