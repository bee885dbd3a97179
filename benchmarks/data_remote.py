"""From a store with 50 ms per request and 80 MB/s per connection, cache empty: the first batch, and a whole epoch of 246 MB.

MosaicML's StreamingDataset is the peer: LitData 0.2.76 cannot read from a store without TLS.
"""

import os
import shutil
import sys
import tempfile
import time
from functools import partial
from typing import Any

from benchmarks import data_peers
from benchmarks.data_tokens import written
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.store import BUCKET, store_with
from benchmarks.streams import BATCH, LENGTH, ROWS, made, token_file

ORDERS = {"in order": False, "shuffled": True}


def read(library: Any, name: str, *, shuffle: bool) -> dict[str, float]:
    """Return the seconds until the first batch, from the opening of the dataset on, and those of the whole epoch."""
    import torch  # noqa: F401 - not what is measured

    with store_with(written(library, name)) as options:
        epoch(library, options, shuffle=shuffle)  # the store has everything in memory now, and what is imported at first use is
        return epoch(library, options, shuffle=shuffle)


def epoch(library: Any, options: dict[str, Any], *, shuffle: bool) -> dict[str, float]:
    """Open the dataset with an empty cache, and read all of it."""
    cache = tempfile.mkdtemp(prefix="benchmark-cache-")
    loader = library.TokensLoader(block_size=LENGTH)
    try:
        start = time.perf_counter()
        dataset = library.StreamingDataset(
            f"s3://{BUCKET}/data", cache_dir=cache, item_loader=loader, shuffle=shuffle, storage_options=options
        )
        loader = library.StreamingDataLoader(dataset, batch_size=BATCH["tokens"])
        batches = iter(loader)
        found = len(next(batches))
        first = time.perf_counter() - start
        found += sum(len(batch) for batch in batches)
        if found != ROWS:
            raise RuntimeError(f"an epoch had {found:,} samples instead of {ROWS:,}")
        return {"first": first, "epoch": time.perf_counter() - start}
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def leyden(*, shuffle: bool) -> dict[str, float]:
    """Read with Leyden."""
    import leyden.data as ld

    return read(ld, "leyden", shuffle=shuffle)


def mosaicml(*, shuffle: bool) -> dict[str, float]:
    """Read MDS shards with MosaicML."""
    data_peers.without_torchvision()
    import numpy as np
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    tokens = np.load(token_file(), mmap_mode="r")

    def write(folder: str) -> None:
        with MDSWriter(out=f"{folder}/data", columns={"tokens": f"ndarray:int32:{LENGTH}"}) as out:
            for row in tokens:
                out.write({"tokens": np.array(row)})

    def once() -> dict[str, float]:
        local = tempfile.mkdtemp(prefix="benchmark-cache-")
        try:
            start = time.perf_counter()
            dataset = StreamingDataset(remote=f"s3://{BUCKET}/data", local=local, shuffle=shuffle, batch_size=BATCH["tokens"])
            batches = iter(DataLoader(dataset, batch_size=BATCH["tokens"]))
            found = len(next(batches)["tokens"])
            first = time.perf_counter() - start
            found += sum(len(batch["tokens"]) for batch in batches)
            if found != ROWS:
                raise RuntimeError(f"an epoch had {found:,} samples instead of {ROWS:,}")
            return {"first": first, "epoch": time.perf_counter() - start}
        finally:
            shutil.rmtree(local, ignore_errors=True)

    with store_with(f"{made('remote-mosaicml', write)}/data") as options:
        os.environ["S3_ENDPOINT_URL"] = options["endpoint_url"]
        os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "benchmark"
        once()
        return once()


BENCHMARK = Benchmark(
    claim="the first batch comes within 0.2 s in order and 0.3 s shuffled, an epoch within a second",
    variants={
        **{f"leyden {name}": Variant(run=partial(leyden, shuffle=shuffle), cores=2) for name, shuffle in ORDERS.items()},
        **{
            f"mosaicml {name}": Variant(run=partial(mosaicml, shuffle=shuffle), peer="mosaicml", cores=2)
            for name, shuffle in ORDERS.items()
        },
    },
    comparisons=[
        Comparison(of="leyden in order", metric="first", limit=0.2),
        Comparison(of="leyden shuffled", metric="first", limit=0.3),
        Comparison(of="leyden in order", metric="epoch", limit=1.0),
        Comparison(of="leyden shuffled", metric="epoch", limit=1.0),
        *(Comparison(of=f"leyden {name}", to=f"mosaicml {name}", metric=metric) for metric in ("first", "epoch") for name in ORDERS),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_remote"))
