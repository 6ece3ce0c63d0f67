"""Which provider a request goes to.

Invariants: a provider that was named is never replaced by another, and none is used without its key;
the sandbox is chosen only by name or where there is no key at all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kling_nb.config.keys import KEY_VARIABLES, Key, key_missing
from kling_nb.errors import UnpricedError, UnsupportedError, UsageError
from kling_nb.pricing.catalog import Model

if TYPE_CHECKING:
    from kling_nb.config.settings import Settings

__all__ = ["choose_provider"]


def choose_provider(
    settings: "Settings",
    model: Model,
    *,
    audio: bool,
    named: str | None,
    find: Callable[[str], Key | None],
    allow_unpriced: bool = False,
) -> str:
    """Choose where a request goes.

    Args:
        settings: Their `provider` is the default.
        model: The model.
        audio: Whether the clip has sound, which has its own price.
        named: The provider that the call names; None or `auto` for none.
        find: Gives a provider's key, or None; it may raise, and then nothing is chosen.
        allow_unpriced: Whether a provider without a known price will do, after those with one.

    Returns:
        `runflow`, `runcomfy` or `sandbox`.

    Raises:
        UsageError: Nobody knows the named provider.
        KeyMissingError: A provider was named, and there is no usable key for it.
        UnsupportedError: No provider with a key offers the model.
        UnpricedError: None that offers it has a known price for this request.
    """
    by_call = named is not None and named != "auto"
    choice = named if by_call and named is not None else settings.provider
    if choice == "auto":
        return _automatic(model, audio=audio, find=find, allow_unpriced=allow_unpriced)
    if choice != "sandbox" and choice not in KEY_VARIABLES:
        raise UsageError(
            f"There is no provider {choice!r}.",
            cure=f"Choose one of {', '.join(KEY_VARIABLES)}, sandbox, auto.",
        )
    model.offer(choice)
    if choice != "sandbox" and find(choice) is None:
        raise key_missing(choice, "the call names it" if by_call else "the settings name it")
    return choice


def _automatic(model: Model, *, audio: bool, find: Callable[[str], Key | None], allow_unpriced: bool) -> str:
    with_key: list[str] = []
    offering: list[str] = []
    for name in KEY_VARIABLES:
        # One after the other: a locked keyring is no trouble where an earlier provider's key will do.
        if find(name) is None:
            continue
        with_key.append(name)
        if name in model.providers:
            offering.append(name)
            if model.providers[name].usd_per_s(audio=audio) is not None:
                return name
    if not with_key:
        model.offer("sandbox")
        return "sandbox"
    if not offering:
        raise UnsupportedError(
            f"{' and '.join(with_key)}, for which there is a key, cannot make {model.id}.",
            cure=f"It is offered by {', '.join(sorted(model.providers))}: set a key or choose another model.",
        )
    if allow_unpriced:
        return offering[0]
    raise UnpricedError(
        f"No price is known for {model.id} {'with sound' if audio else 'without sound'} "
        f"from {' or '.join(offering)}.",
        cure="Go on with `--allow-unpriced`, which reserves the highest known price of the model, "
        "or say the price with `--price USD_PER_S`"
        + ("; or leave the sound out with `--no-audio`." if audio else "."),
        provider=offering[0],
    )
