"""What others would use instead, each in a process of its own: `python tests/benchmarks/peers.py NAME JSON`.

They submit, wait and, but for `clips` and `durable`, download nothing; only `durable` writes anything down.
`fal-client` and `runwayml` wait as they do by themselves, every 0.1 s and every 6 s; the bare loops and the
thread read once a second.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import durable
import measure

READ_EVERY_S = 1.0
_PROMPT = "A red fox crosses fresh snow at dawn, number {}"
_RUNFLOW = "/runflow/v1/models/kuaishou/kling-video/v3/pro/text-to-video/runs"
_RUNCOMFY = "/runcomfy/v1/models/kling/kling-3.0/pro/text-to-video"
_TIMES_OUT = 600


def _calls(given: dict) -> tuple[str, str, str]:
    """Where to post, where to read, and the field of the id."""
    if given["wire"] == "runflow":
        return given["origin"] + _RUNFLOW, given["origin"] + "/runflow/v1/runs/{}", "id"
    return given["origin"] + _RUNCOMFY, given["origin"] + "/runcomfy/v1/requests/{}/status", "request_id"


def _body(given: dict, number: int) -> dict:
    fields = {"prompt": _PROMPT.format(number), "duration": 3}
    return {"input": {**fields, "duration": "3"}} if given["wire"] == "runflow" else fields


def _ended(answer: dict) -> bool:
    return answer.get("status_code") == "succeeded" or answer.get("status") == "completed"


async def _aiohttp(given: dict) -> dict:
    import aiohttp

    post, read, name = _calls(given)
    every, result = READ_EVERY_S * given["scale"], {}
    connector = aiohttp.TCPConnector(limit=60)
    async with aiohttp.ClientSession(connector=connector) as http:
        meter = measure.Meter()

        async def one(number: int) -> None:
            async with http.post(post, json=_body(given, number)) as reply:
                run_id = (await reply.json())[name]
            while True:
                await asyncio.sleep(every)
                async with http.get(read.format(run_id)) as reply:
                    if _ended(await reply.json()):
                        break
            if given.get("clips"):
                async with http.get(f"{given['origin']}/clips/{run_id}.mp4") as reply:
                    await reply.read()
            result[number] = time.time()

        await asyncio.gather(*(one(number) for number in range(given["runs"])))
        return {**meter.end(), "got": result}


async def _durable(given: dict) -> dict:
    import aiohttp

    post, read, name = _calls(given)
    every, result = READ_EVERY_S * given["scale"], {}
    home = Path.cwd()
    ledger, folder = durable.Ledger(home / "floor.db"), durable.Folder(home / "clips")
    # A connection that is used again may be closed by the server just then, and the POST would be unclear.
    fresh = aiohttp.TCPConnector(limit=60, force_close=True)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=60)) as http,
        aiohttp.ClientSession(connector=fresh) as paid,
    ):
        meter = measure.Meter()

        async def send(number: int) -> str:
            async with paid.post(post, json=_body(given, number)) as reply:
                return (await reply.json())[name]

        async def ended(run_id: str) -> None:
            while True:
                await asyncio.sleep(every)
                async with http.get(read.format(run_id)) as reply:
                    if _ended(await reply.json()):
                        return

        async def fetch(run_id: str) -> AsyncIterator[bytes]:
            async with http.get(f"{given['origin']}/clips/{run_id}.mp4") as reply:
                async for piece in reply.content.iter_any():
                    yield piece

        async def one(number: int) -> None:
            run_id = await durable.submit(str(number), ledger, folder, partial(send, number))
            if not given.get("submit"):
                await ended(run_id)
                await durable.save(str(number), ledger, folder, fetch(run_id))
            result[number] = time.time()

        await asyncio.gather(*(one(number) for number in range(given["runs"])))
        return {**meter.end(), "got": result}


def _threads(given: dict) -> dict:
    import requests

    post, read, name = _calls(given)
    every, result = READ_EVERY_S * given["scale"], {}
    meter = measure.Meter()

    def one(number: int) -> None:
        with requests.Session() as http:
            run_id = http.post(post, json=_body(given, number), timeout=60).json()[name]
            while True:
                time.sleep(every)
                if _ended(http.get(read.format(run_id), timeout=60).json()):
                    break
        result[number] = time.time()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(given["runs"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**meter.end(), "got": result}


async def _fal(given: dict) -> dict:
    import fal_client.client

    # Its address is https only; the benchmark's server speaks http.
    fal_client.client.QUEUE_URL_FORMAT = f"{given['origin']}/fal/"
    client, result = fal_client.AsyncClient(key="made-up"), {}
    meter = measure.Meter()

    async def one(number: int) -> None:
        handle = await client.submit("bench/kling", {"prompt": _PROMPT.format(number)})
        await handle.get(interval=0.1 * given["scale"])
        result[number] = time.time()

    await asyncio.gather(*(one(number) for number in range(given["runs"])))
    return {**meter.end(), "got": result}


async def _runway(given: dict) -> dict:
    import runwayml
    from runwayml.lib import polling

    polling.POLL_TIME *= given["scale"]
    polling.POLL_JITTER *= given["scale"]
    client, result = runwayml.AsyncRunwayML(api_key="made-up", base_url=f"{given['origin']}/runway"), {}
    meter = measure.Meter()

    async def one(number: int) -> None:
        prompt = _PROMPT.format(number)
        task = await client.text_to_video.create(
            model="gen4.5", prompt_text=prompt, ratio="1280:720", duration=5
        )
        await task.wait_for_task_output()
        result[number] = time.time()

    await asyncio.gather(*(one(number) for number in range(given["runs"])))
    return {**meter.end(), "got": result}


def main(name: str, given: dict) -> None:
    """Run one of them, and answer on standard output."""
    if name == "threads":
        measure.reply(_threads(given))
    work = {"aiohttp": _aiohttp, "clips": _aiohttp, "durable": _durable, "fal": _fal, "runway": _runway}[name]
    given["clips"] = name == "clips"

    async def limited() -> dict:
        return await asyncio.wait_for(work(given), _TIMES_OUT)

    measure.reply(asyncio.run(limited()))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
