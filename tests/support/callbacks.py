"""A receiver of callbacks on loopback, and calls to it that are signed as Runflow signs them."""

import hashlib
import hmac
import json
import threading
from contextlib import contextmanager

import uvicorn
from pydantic import SecretStr

from kling_nb.team.answers import PATH
from kling_nb.team.callback_server import callback_app
from kling_nb.team.callbacks import Receiver

SECRET = "a-secret-of-tests"


def body_of(run_id, *, event="run.completed", ours="", **more):
    """A callback as it stands in Runflow's documentation."""
    metadata = {"kling_nb": {"run": ours}} if ours else None
    status = {"run.completed": "succeeded", "run.failed": "failed"}.get(event, "cancelled")
    return json.dumps(
        {"event": event, "run_id": run_id, "status": status, "metadata": metadata, **more}
    ).encode()


def sign(raw, secret=SECRET):
    return hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def secrets_of(*texts):
    return lambda: [SecretStr(text) for text in texts]


@contextmanager
def receiving(ledger, *secrets):
    """Serve a receiver, or one for a ledger; gives the address to be called at."""
    receiver = ledger
    if not isinstance(ledger, Receiver):
        opened = ledger if callable(ledger) else lambda: ledger
        receiver = Receiver(opened, secrets=secrets_of(*secrets or (SECRET,)))
    config = uvicorn.Config(callback_app(receiver), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{PATH}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
