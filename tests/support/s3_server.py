"""A real S3 server (moto's) in a process of its own, on a free port of this computer."""

import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.ports import free_port, wait_for_port

_ATTEMPTS = 3  # another process may take the free port first


class S3Server(NamedTuple):
    """Where the server listens, and options that open it."""

    endpoint: str

    @property
    def options(self) -> dict[str, object]:
        return {"endpoint_url": self.endpoint, "aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}

    @property
    def environ(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=30).close()
        return f"s3://{name}"


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Run a server for the length of the block; its output goes to `log`."""
    for attempt in range(_ATTEMPTS):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output
            )
        try:
            wait_for_port(port)
            if process.poll() is not None and attempt + 1 < _ATTEMPTS:
                continue
            yield S3Server(f"http://127.0.0.1:{port}")
            return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"the S3 server does not start: {log.read_text()}")
