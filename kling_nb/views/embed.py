"""What of a finished clip goes into a notebook's output: an address, its still, or the clip itself.

Invariants: a clip goes in only with the bytes of its receipt, and only where its output is final; the growth
that is told is that of what was put in; what would be too much stays outside, with words and a cure; what
several clips of one output add is counted together.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kling_nb.errors import UsageError
from kling_nb.records.run import FrontEnd, Mode, RunRecord, RunStatus
from kling_nb.views.words import size_words, unplayed_words

__all__ = ["ASKED_MOST", "Inset", "Kept", "data_address", "growth", "inset", "refuse_too_much"]

#: Bytes that one output may add to the notebook when that was asked for, and when nobody asked.
ASKED_MOST, UNASKED_MOST = 40_000_000, 5_000_000

#: Colab shows no more than 10 MB of an output (googlecolab/colabtools issue 21).
_COLAB_MOST = 10_000_000
_NAMES: dict[FrontEnd, str] = {"vscode": "VS Code", "colab": "Colab"}
_TYPES = {"webm": "webm"}
_PAGE = "`kling-nb export page NOTEBOOK --embed` makes one page with the clips inside."


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A run, and its clip as far as it is here.

    Args:
        record: The run.
        path: The clip's file.
        src: Its address as the notebook reaches it.
        poster: A small JPEG as a data address.

    Example:
        >>> Kept.__name__
        'Kept'
    """

    record: RunRecord
    path: Path | None = None
    src: str | None = None
    poster: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inset:
    """What an output shows of a clip.

    Args:
        src: Its address as the notebook reaches it.
        poster: Its still, as a data address.
        embed: The clip itself, as a data address.
        player: Whether it is played in the output.
        words: What its reader should know, or nothing.

    Example:
        >>> Inset(src="kling_media/fox.mp4").player
        True
    """

    src: str | None = None
    poster: str | None = None
    embed: str | None = None
    player: bool = True
    words: str = ""


def growth(size: int, container: str = "mp4") -> int:
    """Say how many bytes a clip adds to the notebook that holds it.

    Args:
        size: Bytes of its file.
        container: As measured.

    Returns:
        A third more than the file, and a few bytes.

    Example:
        >>> growth(3_000_000)
        4000022
    """
    return len(_head(container)) + 4 * ((size + 2) // 3)


def data_address(data: bytes, container: str = "mp4") -> str:
    """Write a clip as a data address.

    Example:
        >>> data_address(b"abc")
        'data:video/mp4;base64,YWJj'
    """
    return _head(container) + base64.b64encode(data).decode("ascii")


def _head(container: str) -> str:
    return f"data:video/{_TYPES.get(container, 'mp4')};base64,"


def inset(kept: Sequence[Kept], mode: Mode, *, front: FrontEnd = "", final: bool = True) -> list[Inset]:
    """Decide what one output shows of its clips.

    Args:
        kept: The runs of the output, in order.
        mode: As asked for.
        front: The page it is for.
        final: Whether the output will not be drawn again by itself.

    Returns:
        One for each run.

    Example:
        >>> inset([], "auto")
        []
    """
    here = [one.path is not None and one.record.status is RunStatus.SUCCEEDED for one in kept]
    adds = sum(_adds(one) for one, there in zip(kept, here, strict=True) if there)
    why = _why_not(mode, front, adds, kept)
    shown = []
    for one, there in zip(kept, here, strict=True):
        unplayed = unplayed_words(one.record.media) if there and one.record.media else ""
        if unplayed:
            still = None if mode == "never" else one.poster
            shown.append(Inset(src=one.src, poster=still, player=False, words=unplayed))
        elif mode == "never":
            shown.append(Inset(src=one.src, player=False))
        elif mode == "poster":
            shown.append(Inset(src=one.src, poster=one.poster, player=False))
        elif mode == "auto" and not front:
            shown.append(Inset(src=one.src, poster=one.poster))
        elif there and final and not why:
            shown.append(_put_in(one, front))
        else:
            words = (
                why if there and final else _before(mode, final=final, pending=not one.record.status.ended)
            )
            shown.append(Inset(src=one.src, poster=one.poster, player=not front, words=words))
    return shown


def refuse_too_much(kept: Sequence[Kept], front: FrontEnd = "") -> None:
    """Refuse to put clips into one output where that is too much.

    Args:
        kept: The runs of the output.
        front: The page it is for.

    Raises:
        UsageError: It is; nothing was changed.

    Example:
        >>> refuse_too_much([])
    """
    here = [one for one in kept if one.path is not None]
    why = _why_not("always", front, sum(map(_adds, here)), here)
    if why:
        raise UsageError(why.removesuffix(f" {_PAGE}"), cure=_PAGE)


def _adds(one: Kept) -> int:
    media = one.record.media
    return growth(media.size, media.container) if media else 0


def _why_not(mode: Mode, front: FrontEnd, adds: int, kept: Sequence[Kept]) -> str:
    """Say why clips stay outside; empty where they go in."""
    most = ASKED_MOST if mode == "always" else UNASKED_MOST
    most = min(most, _COLAB_MOST) if front == "colab" else most
    # In most pages nothing goes in unless it was asked for, however large it is.
    wanted = mode == "always" or (mode == "auto" and front)
    if not wanted or adds <= most:
        return ""
    what = "the clip" if len(kept) == 1 else "these clips together"
    large = f"{what} would add {size_words(adds)} to it, and {size_words(most)} is the most"
    if mode == "always":
        return f"Not put into the notebook: {large} for one output. {_PAGE}"
    ids = " ".join(one.record.id for one in kept)
    asked = f" unless asked for: `%kling show {ids} --embed always`." if adds <= ASKED_MOST else f". {_PAGE}"
    if front == "colab" and adds > _COLAB_MOST:
        asked = f". {_PAGE}"
    return f"{_NAMES[front]} plays no file from beside the notebook; {large}{asked}"


def _before(mode: Mode, *, final: bool, pending: bool) -> str:
    if mode != "always" or final or not pending:
        return ""
    return (
        "`--embed always`: the clip will go into the notebook, which grows by its size and a third more, "
        f"{size_words(ASKED_MOST)} at most."
    )


def _put_in(one: Kept, front: FrontEnd) -> Inset:
    media = one.record.media
    data = b""
    if one.path is not None and media is not None:
        try:
            data = one.path.read_bytes()
        except OSError:
            data = b""
    if media is None or hashlib.sha256(data).hexdigest() != media.sha256:
        words = "Not put into the notebook: the file is not the one of the receipt."
        return Inset(src=one.src, poster=one.poster, player=not front, words=words)
    words = f"The clip is inside this notebook: adds {size_words(_adds(one))} to it."
    if front == "vscode" and media.audio_codec == "aac":
        # AAC in VS Code: declined in microsoft/vscode issue 162062; H.264 in MP4 plays (issue 158759).
        words += " VS Code plays no AAC sound; the file has it."
    return Inset(src=one.src, poster=one.poster, embed=data_address(data, media.container), words=words)
