"""Cells that draw a card in every state, for pictures and for judges; the runs are made up."""

#: What the cells below need.
MADE = """from datetime import timedelta
from IPython.display import HTML, display
from kling_nb.views.card_parts import CardState
from kling_nb.views.card import card
from kling_nb.views.grid import grid
from kling_nb.views.waits import Turn
from kling_nb.records.request import Shot, TextToVideo
from support.cards import DONE, NOW, TOTALS, T, record

board = TextToVideo(shots=[Shot(prompt="Wide view of a vineyard", duration=5),
                           Shot(prompt="Two hands meet", duration=3)], duration=8)
held = {"reserved_micros": 560_000, "submitted_at": T}
def show(**fields):
    more = {key: fields.pop(key) for key in ("reused", "detached", "typical_s", "turn") if key in fields}
    display(HTML(card(CardState(record=record(**fields), name="fox", **more), totals=TOTALS, now=NOW)))"""

#: A cell by the name of the state.
STATES = {
    "starting": 'show(status="created", reserved_micros=560_000)',
    "waiting": 'show(status="created", reserved_micros=560_000, turn=Turn(3, 4, (20,)), typical_s=(9, 20))',
    "sending": 'show(status="submitting", **held)',
    "queued": 'show(status="queued", queue_position=3, **held)',
    "running": 'show(status="running", typical_s=(90, 200), **held)',
    "late": 'show(status="running", typical_s=(30, 80), **held)',
    "saving": 'show(status="saving", **held)',
    "done-file-away": "show(**DONE)",
    "reused": "show(**DONE, reused=True)",
    "storyboard": 'show(status="running", request=board, **held)',
    "long-prompt": 'show(status="failed", request=TextToVideo(prompt="A red fox in snow. " * 60))',
    "moderated": 'show(status="failed", reason="moderated", message="content policy", charged="no")',
    "failed-unknown": 'show(status="failed", reason="provider", charged="unknown", reserved_micros=560_000)',
    "failed-charged": 'show(status="failed", reason="provider", charged="yes", settled_micros=560_000)',
    "canceled": 'show(status="canceled", charged="no", settled_micros=0)',
    "lost": 'show(status="lost", charged="unknown", provider="runcomfy", **held)',
    "detached": 'show(status="running", detached=True, **held)',
    "above-the-list": 'show(**{**DONE, "reported_micros": 700_000, "settled_micros": 700_000})',
    "play": 'show(status="running", play=True, **held)',
    "several": """display(HTML(grid([CardState(record=record(**DONE), name="fox[0]"),
    CardState(record=record(id="kfox02", status="running", take=1, **held), name="fox[1]"),
    CardState(record=record(id="kfox03", status="failed", reason="moderated", take=2), name="fox[2]")],
    totals=TOTALS, now=NOW)))""",
}
