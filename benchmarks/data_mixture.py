"""Samples of a mixture of three token datasets by weights, no worker, beside LitData's, and beside one of the datasets alone."""

import sys
from itertools import islice
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import BATCH, LENGTH, epoch, made, token_file, token_rows

ROWS = 10_000  # of each dataset
WEIGHTS = (0.5, 0.3, 0.2)
PICKS = 15_000  # of each pass; the first dataset ends after about 20,000
PASSES = 4


def written(library: Any, name: str) -> list[str]:
    """Return the folders of three datasets as `library` writes them."""
    token_file()

    def make(folder: str) -> None:
        for part in range(len(WEIGHTS)):
            inputs = list(range(part * ROWS, (part + 1) * ROWS))
            options = {"num_workers": 2, "verbose": False, "item_loader": library.TokensLoader()}
            library.optimize(token_rows, inputs, f"{folder}/{part}", chunk_bytes="64MB", **options)

    folder = made(f"mixture-{name}", make)
    return [f"{folder}/{part}" for part in range(len(WEIGHTS))]


def read(library: Any, name: str) -> dict[str, float]:
    """Return the CPU time of `PASSES` times `PICKS` samples of a mixture."""
    parts = [
        library.StreamingDataset(folder, item_loader=library.TokensLoader(block_size=LENGTH), shuffle=True)  # LitData shares no loader
        for folder in written(library, name)
    ]
    mixture = library.CombinedStreamingDataset(parts, seed=1, weights=list(WEIGHTS), iterate_over_all=False)
    return epoch(
        Picks(library.StreamingDataLoader(mixture, batch_size=BATCH["tokens"])), len, PASSES * (PICKS // BATCH["tokens"]) * BATCH["tokens"]
    )


class Picks:
    """The first batches of a loader, several times.

    Args:
        loader: It.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        for _ in range(PASSES):
            yield from islice(iter(self.loader), PICKS // BATCH["tokens"])


def leyden() -> dict[str, float]:
    """Mix with Leyden."""
    import leyden.data as ld

    return read(ld, "leyden")


def litdata() -> dict[str, float]:
    """Mix with LitData."""
    import litdata as ld

    return read(ld, "litdata")


def alone() -> dict[str, float]:
    """Read one dataset with Leyden, and return what as many samples would take."""
    import leyden.data as ld

    dataset = ld.StreamingDataset(written(ld, "leyden")[0], item_loader=ld.TokensLoader(block_size=LENGTH), shuffle=True)
    taken = epoch(ld.StreamingDataLoader(dataset, batch_size=BATCH["tokens"]), len, ROWS)
    return {metric: value * PASSES * PICKS / ROWS for metric, value in taken.items()}


BENCHMARK = Benchmark(
    claim="a mixture costs less than half of LitData's CPU time",
    variants={"leyden": Variant(run=leyden), "litdata": Variant(run=litdata, peer="litdata"), "one dataset": Variant(run=alone)},
    comparisons=[
        Comparison(of="leyden", to="litdata", limit=0.5),
        Comparison(of="leyden", to="one dataset"),
        Comparison(of="leyden", to="litdata", metric="wall"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_mixture"))
