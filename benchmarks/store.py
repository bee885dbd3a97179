"""An object store with the latency and the bandwidth of a real one: moto's S3 server behind a proxy, in a process of its own.

It is started with the Python of Leyden's environment, so that peers in environments of their own can read from it. What it
serves is kept in the proxy's memory: the second reading of a byte costs the store next to nothing.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DELAY, BANDWIDTH = 0.05, 80_000_000.0  # seconds before each answer, bytes a second of each connection
BUCKET = "benchmark"


@contextlib.contextmanager
def store_with(folder: str) -> Iterator[dict[str, Any]]:
    """Run a store that holds a folder's files below `s3://benchmark/data`; yield boto3's options for it.

    Args:
        folder: What it serves.
    """
    command = [str(ROOT / ".venv/bin/python"), "-m", "benchmarks.store", folder]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.communicate()  # its standard input ends, and so does it


def main(folder: str) -> None:
    """Serve until the standard input ends."""
    from leyden.core.storage import open_storage
    from tests.support.s3_server import s3_server
    from tests.support.slow_store import slow_store

    with tempfile.TemporaryDirectory() as log, s3_server(Path(log) / "log") as server, slow_store(server.endpoint) as proxy:
        proxy.keep = True
        storage = open_storage(f"{server.make_bucket(BUCKET)}/data", server.options)
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            storage.write(file.relative_to(folder).as_posix(), file.read_bytes())
        proxy.delay, proxy.bandwidth = DELAY, BANDWIDTH
        print(json.dumps(proxy.server.options), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
