"""Two ranks write a dataset to S3 together, and read it together: every sample once, every block fetched once.

    python examples/data/05_s3_two_ranks.py                                    # an S3 server on this computer
    torchrun --nproc-per-node 2 examples/data/05_s3_two_ranks.py --url s3://bucket/squares      # your own bucket

Without `--url` the script starts moto's S3 server (`pip install "moto[server]"`) and then itself, twice, by torchrun. A rank finds its
place in the environment that torchrun, srun and mpiexec set; it passes none to `optimize`, dataset or loader.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import leyden.data as ld

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}  # moto accepts any


def square(number: int) -> dict[str, Any]:
    """Return a sample of a number, 4 KB large."""
    return {"number": number, "noise": np.random.default_rng(number).random(512)}


def as_rank(args: argparse.Namespace) -> None:
    """Write with the other ranks, then read this rank's share of an epoch."""
    options = {**CREDENTIALS, "endpoint_url": args.endpoint} if args.endpoint else {}
    report = ld.optimize(square, range(args.samples), args.url, num_workers=1, storage_options=options, chunk_bytes="1MB")
    dataset = ld.StreamingDataset(
        args.url, cache_dir=Path(args.out) / "cache", storage_options=options, shuffle=True, drop_last=False, output="numpy"
    )
    numbers: list[int] = []
    with ld.StreamingDataLoader(dataset, batch_size=16, num_workers=args.workers) as loader:
        for batch in loader:
            numbers += batch["number"].tolist()
    rank = os.environ.get("RANK", "0")
    print(f"rank {rank}: version {report.version} has {report.num_rows} samples, of which {len(numbers)} came here", flush=True)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    Path(args.out, f"rank-{rank}.json").write_text(json.dumps({"numbers": numbers, "bytes": report.num_bytes}))


def main(args: argparse.Namespace) -> dict[str, int]:
    """Start a server and two ranks, and count what they read; return the counts."""
    out = Path(args.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with s3_server(out / "server.log") as endpoint:
        request = urllib.request.Request(f"{endpoint}/bucket", method="PUT")  # make a bucket
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        own = ["--url", "s3://bucket/squares", "--endpoint", endpoint, "--samples", str(args.samples), "--out", args.out]
        subprocess.run([*torchrun, __file__, *own], check=True)
    found = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(2)]
    seen = Counter(number for rank in found for number in rank["numbers"])
    cached = sum(path.stat().st_size for path in (out / "cache").rglob("*") if path.is_file())
    counts = {"missing": args.samples - len(seen), "twice": sum(count > 1 for count in seen.values())}
    print(f"both ranks together: {counts['missing']} samples missing, {counts['twice']} seen twice")
    print(f"dataset {found[0]['bytes']:,} bytes, cache of both ranks {cached:,} bytes")
    return {**counts, "bytes": found[0]["bytes"], "cached": cached}


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """Run moto's S3 server for the length of the block, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"the S3 server does not start:\n{log.read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a dataset to write and read, as one rank of several")
    parser.add_argument("--endpoint", help="of a store that is not Amazon's")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", default="runs/data/s3")
    return parser


if __name__ == "__main__":
    given = arguments().parse_args()
    if given.url:
        as_rank(given)
    else:
        main(given)
