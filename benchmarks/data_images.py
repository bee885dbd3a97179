"""An epoch of JPEG files decoded to `uint8 (3, 256, 256)`, two workers, beside torch's loader on the files and LitData."""

import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import BATCH, epoch, made, photographs

ROWS = 8_000


def paths() -> list[str]:
    """Return the files, in order."""
    return sorted(map(str, Path(photographs(ROWS)).glob("*.jpg")))


def ours(path: str) -> dict[str, Any]:
    """Return Leyden's sample of a file."""
    import leyden.data as ld

    return {"image": ld.Jpeg(path=path)}


def rows_of(batch: Any) -> int:
    """Return how many pictures a batch has, after a look at its form."""
    image = batch["image"] if isinstance(batch, dict) else batch
    if tuple(image.shape[1:]) != (3, 256, 256) or str(image.dtype) != "torch.uint8":
        raise RuntimeError(f"a batch is {image.dtype} {tuple(image.shape)}")
    return len(image)


def leyden() -> dict[str, float]:
    """Read with Leyden."""
    import leyden.data as ld

    def make(folder: str) -> None:
        ld.optimize(ours, paths(), f"{folder}/data", chunk_bytes="64MB", num_workers=2, verbose=False)

    folder = made("images-leyden", make)
    dataset = ld.StreamingDataset(f"{folder}/data", shuffle=True)
    return epoch(ld.StreamingDataLoader(dataset, batch_size=BATCH["images"], num_workers=2), rows_of, ROWS)


class Files:
    """The files as a map-style dataset, as people write one."""

    def __init__(self) -> None:
        self.paths = paths()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        import numpy as np
        import torch
        from PIL import Image

        return torch.from_numpy(np.array(Image.open(self.paths[index]))).permute(2, 0, 1).contiguous()


def torch_files() -> dict[str, float]:
    """Read with torch's loader."""
    from torch.utils.data import DataLoader

    return epoch(DataLoader(Files(), batch_size=BATCH["images"], shuffle=True, num_workers=2), rows_of, ROWS)


BENCHMARK = Benchmark(
    claim="pictures cost two thirds of the CPU time that torch's loader needs for the files",
    variants={"leyden": Variant(run=leyden, cores=2), "torch": Variant(run=torch_files, cores=2)},
    comparisons=[
        Comparison(of="leyden", to="torch", limit=1 / 1.5),
        Comparison(of="leyden", to="torch", metric="wall"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_images"))
