"""`python -m kling_nb`: the same as `kling-nb`."""

from kling_nb.cli import main

__all__: list[str] = []

main()
