"""The sandbox as a provider: RunComfy's wire at the in-process server.

Invariants: it has a name of its own, so that a play clip can never be taken for a bought one; it takes
every shot the request model takes, so that it can rehearse for either provider; it draws words into its
pictures, and those of a private run not.
"""

from collections.abc import Mapping
from typing import ClassVar

from kling_nb.providers.runcomfy import RunComfy

__all__ = ["Sandbox"]


class Sandbox(RunComfy):
    """The wire of `RunComfy` at a loopback address.

    Args:
        base_url: The address of the running in-process server.

    Example:
        >>> Sandbox("http://127.0.0.1:8123").poll_call("abc").url
        'http://127.0.0.1:8123/v1/requests/abc/status'
    """

    name = "sandbox"
    label = "Sandbox"
    default_url: ClassVar[str] = "http://127.0.0.1"
    media_hosts: ClassVar[tuple[str, ...] | None] = None
    min_shot_s: ClassVar[int] = 1
    private_headers: ClassVar[Mapping[str, str]] = {"X-Sandbox-Draw": "hash"}
