"""An epoch of shuffled records (two numbers, a label, a text, a vector), with no worker and with two, beside LitData."""

import sys
from functools import partial
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import BATCH, epoch, made, record

ROWS = 100_000
WORKERS = (0, 2)


def written(library: Any, name: str) -> str:
    """Return the folder of the records as `library` writes them."""

    def make(folder: str) -> None:
        library.optimize(record, list(range(ROWS)), f"{folder}/data", chunk_bytes="64MB", num_workers=2, verbose=False)

    return f"{made(f'records-{name}', make)}/data"


def rows_of(batch: Any) -> int:
    """Return how many records a batch has, after a look at its form."""
    if not {"id", "score", "label", "text", "vector"} <= set(batch) or batch["vector"].shape[1] != 16:
        raise RuntimeError(f"a batch has {list(batch)}")
    return len(batch["text"])


def read(library: Any, name: str, workers: int) -> dict[str, float]:
    """Return the CPU time of an epoch through a library's streaming loader."""
    dataset = library.StreamingDataset(written(library, name), shuffle=True)
    return epoch(library.StreamingDataLoader(dataset, batch_size=BATCH["records"], num_workers=workers), rows_of, ROWS)


def leyden(workers: int) -> dict[str, float]:
    """Read with Leyden."""
    import leyden.data as ld

    return read(ld, "leyden", workers)


def litdata(workers: int) -> dict[str, float]:
    """Read with LitData."""
    import litdata as ld

    return read(ld, "litdata", workers)


BENCHMARK = Benchmark(
    claim="shuffled records cost an eighth of LitData's CPU time, and workers are no cliff",
    variants={
        **{f"leyden, {workers} workers": Variant(run=partial(leyden, workers), cores=2) for workers in WORKERS},
        **{f"litdata, {workers} workers": Variant(run=partial(litdata, workers), peer="litdata", cores=2) for workers in WORKERS},
    },
    comparisons=[
        Comparison(of="leyden, 0 workers", to="litdata, 0 workers", limit=1 / 8),
        Comparison(of="leyden, 2 workers", to="leyden, 0 workers", limit=1 / 0.3),
        Comparison(of="leyden, 2 workers", to="litdata, 2 workers"),
        *(Comparison(of=f"leyden, {workers} workers", to=f"litdata, {workers} workers", metric="wall") for workers in WORKERS),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_records"))
