"""Who may buy for a request: one small file of the folder, which is all that other ledgers share with ours.

Invariants: O_EXCL decides, at a cost that does not grow; who has a claim first writes down that it sends, and
then looks whether the name still leads to that file; who takes a claim for dead first takes the name away,
and then looks what was written: so at most one of them goes on. A claim is over once the run's receipt tells
the provider's id or an end.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kling_nb.errors import StoreError
from kling_nb.files import Changing, open_new, open_plain, part_name

__all__ = ["Claim", "Claims", "Stillness"]

_MOST_BYTES = 1024 * 1024
_SENDING = b"sending\n"


@dataclass(frozen=True)
class Claim:
    r"""What a claim's file says: every sign of life makes it longer.

    Args:
        content: The file.

    Example:
        >>> Claim(b"kl7m2q host:1\nsending\n").sending
        True
    """

    content: bytes

    @property
    def run_id(self) -> str:
        """Our id of the run that has it; empty where its maker died before writing it."""
        return self.content.split(b" ", 1)[0].decode("ascii", "replace")

    @property
    def sending(self) -> bool:
        """Whether the run may have been sent."""
        return _SENDING in self.content


class Claims:
    """The claims of one media folder. Every method blocks: call it off the event loop.

    Args:
        folder: The folder; made with the first claim.
        changing: Called around each change of names.
        taking: Called around that of taking a claim.

    Example:
        >>> Claims(Path("nowhere")).seen("k1:" + "0" * 64) is None
        True
    """

    def __init__(
        self,
        folder: Path,
        changing: Changing = contextlib.nullcontext,
        taking: Changing = contextlib.nullcontext,
    ) -> None:
        self._folder = folder
        self._changing = changing
        self._taking = taking

    def take(self, request_key: str, run_id: str, owner: str) -> bool:
        """Claim a request for a run; False where it is claimed.

        Raises:
            StoreError: The folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # A file in its place is no claim.
            raise _refused(error) from None
        try:
            with self._taking():
                file = open_new(self.path(request_key))
            with file:
                file.write(f"{run_id} {owner}\n".encode())
        except FileExistsError:
            return False
        except OSError as error:
            raise _refused(error) from None
        return True

    def seen(self, request_key: str) -> Claim | None:
        """Read the claim of a request; None where there is none."""
        return _read(self.path(request_key))

    def keep(self, request_key: str, run_id: str, *, sending: bool = False) -> bool:
        """Give a sign of life for a run; False where it has no claim, or lost it.

        Args:
            request_key: Of its request.
            run_id: Our id of it.
            sending: Whether it may be sent from now on.

        Raises:
            StoreError: The folder cannot be written.
        """
        path = self.path(request_key)
        try:
            with open_plain(path, os.O_RDWR | os.O_APPEND) as file:
                if Claim(file.read(_MOST_BYTES)).run_id != run_id:
                    return False
                os.write(file.fileno(), _SENDING if sending else b".")
                os.fsync(file.fileno())
                # It may be another's by now.
                return os.path.samestat(os.fstat(file.fileno()), path.lstat())
        except FileNotFoundError:
            return False
        except OSError as error:
            # Another's may be read by us, and not be written.
            if (claim := self.seen(request_key)) is None or claim.run_id != run_id:
                return False
            raise _refused(error) from None

    def void(self, request_key: str, claim: Claim) -> None:
        """Take away a claim that stood still; one whose owner moves at this very moment is put back."""
        path = self.path(request_key)
        aside = path.with_name(part_name(path.name))
        with contextlib.suppress(OSError):
            with self._changing():
                path.rename(aside)
            if _read(aside) != claim:
                # Where another one was made meanwhile it stays, and this owner finds that it lost its own.
                with self._changing():
                    os.link(aside, path)
        with contextlib.suppress(OSError), self._changing():
            aside.unlink()

    def drop(self, request_key: str, run_id: str) -> None:
        """End the claim of a run, if it has it."""
        claim = self.seen(request_key)
        if claim is not None and claim.run_id == run_id:
            with contextlib.suppress(OSError), self._changing():
                self.path(request_key).unlink()

    def path(self, request_key: str) -> Path:
        """Name the file of a request's claim."""
        return self._folder / f".{request_key.removeprefix('k1:')[:32]}.claim"


class Stillness:
    """Whether a claim stands still, by a clock that is never set: its owner's may be wrong.

    Args:
        monotonic: The clock.
        limit_s: Seconds after which it is taken for a dead one's.

    Example:
        >>> Stillness(lambda: 0.0, 60).reached(Claim(b"kl7m2q host:1"))
        False
    """

    def __init__(self, monotonic: Callable[[], float], limit_s: float) -> None:
        self._monotonic, self._limit_s = monotonic, limit_s
        self._last: Claim | None = None
        self._since = 0.0

    def reached(self, claim: Claim) -> bool:
        """Look at a claim again; whether it has been this one for all that time."""
        if claim != self._last:
            self._last, self._since = claim, self._monotonic()
        return self._monotonic() - self._since > self._limit_s


def _read(path: Path) -> Claim | None:
    try:
        with open_plain(path) as file:
            return Claim(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError:
        # What cannot be read stands still.
        return Claim(b"")


def _refused(error: OSError) -> StoreError:
    return StoreError(
        f"The media folder cannot be written: {error.strerror or type(error).__name__}.",
        cure="Nothing was sent. Repair it, or set KLING_NB_MEDIA to another folder, then run the cell again.",
    )
