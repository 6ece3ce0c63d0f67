"""Every error this package raises on purpose, and the three questions each one answers.

A message is one line: what happened, whether it was charged, what is safe to do next.
Ids are attributes, so that a program need not read the words. No message holds a key, a
signed query string or a header.

```
KlingError
├── UsageError (ValueError)        bad input, refused before any money moved
│   └── UnsupportedError           good input that this provider or model cannot take
├── SettingsError                  a setting or file that cannot be read or is not allowed
│   └── KeyMissingError            a provider was named but has no usable key
├── BudgetError                    a cap, a missing price or missing consent stopped the run
│   ├── UnpricedError              nobody knows what it would cost
│   └── ConsentError               a headless run with neither a budget nor consent
├── BlockedError                   an earlier run of the same request must be settled first
├── NotCachedError                 `--cached-only`, and the clip is not here
├── RunFailedError                 the provider ended the run without a clip
│   ├── ModeratedError             it was refused for its content
│   └── RunCanceledError           it was canceled
├── RunLostError                   the answer to the submit never came: a run may exist
├── DetachedError                  we stopped watching; the run itself goes on
├── WaitTimeoutError (TimeoutError) the wait was over before the run was
├── ProviderError                  a reply no contract explains, or a refusal of ours
├── TransportError                 the network between here and the provider
├── LedgerError                    the run ledger cannot be read or written
└── StoreError                     a clip cannot be fetched, checked or kept
    ├── NotVideoError              (in `probe`) what came is no video
    └── DownloadError              (in `download`) the transfer failed
```
"""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypedDict

__all__ = [
    "BlockedError",
    "BudgetError",
    "Charged",
    "ConsentError",
    "DetachedError",
    "KeyMissingError",
    "KlingError",
    "LedgerError",
    "ModeratedError",
    "NotCachedError",
    "ProviderError",
    "RunCanceledError",
    "RunFailedError",
    "RunLostError",
    "SettingsError",
    "StoreError",
    "TransportError",
    "UnpricedError",
    "UnsupportedError",
    "UsageError",
    "WaitTimeoutError",
]

Charged = Literal["no", "yes", "unknown"]
NOTHING_SENT = "Nothing was sent."


class RunIds(TypedDict):
    """Which run an error is about, as `KlingError` takes it."""

    run_id: str
    provider: str
    provider_run_id: str | None


class KlingError(Exception):
    """The root of the tree; catch this to catch everything this package raises.

    Args:
        what: What happened, as one sentence.
        charged: Whether the provider charged for it, as far as anybody knows.
        cure: What is safe to do now, as one sentence.
        run_id: Our id of the run, if there is one.
        provider: The provider's name, if one was involved.
        provider_run_id: The provider's own id of the run, if known.

    Example:
        >>> str(KlingError("The prompt is empty.", cure="Write one."))
        'The prompt is empty. Charged: no. Write one.'
    """

    #: Whether it is said that nothing was sent: set by what may spend and what never does, else by the cure.
    may_spend: bool | None = None

    def __init__(
        self,
        what: str,
        *,
        charged: Charged = "no",
        cure: str = "",
        run_id: str | None = None,
        provider: str | None = None,
        provider_run_id: str | None = None,
    ) -> None:
        self.what = one_line(what)
        self.charged: Charged = charged
        self.cure = one_line(cure)
        self.run_id = run_id
        self.provider = provider
        self.provider_run_id = provider_run_id
        super().__init__(" ".join(part for part in (self.what, f"Charged: {charged}.", self.cure) if part))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it says, which its own arguments would say a second time."""
        return _remade, (type(self), self.args, self.__dict__)

    def _render_traceback_(self) -> list[str]:
        """Give what IPython shows instead of a traceback: what happened, what to do, whether it was charged.

        Our own frames tell a reader nothing, and their lines may repeat a private prompt; of functions of the
        user's own it is said where they called us.
        """
        what, *rest = said(self)
        lines = [f"{type(self).__name__}: {what}", *rest]
        return [*(filled(line, 88, "  ") for line in lines), *_calls(self.__traceback__)]


def said(error: KlingError) -> list[str]:
    """Give what happened, what to do, and the money where some could have moved; each a sentence or more."""
    cure, money = error.cure.removeprefix(NOTHING_SENT).strip(), ""
    if error.charged != "no" or error.run_id:
        money = f"Charged: {error.charged}."
    elif NOTHING_SENT in error.cure if error.may_spend is None else error.may_spend:
        money = NOTHING_SENT
    return [line for line in (error.what, cure, money) if line]


def _remade(kind: type[KlingError], args: tuple[Any, ...], state: dict[str, Any]) -> KlingError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def filled(line: str, width: int, indent: str = "") -> str:
    """Break at words, as a front end breaks at any letter, but not within a command that is to be copied."""
    import re
    import textwrap

    kept = re.sub(r"`[^`]{1,48}`", lambda found: found[0].replace(" ", "\0"), line)
    broken = textwrap.fill(
        kept, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return broken.replace("\0", " ")


def _calls(trace: TracebackType | None) -> list[str]:
    """Name the functions between the cell and us, outermost first; none where the cell itself called."""
    import sysconfig
    import traceback

    libraries = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    functions = [
        frame
        for frame in traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)
        if frame.name != "<module>"
        and not {Path(__file__).parent, *libraries} & set(Path(frame.filename).parents)
    ]
    return [f"  in {frame.name}, line {frame.lineno}" for frame in functions[-3:]]


#: Without them one emoji falls apart into two, and words of Persian and Hindi are written wrong.
_JOINERS = "\u200c\u200d"


def one_line(text: str) -> str:
    r"""Fold white space and drop control characters, so that foreign text cannot fake a second line.

    Args:
        text: Any text, also a provider's.

    Returns:
        The same words on one line.

    Example:
        >>> one_line("two\nlines")
        'two lines'
        >>> one_line("a \U0001f469\u200d\U0001f680 flies") == "a \U0001f469\u200d\U0001f680 flies"
        True
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in _JOINERS else " " for c in text)
    return " ".join(text.split())


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Ask whether a near name is meant; `otherwise` where nothing is near.

    Example:
        >>> did_you_mean("runfolw", ["runflow", "runcomfy"])
        'Did you mean runflow?'
    """
    import difflib

    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"Did you mean {near[0]}?" if near else otherwise


def installed(package: str, cure: str) -> Any:
    """Import a package that not every installation has.

    Args:
        package: Its name, or that of a module in it.
        cure: What to do where it is missing.

    Raises:
        UsageError: It is not installed.

    Example:
        >>> installed("math", "Install Python.").floor(1.5)
        1
    """
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        what = f"This needs the package {error.name or package}, which is not installed."
        raise UsageError(what, cure=cure) from None


class UsageError(KlingError, ValueError):
    """The input is wrong: nothing was sent, nothing was spent."""


class UnsupportedError(UsageError):
    """The input is sound, but this provider or model does not take it."""


class SettingsError(KlingError):
    """A setting cannot be read, has no sense, or may not be set from where it was."""


class KeyMissingError(SettingsError):
    """A provider was named, and there is no usable key for it."""


class BudgetError(KlingError):
    """A cap, an unknown price or missing consent stopped the run before anything was sent.

    Args:
        what: What happened, as one sentence.
        level: Which cap: `cell`, `session`, `project_daily`, `user_daily`, `user_total`, `team_daily` or
            `team_total`; None where no cap was the reason. It and the sums below are attributes.
        cap_micros: That cap, in micro-dollars.
        spent_micros: What is settled under it, in micro-dollars.
        reserved_micros: What is held back under it, in micro-dollars.
        asked_micros: What the refused call would have held back, in micro-dollars.
        **ids: As for `KlingError`.

    Example:
        >>> BudgetError("It does not fit.", level="session", asked_micros=560000).asked_micros
        560000
    """

    def __init__(
        self,
        what: str,
        *,
        charged: Charged = "no",
        cure: str = "",
        run_id: str | None = None,
        provider: str | None = None,
        provider_run_id: str | None = None,
        level: str | None = None,
        cap_micros: int | None = None,
        spent_micros: int | None = None,
        reserved_micros: int | None = None,
        asked_micros: int | None = None,
    ) -> None:
        self.level = level
        self.cap_micros = cap_micros
        self.spent_micros = spent_micros
        self.reserved_micros = reserved_micros
        self.asked_micros = asked_micros
        super().__init__(
            what,
            charged=charged,
            cure=cure,
            run_id=run_id,
            provider=provider,
            provider_run_id=provider_run_id,
        )


class UnpricedError(BudgetError):
    """No price is known for this request, so no cap could hold."""


class ConsentError(BudgetError):
    """A headless run met a real provider with neither a declared budget nor consent."""


class BlockedError(KlingError):
    """An earlier run of the same request is lost, moderated or charged: it must be dealt with first."""


class NotCachedError(KlingError):
    """Only kept clips were allowed, and this one is not here."""


class RunFailedError(KlingError):
    """The provider ended the run without a clip.

    Args:
        what: What happened, as one sentence.
        reason: One word of `kling_nb.records.run.FailReason`.
        **ids: As for `KlingError`.
    """

    def __init__(
        self,
        what: str,
        *,
        reason: str = "provider",
        charged: Charged = "unknown",
        cure: str = "",
        run_id: str | None = None,
        provider: str | None = None,
        provider_run_id: str | None = None,
    ) -> None:
        self.reason = reason
        super().__init__(
            what,
            charged=charged,
            cure=cure,
            run_id=run_id,
            provider=provider,
            provider_run_id=provider_run_id,
        )


class ModeratedError(RunFailedError):
    """The provider refused the prompt or the finished clip for its content."""


class RunCanceledError(RunFailedError):
    """The run was canceled before it made a clip."""


class RunLostError(KlingError):
    """The answer to the submit never came: a paid run may exist, and nothing is sent again."""


class DetachedError(KlingError):
    """We stopped watching; the provider's run goes on and can be resumed."""


class WaitTimeoutError(KlingError, TimeoutError):
    """The wait was over before the run was; the run goes on."""


class ProviderError(KlingError):
    """The provider refused a call, or answered in a way no contract explains."""


class TransportError(KlingError):
    """The network failed.

    Args:
        what: What happened, as one sentence.
        sent: False only where the request provably never left this machine whole.
        **ids: As for `KlingError`.
    """

    def __init__(
        self, what: str, *, sent: bool, charged: Charged = "no", cure: str = "", provider: str | None = None
    ) -> None:
        self.sent = sent
        super().__init__(what, charged=charged, cure=cure, provider=provider)


class LedgerError(KlingError):
    """The ledger cannot be read or written, so nothing may be sent."""


class StoreError(KlingError):
    """A clip could not be fetched, checked or kept."""
