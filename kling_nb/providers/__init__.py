"""The providers' wires, one file each and pure functions of calls and replies, and their names.

Invariants: the order of `PROVIDERS` is the order in which `auto` looks for a key.
"""

from kling_nb.errors import UsageError
from kling_nb.providers.base import Provider
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.providers.runflow import Runflow
from kling_nb.providers.sandbox import Sandbox

__all__ = ["PROVIDERS", "Provider", "RunComfy", "Runflow", "Sandbox", "make_provider"]

PROVIDERS: dict[str, type[Provider]] = {cls.name: cls for cls in (Runflow, RunComfy, Sandbox)}


def make_provider(name: str, base_url: str | None = None) -> Provider:
    """Make the adapter of a provider.

    Args:
        name: `runflow`, `runcomfy` or `sandbox`.
        base_url: Where it is, without `/v1`; None for its public address.

    Returns:
        The adapter.

    Raises:
        UsageError: Nobody knows the name.

    Example:
        >>> make_provider("runflow").label
        'Runflow'
    """
    try:
        return PROVIDERS[name](base_url)
    except KeyError:
        raise UsageError(
            f"There is no provider {name!r}.", cure=f"Choose one of {', '.join(PROVIDERS)}."
        ) from None
