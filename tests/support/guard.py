"""What the guard of the tests raises."""


class OutsideConnectionError(RuntimeError):
    """A test tried to reach another machine."""
