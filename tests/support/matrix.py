"""What is in the full matrix only."""

import pytest

__all__ = ["ONE_WIRE"]

#: For slow tests of what both wires share: the one where an answer that is lost leads to a second request;
#: the other is in the matrix.
ONE_WIRE = ("runflow", pytest.param("runcomfy", marks=pytest.mark.matrix))
