"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import kling_nb

MODULES = [
    module.name
    for module in pkgutil.walk_packages(kling_nb.__path__, "kling_nb.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["kling_nb", *MODULES])
def test_the_examples_of_a_module_are_true(name):
    """What a docstring shows is what happens."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def test_there_are_examples():
    """The test above has something to run."""
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 100
