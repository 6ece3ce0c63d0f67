"""What live views have in common: their scripts, bytes of clips, and an output that empties itself.

Invariants: a page gets only clips that its view was made for, and only bytes that were checked against the
recorded SHA-256; no path, address or key goes to a page; a script is a file of this package and is never
put together from foreign text; `anywidget` loads on first use.
"""

import atexit
import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from kling_nb.errors import one_line
from kling_nb.files import open_plain
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.words import status_word

if TYPE_CHECKING:
    from kling_nb.media.folder import Store

__all__ = [
    "EMPTY",
    "ClipSource",
    "LiveView",
    "answer_at_once",
    "display_widget",
    "make_widget",
    "set_trait",
    "static_text",
    "watched",
]

#: A clip beyond this stays on disk: a page holds what it plays in memory.
CLIP_BYTES = 256 * 1024 * 1024

#: Of one message. Servers and proxies take a megabyte everywhere, and other messages get through between two.
CHUNK_BYTES = 1024 * 1024
#: What an output is at its end.
EMPTY = {"text/html": "", "text/plain": ""}

# QuickTime files that browsers play at all they play as MP4.
_TYPES = {"webm": "video/webm", "mkv": "video/x-matroska"}
_open: "weakref.WeakSet[LiveView]" = weakref.WeakSet()


def watched() -> bool:
    """Whether there is a kernel with a page that somebody looks at, so that a live view makes sense.

    Example:
        >>> watched()
        False
    """
    from kling_nb.session.api import current, in_kernel

    here = current().surroundings()
    return in_kernel() and here.live and not here.headless


def static_text(*names: str) -> str:
    """Join files of `viewers/` into one text: a widget's module is one text, so there is nothing to import.

    Args:
        *names: In order; each may use what stands in those before it, and only the last one exports.

    Returns:
        The text.

    Example:
        >>> static_text("shared/clips.js").startswith("//")
        True
    """
    folder = files("kling_nb.notebook.viewers")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def make_widget(name: str, scripts: Sequence[str], styles: Sequence[str], state: Mapping[str, Any]) -> Any:
    """Make a widget of this package.

    Args:
        name: Its kind, one word; style sheets are told apart by it.
        scripts: Files of `viewers/`; the last one has the `export default { render }`.
        styles: Files of `viewers/`.
        state: What the page is told, as plain JSON: `model.get("state")`.

    Returns:
        An `anywidget.AnyWidget` with the one trait `state`.

    Example:
        >>> make_widget("compare", ["shared/clips.js"], ["shared/live.css"], {"clips": []}).state
        {'clips': []}
    """
    widget = _kind(name, tuple(scripts), tuple(styles))(state=dict(state))
    answer_at_once(widget)
    return widget


@cache
def _kind(name: str, scripts: tuple[str, ...], styles: tuple[str, ...]) -> Any:
    import anywidget
    import traitlets

    inside = {
        "_esm": static_text(*scripts),
        "_css": static_text(*styles),
        "state": traitlets.Dict().tag(sync=True),
        "__module__": __name__,
    }
    return type(f"Kling{name.capitalize()}", (anywidget.AnyWidget,), inside)


def answer_at_once(widget: Any) -> None:
    """Let messages of a widget through while a cell blocks.

    ipykernel 7.4 sends a browser's message to the subshell that published last on its comm, which for a
    widget made in a cell is the blocked main one, although JupyterLab asked for another (measured). The
    attribute is private, hence the guard; older and later kernels do without.

    Args:
        widget: One that takes clicks or asks for bytes.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 - see above


def set_trait(widget: Any, name: str, value: Any) -> None:
    """Set what has changed only: every change is a message to each page."""
    if getattr(widget, name) != value:
        setattr(widget, name, value)


def display_widget(widget: Any) -> Any:
    """Put a widget below the cell; nothing of it is kept for a page that knows no widgets.

    Args:
        widget: Of this package or of ipywidgets.

    Returns:
        The handle of that output.
    """
    from IPython.display import DisplayHandle

    made = widget._repr_mimebundle_()
    bundle = made[0] if isinstance(made, tuple) else made
    # A name that a restarted kernel would give again is that of an old output in the page.
    handle = DisplayHandle()
    handle.display({**bundle, "text/plain": ""}, raw=True)
    return handle


class ClipSource:
    """The clips that one view may play, sent piece by piece when its page asks.

    The page says `{"kind": "clip", "id": ID, "at": OFFSET}` and gets the same back with `size`, `type` and
    one buffer of at most `CHUNK_BYTES`, or with `why`: words that stand where the clip would.

    Args:
        records: The runs.
        store: Gives the store of a media folder, e.g. `session.engine().store`.
        limit_bytes: A larger clip is not sent.

    Example:
        >>> ClipSource([], store=Store).answer({"kind": "clip", "id": "kl7m2q", "at": 0})  # doctest: +SKIP
        ({'kind': 'clip', 'id': 'kl7m2q', 'at': 0, 'why': 'This view has no such clip.'}, [])
    """

    def __init__(
        self,
        records: Sequence[RunRecord],
        *,
        store: "Callable[[str], Store]",
        limit_bytes: int = CLIP_BYTES,
    ) -> None:
        self._records = {record.id: record for record in records}
        self._store = store
        self._limit = limit_bytes

    def why_not(self, run_id: str) -> str | None:
        """Say in a sentence why a clip cannot be played, or None where it can.

        Args:
            run_id: Ours.

        Returns:
            Plain text. The clip is read to the end for this, once, and again only after a change.
        """
        record = self._records.get(run_id)
        if record is None:
            return "This view has no such clip."
        media = record.media
        if record.status is not RunStatus.SUCCEEDED or media is None:
            again = " Run this cell again when it is done." if record.status.pending else ""
            return f"There is no clip: the run is {status_word(record.status)}.{again}"
        store = self._store(record.folder)
        if store.path(record) is None:
            return f"The clip is not here: {one_line(media.file)} is missing from the media folder."
        if not store.verify(record):
            return (
                f"The clip is damaged or was replaced: {one_line(media.file)} has other bytes than recorded."
            )
        if media.size > self._limit:
            return (
                f"The clip is too large for a live view: {media.size / 1e6:,.0f} MB, "
                f"at most {self._limit / 1e6:,.0f} MB. It plays from its card."
            )
        return None

    def answer(self, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Answer a page that asks for a piece of a clip.

        Args:
            content: What it sent; it may be anything.

        Returns:
            The message and its buffers.
        """
        run_id, at = content.get("id"), content.get("at")
        reply: dict[str, Any] = {"kind": "clip", "id": run_id if isinstance(run_id, str) else "", "at": at}
        why = self.why_not(reply["id"])
        record = self._records.get(reply["id"])
        if why is not None or record is None or record.media is None:
            return {**reply, "why": why}, []
        size = record.media.size
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < size:
            return {**reply, "why": "The page asked for a piece that the clip does not have."}, []
        try:
            piece = self._read(record, at)
        except OSError as error:
            return {**reply, "why": f"The clip cannot be read: {error.strerror or type(error).__name__}."}, []
        kind = _TYPES.get(record.media.container, "video/mp4")
        return {**reply, "size": size, "type": kind}, [piece]

    def _read(self, record: RunRecord, at: int) -> bytes:
        path = self._store(record.folder).path(record)
        if path is None:
            raise FileNotFoundError(2, "it has just gone")
        with open_plain(path.resolve(strict=True)) as file:
            file.seek(at)
            return file.read(CHUNK_BYTES)

    def serve(self, widget: Any) -> None:
        """Answer the page of this widget from now on.

        Args:
            widget: From `make_widget`.
        """

        def on_message(_widget: object, content: Any, _buffers: object) -> None:
            if isinstance(content, Mapping) and content.get("kind") == "clip":
                message, buffers = self.answer(content)
                widget.send(message, buffers)

        widget.on_msg(on_message)


class LiveView:
    """A widget in an output of its own, which is emptied when it is closed and when the kernel ends.

    A saved notebook cannot show a widget without its kernel, so what is worth keeping stands in another
    output.

    Args:
        widget: From `make_widget`. Its page closes it by sending `{"kind": "close"}`.

    Example:
        >>> LiveView(widget).show()  # doctest: +SKIP
    """

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self._handle: Any = None
        widget.on_msg(self._on_message)

    def show(self) -> None:
        """Put it below the cell; to be called in the cell."""
        self._handle = display_widget(self.widget)
        _open.add(self)

    def close(self) -> None:
        """Empty the output and forget the widget; twice does no harm."""
        _open.discard(self)
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.update(EMPTY, raw=True)
            self.widget.close()

    def _on_message(self, _widget: object, content: Any, _buffers: object) -> None:
        if isinstance(content, Mapping) and content.get("kind") == "close":
            self.close()


@atexit.register
def _close_all() -> None:
    for view in list(_open):
        # The page may be gone already, and so may the connection to it.
        with contextlib.suppress(Exception):
            view.close()
