"""The lifecycle of a run: intent, submit, watch, save, settle; and the handle that tells of it."""

from kling_nb.engine.asking import Reach, Seen
from kling_nb.engine.job import Clock, Limits
from kling_nb.engine.lifecycle import Engine
from kling_nb.engine.reuse import Decision, Wish, decide
from kling_nb.engine.run import Run, Video
from kling_nb.engine.runs import Runs
from kling_nb.engine.verdict import error_of

__all__ = [
    "Clock",
    "Decision",
    "Engine",
    "Limits",
    "Reach",
    "Run",
    "Runs",
    "Seen",
    "Video",
    "Wish",
    "decide",
    "error_of",
]
