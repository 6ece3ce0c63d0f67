"""The clips of a page: which go in, which are linked, and what is said of those that are not there.

Invariants: only a file with the bytes of a receipt of the notebook goes in, and once, wherever else it is
shown; what clips and pictures add stays below the limit; a picture is read from the notebook's own folder
only.
"""

import base64
import hashlib
import html
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from kling_nb.files import file_sha256
from kling_nb.records.receipt_model import CLIP_SUFFIXES
from kling_nb.records.run import RunRecord
from kling_nb.views.embed import data_address, growth
from kling_nb.views.words import size_words, there_are

__all__ = ["Clips", "PageClip"]

State = Literal["inside", "linked", "left out", "changed", "missing", "no receipt"]

# Whole attributes, one by one: what is in the quotes of one may look like another, or like the tag's end.
_ATTRIBUTE = re.compile(r"""\s+([a-z]+)(?:=(?:"([^"]*)"|'([^']*)'))?""")
_TAG = re.compile(r"""<(video|a|img)((?:\s+[a-z]+(?:=(?:"[^"]*"|'[^']*'))?)*)\s*/?>""")
_END = "</video>"
_OWN = re.compile(r"data:video/[a-z0-9.+-]+;base64,([A-Za-z0-9+/]*={0,2})")
_PICTURES = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp"}
_MOST_PICTURE = 20_000_000


@dataclass(frozen=True, kw_only=True)
class PageClip:
    """One clip of a page.

    Args:
        file: Its name.
        state: `inside`, `linked`, `left out` (too large), `changed` (other bytes), `missing` or `no receipt`.
        size: Bytes of the file, 0 where it is missing.
        run_id: Of its run, where one is known.
        why: In words, where it is not there.

    Example:
        >>> PageClip(file="fox.mp4", state="changed").good
        False
    """

    file: str
    state: State
    size: int = 0
    run_id: str = ""
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether the page shows it."""
        return self.state in {"inside", "linked"}


class Clips:
    """The clips of one page.

    Args:
        records: The runs that the notebook's receipts tell of.
        folder: The notebook's.
        page: The folder that the page goes to.
        embed: Whether they go in.
        most: Bytes that clips and pictures may add together.
    """

    def __init__(
        self, records: Sequence[RunRecord], folder: Path, page: Path, *, embed: bool, most: int
    ) -> None:
        self._records = {record.media.file: record for record in records if record.media is not None}
        self._bytes = {record.media.sha256: record for record in records if record.media is not None}
        self._folder, self._page = folder.resolve(), page.resolve()
        self._embed, self._left, self._most = embed, most, most
        self._clips: dict[str, PageClip] = {}
        self._pictures_out = 0
        # Of this page alone, so that no notebook can name one of them.
        self._token = secrets.token_hex(16)
        self._addresses: list[str] = []

    def listed(self) -> tuple[PageClip, ...]:
        """Give every clip that was met, in the order of the page."""
        return tuple(self._clips.values())

    def notes(self) -> list[str]:
        """Say what else is not in the page."""
        if not self._pictures_out:
            return []
        what = there_are(self._pictures_out, "picture")
        return [f"{what} not in the page: not found beside the notebook, too large, or no picture."]

    def rewrite(self, markup: str) -> str:
        """Put clips and pictures into clean markup, or turn their addresses towards them.

        Args:
            markup: As the sanitizer wrote it: every value in quotes, and no `<` inside them.
        """
        done, at = [], 0
        while found := _TAG.search(markup, at):
            done.append(markup[at : found.start()])
            name, end = found[1], found.end()
            if name == "video":
                end = markup.find(_END, end) + len(_END)
                end = end if end >= len(_END) else len(markup)
            inside = markup[found.end() : end]
            attributes = {
                attribute[1]: html.unescape(attribute[2] or attribute[3] or "")
                for attribute in _ATTRIBUTE.finditer(found[2])
            }
            done.append({"video": self._video, "a": self._link, "img": self._image}[name](attributes, inside))
            at = end
        return "".join([*done, markup[at:]])

    def filled(self, page: str) -> str:
        """Put what goes in into its places, at the very end: a parser would take minutes over it.

        Args:
            page: The whole page.
        """
        return re.sub(f"{self._token}-(\\d+)", lambda found: self._addresses[int(found[1])], page)

    def _hold(self, address: str) -> str:
        self._addresses.append(address)
        return f"{self._token}-{len(self._addresses) - 1}"

    # --- clips ---------------------------------------------------------------------------------------------

    def _video(self, attributes: dict[str, str], inside: str) -> str:
        src = attributes.get("src", "")
        path = self._path(src)
        if src.startswith("data:"):
            return self._own(attributes, inside, src)
        if path is None:
            return _tag("video", attributes, inside)
        known = self._clips.get(src)
        clip = known or self._judge(path)
        if known is None and clip.state == "linked" and self._embed:
            clip, address = self._put_in(clip, path)
            if address:
                self._clips[src] = clip
                video = _tag("video", {**attributes, "src": self._hold(address)}, inside)
                return f'{video}<a id="clip-{clip.run_id}"></a>'
        self._clips[src] = clip
        if clip.state == "linked":
            return _tag("video", {**attributes, "src": self._turned(path)}, inside)
        if clip.state == "inside":
            return f'<a class="kling-out" href="#clip-{clip.run_id}">Played further up in this page.</a>'
        return _describe(clip)

    def _own(self, attributes: dict[str, str], inside: str, src: str) -> str:
        """Keep a clip that the notebook itself holds."""
        held = _OWN.fullmatch(src)
        if held is None or len(held[1]) % 4:
            return _tag("video", attributes, inside)
        video = _tag("video", {**attributes, "src": self._hold(src)}, inside)
        data = base64.b64decode(held[1])
        record = self._bytes.get(hashlib.sha256(data).hexdigest())
        if record is None or record.media is None:
            # An animation of another package, say: none of ours, and clean.
            return video
        clip = PageClip(file=record.media.file, state="inside", size=len(data), run_id=record.id)
        if len(src) > self._left:
            clip = self._too_much(clip, len(src))
            self._clips[record.media.sha256] = clip
            return _describe(clip)
        self._left -= len(src)
        self._clips[record.media.sha256] = clip
        return video

    def _judge(self, path: Path) -> PageClip:
        record = self._records.get(path.name)
        if record is None or record.media is None:
            return PageClip(file=path.name, state="no receipt", why="not in this page, it has no receipt")
        clip = PageClip(
            file=path.name, state="missing", run_id=record.id, why="not in this page, it is not here"
        )
        try:
            size = path.stat().st_size
            same = size == record.media.size and file_sha256(path) == record.media.sha256
        except OSError:
            return clip
        if not same:
            return replace(
                clip, state="changed", size=size, why="not in this page, it is not the file of its receipt"
            )
        return replace(clip, state="linked", size=size, why="")

    def _put_in(self, clip: PageClip, path: Path) -> tuple[PageClip, str]:
        media = self._records[path.name].media
        adds = growth(clip.size, media.container if media else "mp4")
        if adds > self._left:
            return self._too_much(clip, adds), ""
        data = path.read_bytes()
        # Read once more than it was checked: between the two it may have been replaced.
        if media is None or hashlib.sha256(data).hexdigest() != media.sha256:
            return replace(clip, state="changed", why="not in this page, it changed while it was read"), ""
        self._left -= adds
        return replace(clip, state="inside"), data_address(data, media.container)

    def _too_much(self, clip: PageClip, adds: int) -> PageClip:
        most = size_words(self._most)
        why = f"not in this page, it would add {size_words(adds)} and {most} is the most"
        return replace(clip, state="left out", why=why)

    # --- links and pictures --------------------------------------------------------------------------------

    def _link(self, attributes: dict[str, str], inside: str) -> str:
        path = self._path(attributes.get("href", ""))
        if path is None or path.suffix.lower() not in CLIP_SUFFIXES:
            return _tag("a", attributes, inside)
        # A page with its clips inside goes where nothing lies beside it.
        return "<a>" if self._embed else _tag("a", {**attributes, "href": self._turned(path)}, inside)

    def _image(self, attributes: dict[str, str], inside: str) -> str:
        src = attributes.get("src")
        path = self._path(src or "")
        if path is not None:
            src = self._picture(path) if self._embed else self._turned(path)
            self._pictures_out += not src
        if not src:
            return f"<i>[{html.escape(attributes.get('alt') or 'a picture')}]</i>"
        return _tag("img", {**attributes, "src": src}, inside)

    def _picture(self, path: Path) -> str:
        from PIL import Image

        try:
            real = path.resolve()
            if not real.is_relative_to(self._folder) or real.stat().st_size > min(_MOST_PICTURE, self._left):
                return ""
            data = real.read_bytes()
            kind = "svg+xml" if real.suffix == ".svg" and b"<svg" in data[:2000] else None
            if kind is None:
                with Image.open(real) as image:
                    kind = _PICTURES.get(image.format or "")
        except (OSError, ValueError, Image.DecompressionBombError):
            return ""
        if kind is None:
            return ""
        self._left -= len(data) * 4 // 3
        return self._hold(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}")

    def _path(self, address: str) -> Path | None:
        """Give the file that a relative address means; None for any other."""
        plain = unquote(address.partition("#")[0].partition("?")[0])
        if not plain or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address) or plain.startswith(("/", "\\")):
            return None
        return None if "\0" in plain else self._folder / plain

    def _turned(self, path: Path) -> str:
        """Write the address of a file as the page reaches it."""
        return quote(Path(os.path.relpath(path, self._page)).as_posix(), errors="replace")


def _describe(clip: PageClip) -> str:
    return f'<span class="kling-out">{html.escape(f"{clip.file}: {clip.why}.")}</span>'


def _tag(name: str, attributes: dict[str, str], inside: str) -> str:
    held = "".join(f' {key}="{html.escape(value)}"' for key, value in attributes.items())
    return f"<{name}{held}>{inside}"
