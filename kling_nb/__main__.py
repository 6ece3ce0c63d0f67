"""Where `kling-nb` and `python -m kling_nb` begin: the version is said without loading the commands."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"kling-nb {sys.modules[__package__].__version__}\n")
        return
    from kling_nb.cli import main as run

    run()


if __name__ == "__main__":
    main()
