"""An epoch of shuffled windows of tokens, with no worker and with two, beside LitData and a loop of numpy slices."""

import sys
from functools import partial
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import BATCH, LENGTH, ROWS, epoch, made, token_file, token_rows

WORKERS = (0, 2)


def written(library: Any, name: str) -> str:
    """Return the folder of the tokens as `library` writes them.

    Args:
        library: The module that has `optimize` and `TokensLoader`.
        name: Its name.
    """
    token_file()

    def make(folder: str) -> None:
        loader = library.TokensLoader()
        library.optimize(
            token_rows, list(range(ROWS)), f"{folder}/data", chunk_bytes="64MB", num_workers=2, verbose=False, item_loader=loader
        )

    return f"{made(f'tokens-{name}', make)}/data"


def read(library: Any, name: str, workers: int) -> dict[str, float]:
    """Return the CPU time of an epoch through a library's streaming loader."""
    dataset = library.StreamingDataset(written(library, name), item_loader=library.TokensLoader(block_size=LENGTH), shuffle=True)
    loader = library.StreamingDataLoader(dataset, batch_size=BATCH["tokens"], num_workers=workers)
    return epoch(loader, len, ROWS)


def leyden(workers: int) -> dict[str, float]:
    """Read with Leyden."""
    import leyden.data as ld

    return read(ld, "leyden", workers)


def litdata(workers: int) -> dict[str, float]:
    """Read with LitData."""
    import litdata as ld

    return read(ld, "litdata", workers)


def slices() -> dict[str, float]:
    """Read rows of a map in a shuffled order, and stack them: what no loader can be much faster than."""
    import numpy as np
    import torch

    tokens = np.load(token_file(), mmap_mode="r")

    class Loop:
        def __iter__(self) -> Any:
            order = np.random.default_rng(0).permutation(ROWS)
            for start in range(0, ROWS, BATCH["tokens"]):
                yield torch.from_numpy(np.stack([tokens[row] for row in order[start : start + BATCH["tokens"]]]))

    return epoch(Loop(), len, ROWS)


BENCHMARK = Benchmark(
    claim="shuffled tokens cost less than a third of LitData's CPU time with no worker, and a tenth with two",
    variants={
        **{f"leyden, {workers} workers": Variant(run=partial(leyden, workers), cores=2) for workers in WORKERS},
        **{f"litdata, {workers} workers": Variant(run=partial(litdata, workers), peer="litdata", cores=2) for workers in WORKERS},
        "numpy slices": Variant(run=slices, cores=2),
    },
    comparisons=[
        Comparison(of="leyden, 0 workers", to="litdata, 0 workers", limit=1 / 3.5),
        Comparison(of="leyden, 2 workers", to="litdata, 2 workers", limit=0.1),
        Comparison(of="leyden, 0 workers", to="numpy slices"),
        *(Comparison(of=f"leyden, {workers} workers", to=f"litdata, {workers} workers", metric="wall") for workers in WORKERS),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_tokens"))
