"""Writing with two workers: tokens, records and pictures into chunks of 64 MB on a local disk, journal and checksums included."""

import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import photographs, record, token_file, token_rows, tree_seconds

COUNTS = {"tokens": 15_000, "records": 50_000, "images": 8_000}
KINDS = tuple(COUNTS)


def paths() -> list[str]:
    """Return the files, in order."""
    return sorted(map(str, Path(photographs(COUNTS["images"])).glob("*.jpg")))


def stored(path: str) -> dict[str, Any]:
    """Return Leyden's sample of a file."""
    import leyden.data as ld

    return {"image": ld.Jpeg(path=path)}


def stored_by_litdata(path: str) -> dict[str, Any]:
    """Return LitData's sample of a file."""
    from PIL import Image

    return {"image": Image.open(path)}


def write(library: Any, kind: str, image: Any) -> dict[str, float]:
    """Return the CPU time of one run of `optimize`.

    Args:
        library: The module that has `optimize` and `TokensLoader`.
        kind: A key of `COUNTS`.
        image: The function that makes a sample of a picture's path.
    """
    inputs: list[Any] = paths() if kind == "images" else list(range(COUNTS[kind]))
    token_file()
    function = {"tokens": token_rows, "records": record, "images": image}[kind]
    options = {"item_loader": library.TokensLoader()} if kind == "tokens" else {}
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        cpu, wall = tree_seconds(), time.perf_counter()
        library.optimize(function, inputs, f"{folder}/out", chunk_bytes="64MB", num_workers=2, verbose=False, **options)
        return {"seconds": tree_seconds() - cpu, "wall": time.perf_counter() - wall}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def leyden(kind: str) -> dict[str, float]:
    """Write with Leyden."""
    import leyden.data as ld

    return write(ld, kind, stored)


def litdata(kind: str) -> dict[str, float]:
    """Write with LitData."""
    import litdata as ld

    return write(ld, kind, stored_by_litdata)


BENCHMARK = Benchmark(
    claim="writing takes at most a third of LitData's CPU time for tokens, records and pictures",
    variants={
        **{f"leyden {kind}": Variant(run=partial(leyden, kind), cores=2) for kind in KINDS},
        **{f"litdata {kind}": Variant(run=partial(litdata, kind), peer="litdata", cores=2) for kind in KINDS},
    },
    comparisons=[
        *(Comparison(of=f"leyden {kind}", to=f"litdata {kind}", limit=0.333) for kind in KINDS),
        *(Comparison(of=f"leyden {kind}", to=f"litdata {kind}", metric="wall") for kind in KINDS),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_write"))
