"""The file hosts of both providers: signed and expiring for Runflow, public for RunComfy.

Invariants:
    * A Runflow link works only with its own `kling_sig=` and before its date; a link of RunComfy is public.
    * A file is what its run asked for, whole and with Range support, unless a switch says otherwise.
    * A key that reaches a file host is counted as a leak: neither contract ever sends it there.
"""

from __future__ import annotations

import gzip
import hmac
import io
import json
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

from PIL import Image
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from kling_nb.sandbox.bodies import FILE_LENGTH, Lying
from kling_nb.sandbox.replies import Trickle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from kling_nb.sandbox.faults.recording import Answer
    from kling_nb.sandbox.faults.switches import Wire
    from kling_nb.sandbox.runs import Run
    from kling_nb.sandbox.state import ProviderState


def origin(request: Request) -> str:
    """Scheme, host and port by which the client reached the sandbox."""
    return f"{request.url.scheme}://{request.url.netloc}"


def link(provider: ProviderState, request: Request, run: Run, number: int = 0) -> str:
    """The address of a run's file, freshly signed on Runflow.

    Args:
        provider: Signs.
        request: Its host is the host of the link, so that a link works from wherever the API did.
        run: A run that succeeded.
        number: Which of several outputs.

    Returns:
        An absolute URL.
    """
    path = f"/media/{run.wire}/{run.id}/{number}.mp4"
    if run.wire == "runflow":
        expires = int(provider.date().timestamp() + provider.faults.number(run.wire, "link_lifetime_s"))
        path = f"{path}?expires={expires}&kling_sig={provider.sign(path, expires)}"
    return origin(request) + path


async def replay(provider: ProviderState, request: Request, answer: Answer, run: Run | None) -> Response:
    """One answer of a recording.

    Args:
        provider: Has the clips.
        request: Its host is the host of the addresses.
        answer: As `Recording` describes it. In its texts `$id`, `$clip`, `$path` (the clip without host),
            `$host`, `$second` (another video), `$still` (a picture), `$size` and `$last` (of the clip) and
            `$soon` (two seconds after the provider's own date) are filled in.
        run: The run it is about; None where there is none, and nothing is filled in.

    Returns:
        The response.
    """
    headers: dict[str, str] = dict(answer.get("headers", {}))
    text = answer["text"] if "text" in answer else json.dumps(answer["body"]) if "body" in answer else ""
    content = b""
    if run is not None:
        file = await provider.clips.get(run.plan)
        content = file.read_bytes() if answer.get("clip") else b""
        values = _values(provider, request, run, len(content))
        text = _filled(text, values)
        headers = {name: _filled(value, values) for name, value in headers.items()}
        if answer.get("status") in {401, 403}:
            provider.keyed.add(run.id)
    if headers.get("Content-Encoding") == "gzip":
        content = gzip.compress(content)
    kind = "application/json" if "body" in answer else None
    return Response(content or text, answer.get("status", 200), headers, media_type=kind)


def _values(provider: ProviderState, request: Request, run: Run, size: int) -> dict[str, str]:
    clip, here = link(provider, request, run), origin(request)
    return {
        "$id": run.id,
        "$clip": clip,
        "$path": clip.removeprefix(here),
        "$host": request.url.netloc,
        "$second": link(provider, request, run, 1),
        "$still": f"{here}/media/{run.wire}/{run.id}/still.jpg",
        "$size": str(size),
        "$last": str(size - 1),
        "$soon": format_datetime(provider.date() + timedelta(seconds=2), usegmt=True),
    }


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


async def played(provider: ProviderState, request: Request, run: Run, part: str) -> Response | None:
    """The recorded answer about a run, or None where the documented one is due.

    Args:
        provider: Has the recording.
        request: As for `replay`.
        run: The run that is asked for.
        part: One of `recording.PARTS`.

    Returns:
        The response.
    """
    answer = provider.faults.take(run.wire, part, run.id)
    return None if answer is None else await replay(provider, request, answer, run)


class _Whole(FileResponse):
    """A file from a host that knows no ranges."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [pair for pair in scope["headers"] if pair[0] not in {b"range", b"if-range"}]
        del self.headers["accept-ranges"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _refuse(status: int, headers: Mapping[str, str]) -> Response:
    return PlainTextResponse(
        {403: "AccessDenied", 404: "NoSuchKey"}.get(status, "Error"), status, dict(headers)
    )


def routes(provider: ProviderState) -> list[Route]:
    """The routes under which files are served.

    Args:
        provider: Knows the runs and the clips.

    Returns:
        One route for both wires.
    """

    async def fetch(request: Request) -> Response:
        wire: Wire = "runflow" if request.path_params["wire"] == "runflow" else "runcomfy"
        provider.count(wire, "downloads")
        asked_for = request.path_params["run"] in provider.keyed
        if "authorization" in request.headers and not asked_for:
            provider.count(wire, "token_leaks")
        await provider.gate(wire, "download", _refuse)
        run = provider.runs.find(wire, request.path_params["run"])
        if run is not None:
            await provider.settle(run)
        if run is None or run.state(provider.clock()) != "succeeded" or request.path_params["wire"] != wire:
            return _refuse(404, {})
        if wire == "runflow" and not _signed(provider, request):
            return _refuse(403, {})
        file = await provider.clips.get(run.plan)
        if number := request.path_params["number"]:
            # Other bytes, as another video has: an empty box more.
            return Response(file.read_bytes() + number * b"\0\0\0\x08free", media_type="video/mp4")
        return await played(provider, request, run, "download") or _dress(provider, wire, file)

    async def still(_request: Request) -> Response:
        picture = io.BytesIO()
        Image.new("RGB", (64, 36), "teal").save(picture, "JPEG")
        return Response(picture.getvalue(), media_type="image/jpeg")

    return [
        Route("/media/{wire}/{run}/{number:int}.mp4", fetch, methods=["GET", "HEAD"]),
        Route("/media/{wire}/{run}/still.jpg", still),
    ]


def _signed(provider: ProviderState, request: Request) -> bool:
    query = request.query_params
    expires = query.get("expires", "")
    if not (expires.isascii() and expires.isdecimal() and len(expires) < 20):
        return False
    good = hmac.compare_digest(
        provider.sign(request.url.path, int(expires)).encode(), query.get("kling_sig", "").encode()
    )
    return good and provider.date().timestamp() <= int(expires)


def _dress(provider: ProviderState, wire: Wire, file: Path) -> Response:
    make = FileResponse if provider.faults.word(wire, "ranges") == "on" else _Whole
    reply: Response = make(file, media_type="video/mp4")
    if provider.faults.fires(wire, "download_trickle"):
        reply = Trickle(reply, provider.faults.number(wire, "trickle_bytes_s"), provider.pause)
    if provider.faults.fires(wire, "download_oversized"):
        return Lying(reply, lambda _: FILE_LENGTH)
    return provider.spoil(wire, "download", reply)
