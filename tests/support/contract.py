"""What both wires have in common."""

import pytest

from support.stage import WIRES, Stage


@pytest.fixture(params=WIRES)
def wire(request):
    return request.param


@pytest.fixture
def stage(wire, tmp_path):
    stages = []

    def make(**options):
        stages.append(Stage(tmp_path, wire, **options))
        return stages[-1]

    yield make
    for made in stages:
        made.close()


def kinds(stage, run):
    return [kind for _, kind, _ in stage.ledger.events(run.id)]
