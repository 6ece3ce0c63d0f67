"""A sandbox on a thread of its own with a clock that only moves when told: for the sandbox's tests."""

import asyncio
import threading

import httpx

from kling_nb.sandbox.serve import Sandbox

#: Longer than any load of the machine lasts: it only ends what hangs.
WAIT_S = 300
RUNFLOW_MODEL = "kuaishou/kling-video/v3/pro/text-to-video"
RUNCOMFY_MODEL = "kling/kling-3.0/pro/text-to-video"


class Bench:
    """Starts on entering; every client it gave out is closed on leaving."""

    def __init__(self, **options):
        self.now = 1000.0
        self.options = {"clock": lambda: self.now, "seed": 7, **options}
        self.clients = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="bench")

    def __enter__(self):
        self.thread.start()
        try:
            self.sandbox = self.run(Sandbox.start(**self.options))
        except BaseException:
            self.end()
            raise
        self.http = self.client("good-key")
        self.bare = self.client(None)
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.close()
        self.run(self.sandbox.stop())
        self.end()

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def run(self, coroutine, timeout=WAIT_S):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def client(self, key):
        headers = {} if key is None else {"Authorization": f"Bearer {key}".strip()}
        client = httpx.Client(headers=headers, timeout=WAIT_S, trust_env=False, verify=False)
        self.clients.append(client)
        return client

    def advance(self, seconds):
        """Let simulated time pass, then let files that are being made be ready."""
        self.now += seconds
        self.run(self.sandbox.settled())

    def faults(self, **settings):
        answer = self.bare.post(f"{self.sandbox.url}/_sandbox/faults", json=settings)
        assert answer.status_code == 200, answer.text

    def stats(self):
        return self.bare.get(f"{self.sandbox.url}/_sandbox/stats").json()

    def flow(self, *, http=None, headers=None, envelope=None, **given):
        """Submit to Runflow; give `prompt=None` to leave one out."""
        sent = {"prompt": "a red fox", "duration": "3", "generate_audio": False, **given}
        body = {"input": {k: v for k, v in sent.items() if v is not None}, **(envelope or {})}
        url = f"{self.sandbox.runflow}/v1/models/{RUNFLOW_MODEL}/runs"
        return (http or self.http).post(url, json=body, headers=headers)

    def flow_run(self, run_id, http=None):
        return (http or self.http).get(f"{self.sandbox.runflow}/v1/runs/{run_id}")

    def flow_list(self, **query):
        return self.http.get(f"{self.sandbox.runflow}/v1/runs", params=query)

    def comfy(self, *, http=None, model=RUNCOMFY_MODEL, **given):
        """Submit to RunComfy; give `prompt=None` to leave one out."""
        sent = {"prompt": "a red fox", "duration": 3, "sound": False, **given}
        body = {k: v for k, v in sent.items() if v is not None}
        return (http or self.http).post(f"{self.sandbox.runcomfy}/v1/models/{model}", json=body)

    def comfy_get(self, run_id, what, http=None, **query):
        url = f"{self.sandbox.runcomfy}/v1/requests/{run_id}/{what}"
        return (http or self.http).get(url, params=query)

    def comfy_result(self, run_id, **query):
        return self.comfy_get(run_id, "result", **query).json()

    def finished(self, wire):
        """Submit, let all the time pass, and return the id and the link of the file."""
        if wire == "runflow":
            run_id = self.flow().json()["id"]
            self.advance(100)
            return run_id, self.flow_run(run_id).json()["output"]["outputs"][0]["url"]
        run_id = self.comfy().json()["request_id"]
        self.advance(100)
        return run_id, self.comfy_result(run_id)["output"]["video"]
