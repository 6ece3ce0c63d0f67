"""S3 on loopback: moto in a process of its own, and what a client needs to reach it."""

import os
import subprocess
import sys
from contextlib import contextmanager

#: Made up; it must appear nowhere.
SECRET = "made-up-secret-4Kq9"
#: Moto speaks S3's own wire; its address is its first line.
MOTO = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextmanager
def bucket(name, folder=None):
    """Serve a bucket, with what is in a folder; gives the variables by which clients reach it."""
    child = subprocess.Popen(
        [sys.executable, "-c", MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        environment = {
            "AWS_ENDPOINT_URL": child.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        fill = "import sys, fsspec; s3 = fsspec.filesystem('s3'); s3.mkdir(sys.argv[1])\n"
        fill += "[s3.put(folder, sys.argv[1] + '/clips', recursive=True) for folder in sys.argv[2:]]"
        subprocess.run(
            [sys.executable, "-c", fill, name, *([f"{folder}/"] if folder else [])],
            check=True,
            env={**os.environ, **environment},
            timeout=60,
        )
        yield environment
    finally:
        child.communicate(timeout=30)
