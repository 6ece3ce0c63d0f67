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
from typing import TYPE_CHECKING

from PIL import Image
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from kling_nb.sandbox.bodies import FILE_LENGTH, Lying
from kling_nb.sandbox.replies import Trickle
from kling_nb.sandbox.state import account_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

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
    elsewhere = provider.faults.word(run.wire, "file_link")
    if elsewhere not in {"own", "path"}:
        return elsewhere
    path = f"/media/{run.wire}/{run.id}/{number}.mp4"
    if run.wire == "runflow":
        expires = int(provider.date().timestamp() + provider.faults.number(run.wire, "link_lifetime_s"))
        path = f"{path}?expires={expires}&kling_sig={provider.sign(path, expires)}"
    return path if elsewhere == "path" else origin(request) + path


def odd_body(provider: ProviderState, request: Request, run: Run, switch: str) -> Response | None:
    """The answer that a switch puts in place of the documented one, or None.

    Args:
        provider: Has the switches.
        request: Its host is the host of the addresses.
        run: A run that is over.
        switch: `ended_body` or `result_body`.

    Returns:
        The text of the switch as JSON, its placeholders filled in.
    """
    text = provider.faults.word(run.wire, switch)
    if text == "own":
        return None
    clip = link(provider, request, run)
    here = origin(request)
    still = f"{here}/media/{run.wire}/{run.id}/still.jpg"
    for name, value in {
        "$id": run.id,
        "$clip": clip,
        "$path": clip.removeprefix(here),
        "$still": still,
    }.items():
        text = text.replace(name, value)
    return Response(text, media_type="application/json")


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
        keyed = provider.faults.word(wire, "file_key") == "on"
        if "authorization" in request.headers and not keyed:
            provider.count(wire, "token_leaks")
        await provider.gate(wire, "download", _refuse)
        run = provider.runs.find(wire, request.path_params["run"])
        if keyed and (run is None or account_of(request) != run.account):
            return _refuse(401, {})
        if run is None or run.state(provider.clock()) != "succeeded" or request.path_params["wire"] != wire:
            return _refuse(404, {})
        if wire == "runflow" and not _signed(provider, request):
            return _refuse(403, {})
        file = await provider.clips.get(run.plan)
        if number := request.path_params["number"]:
            # Other bytes, as another video has: an empty box more.
            body = file.read_bytes() + number * b"\0\0\0\x08free"
            return Response(body, media_type=provider.faults.word(wire, "content_type"))
        return _odd(provider, wire) or _dress(provider, wire, file)

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


def _odd(provider: ProviderState, wire: Wire) -> Response | None:
    """An answer that is no video, if the switches ask for one."""
    if provider.faults.fires(wire, "download_html"):
        return Response("<!doctype html><html><body>Sign in to go on</body></html>", media_type="video/mp4")
    if provider.faults.fires(wire, "download_empty"):
        return Response(b"", media_type="video/mp4")
    if provider.faults.fires(wire, "download_redirect"):
        return RedirectResponse(provider.faults.word(wire, "redirect_to"), 302)
    return None


def _dress(provider: ProviderState, wire: Wire, file: Path) -> Response:
    kind = provider.faults.word(wire, "content_type")
    make = FileResponse if provider.faults.word(wire, "ranges") == "on" else _Whole
    reply: Response = make(file, media_type=kind)
    if kind == "none":
        del reply.headers["content-type"]
    if provider.faults.fires(wire, "download_gzip"):
        return Response(
            gzip.compress(file.read_bytes()), media_type=kind, headers={"content-encoding": "gzip"}
        )
    if provider.faults.fires(wire, "download_partial"):
        size = file.stat().st_size
        headers = {"content-range": f"bytes 0-{size - 1}/{size}"}
        return Response(file.read_bytes(), 206, headers, media_type=kind)
    if provider.faults.fires(wire, "download_trickle"):
        reply = Trickle(reply, provider.faults.number(wire, "trickle_bytes_s"), provider.pause)
    if provider.faults.fires(wire, "download_oversized"):
        return Lying(reply, lambda _: FILE_LENGTH)
    return provider.spoil(wire, "download", reply)
