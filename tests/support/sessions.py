"""Real sessions for tests of the faces: a temporary ledger, the sandbox, and both wires on loopback."""

from kling_nb.config.environment import Surroundings
from kling_nb.loop import Loop
from kling_nb.records.request import make_request
from kling_nb.sandbox.serve import Sandbox
from kling_nb.session.plan import Ask
from kling_nb.session.session import Session

#: Made up; it must appear nowhere.
KEY = "made-up-key-of-a-test-7Qm2"


def sessions_in(folder):
    """Yield a factory of sessions on one ledger; they end with the test."""
    made = []

    def make(*, headless=False, **settings):
        where = Surroundings(notebook=folder / "a.ipynb", folder=folder, headless=headless)
        settings = {"ledger": str(folder / "ledger.db"), "sandbox_wait": 0, **settings}
        made.append(Session(surroundings=lambda: where, **settings))
        return made[-1]

    yield make
    for session in made:
        session.close()


def both_wires():
    """Yield the loopback server of both wires, as a process of its own would offer it."""
    loop = Loop()
    sandbox = loop.start(Sandbox.start(wait_scale=0)).result(90)
    yield sandbox
    loop.start(sandbox.stop()).result(90)


def ask(prompt="A red fox in snow", *, takes=(0,), **options):
    """A call for a clip of three seconds."""
    return Ask(request=make_request(prompt=prompt, duration=3), takes=takes, **options)
