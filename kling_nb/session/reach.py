"""What it takes to ask about a run: the adapter at its address, and the key of its account.

Invariants: a record's own origin is never trusted with a key, only the configured one; whatever stands in the
way is an error that says how to mend it; nothing here asks anybody.
"""

from collections.abc import Callable

from pydantic import SecretStr

from kling_nb.addresses import is_loopback
from kling_nb.config.keys import Key, fingerprint
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.engine.lookup import Access
from kling_nb.errors import KeyMissingError, UsageError
from kling_nb.providers import make_provider
from kling_nb.records.run import RunRecord, ids_of

__all__ = ["access_for"]

SANDBOX_KEY = SecretStr("sandbox")


def access_for(
    record: RunRecord, *, settings: Callable[[], Settings], find_key: Callable[[str], Key | None]
) -> Access:
    """Give what is needed to ask about a run, or say why it cannot be asked about.

    Args:
        record: The run.
        settings: Reads the settings as they are now; not called for a play run.
        find_key: Gives the key for a provider, if there is one.

    Returns:
        Adapter, key and account.

    Raises:
        UsageError: The run was made at another address than the configured one.
        KeyMissingError: There is no key for its provider.
    """
    if record.provider == "sandbox":
        # Its own address: the sandbox of another kernel may still be there, and no key is at stake.
        if not is_loopback(record.origin):
            raise UsageError(f"Run {record.id} claims a sandbox on another machine.", run_id=record.id)
        return Access(provider=make_provider("sandbox", record.origin), key=SANDBOX_KEY, account="sandbox")
    adapter = make_provider(record.provider, provider_origin(settings(), record.provider))
    if adapter.base_url != record.origin:
        raise UsageError(
            f"Run {record.id} was made at another address of {adapter.label} than the present one.",
            charged=record.charged,
            cure=f"Set KLING_NB_{record.provider.upper()}_URL as it was, then run the cell again.",
            **ids_of(record),
        )
    key = find_key(record.provider)
    if key is None:
        raise KeyMissingError(
            f"Run {record.id} is pending at {adapter.label}, and there is no key to ask about it.",
            charged=record.charged,
            cure="Nothing was sent. Set the key (`%kling keys`), then run the cell again.",
            **ids_of(record),
        )
    return Access(provider=adapter, key=key.secret, account=fingerprint(key))
