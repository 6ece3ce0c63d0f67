"""What is in the full matrix only."""

import pytest

__all__ = ["ONE_WIRE"]

#: For slow tests of what both wires share: the one that tells less of its runs; the other is in the matrix.
ONE_WIRE = ("runcomfy", pytest.param("runflow", marks=pytest.mark.matrix))
