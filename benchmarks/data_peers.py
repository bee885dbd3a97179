"""An epoch of shuffled tokens and of shuffled records from a local disk, no worker, beside MosaicML, WebDataset and HF datasets.

Each reads what it wrote itself, in the way its documentation shows. WebDataset shuffles within a buffer, the others everywhere.
"""

import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data_records
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import BATCH, LENGTH, epoch, made, record, token_file, token_rows

ROWS = {"tokens": 10_000, "records": 50_000}
PEERS = ("mosaicml", "webdataset", "datasets")
BUFFER = 1000


def samples(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of a kind."""
    import numpy as np

    tokens = np.load(token_file(), mmap_mode="r") if kind == "tokens" else None
    for index in range(ROWS[kind]):
        yield record(index) if tokens is None else {"tokens": np.array(tokens[index])}


def written(kind: str, name: str, write: Callable[[str], None]) -> str:
    """Return the folder of a kind's samples as a library writes them."""
    return made(f"peers-{kind}-{name}", write)


def timed(kind: str, loader: Any) -> dict[str, float]:
    """Return the CPU time of an epoch through a loader of dictionaries."""

    def rows_of(batch: Any) -> int:
        if kind == "tokens":
            if tuple(batch["tokens"].shape[1:]) != (LENGTH,):
                raise RuntimeError(f"a batch has the shape {tuple(batch['tokens'].shape)}")
            return len(batch["tokens"])
        return data_records.rows_of(batch)

    return epoch(loader, rows_of, ROWS[kind])


def leyden(kind: str) -> dict[str, float]:
    """Read with Leyden."""
    import leyden.data as ld

    def write(folder: str) -> None:
        inputs = list(range(ROWS[kind]))
        if kind == "tokens":
            token_file()
            ld.optimize(token_rows, inputs, f"{folder}/data", num_workers=2, verbose=False, item_loader=ld.TokensLoader())
        else:
            ld.optimize(record, inputs, f"{folder}/data", num_workers=2, verbose=False)

    folder = f"{written(kind, 'leyden', write)}/data"
    if kind == "records":
        return timed(kind, ld.StreamingDataLoader(ld.StreamingDataset(folder, shuffle=True), batch_size=BATCH[kind]))
    dataset = ld.StreamingDataset(folder, shuffle=True, item_loader=ld.TokensLoader(block_size=LENGTH))
    return epoch(ld.StreamingDataLoader(dataset, batch_size=BATCH[kind]), len, ROWS[kind])


def mosaicml(kind: str) -> dict[str, float]:
    """Read MDS shards with MosaicML's StreamingDataset."""
    without_torchvision()
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    columns = {"id": "int", "score": "float64", "label": "int", "text": "str", "vector": "ndarray:float32:16"}

    def write(folder: str) -> None:
        with MDSWriter(out=f"{folder}/data", columns={"tokens": f"ndarray:int32:{LENGTH}"} if kind == "tokens" else columns) as out:
            for sample in samples(kind):
                out.write(sample)

    dataset = StreamingDataset(local=f"{written(kind, 'mosaicml', write)}/data", shuffle=True, batch_size=BATCH[kind])
    return timed(kind, DataLoader(dataset, batch_size=BATCH[kind]))


def without_torchvision() -> None:
    """Let `streaming` be imported where torchvision does not fit torch: of it only the names of base classes are needed."""
    try:
        import torchvision  # noqa: F401 - whether it can be imported
    except RuntimeError:
        for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
        sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]


def webdataset(kind: str) -> dict[str, float]:
    """Read tar shards with WebDataset."""
    import webdataset as wds
    from torch.utils.data import DataLoader

    def write(folder: str) -> None:
        with wds.ShardWriter(f"{folder}/%05d.tar", maxsize=64_000_000, verbose=0) as out:
            for index, sample in enumerate(samples(kind)):
                array = sample.pop("vector" if kind == "records" else "tokens")
                out.write({"__key__": f"{index:09d}", "npy": array, **({"json": sample} if kind == "records" else {})})

    shards = sorted(map(str, Path(written(kind, "webdataset", write)).glob("*.tar")))
    stream = wds.WebDataset(shards, shardshuffle=len(shards)).shuffle(BUFFER).decode()
    shaped = stream.map(lambda sample: {"tokens": sample["npy"]} if kind == "tokens" else {**sample["json"], "vector": sample["npy"]})
    return timed(kind, DataLoader(shaped, batch_size=BATCH[kind]))


def datasets(kind: str) -> dict[str, float]:
    """Read Arrow files with HF datasets."""
    import datasets as hf
    from torch.utils.data import DataLoader

    def write(folder: str) -> None:
        length, element = (LENGTH, "int32") if kind == "tokens" else (16, "float32")
        array = {"tokens" if kind == "tokens" else "vector": hf.Sequence(hf.Value(element), length=length)}
        others = {"id": hf.Value("int64"), "score": hf.Value("float64"), "label": hf.Value("int64"), "text": hf.Value("string")}
        features = hf.Features(array if kind == "tokens" else {**others, **array})
        hf.Dataset.from_generator(samples, gen_kwargs={"kind": kind}, features=features, cache_dir=f"{folder}/cache").save_to_disk(
            f"{folder}/data"
        )

    dataset = hf.load_from_disk(f"{written(kind, 'datasets', write)}/data").with_format("torch")
    return timed(kind, DataLoader(dataset, batch_size=BATCH[kind], shuffle=True))


RUNS = {"leyden": leyden, "mosaicml": mosaicml, "webdataset": webdataset, "datasets": datasets}

BENCHMARK = Benchmark(
    claim="shuffled tokens and records from a local disk cost at most a third of the CPU time of MosaicML, WebDataset and HF datasets",
    variants={
        f"{name}, {kind}": Variant(run=partial(run, kind), peer=None if name == "leyden" else name)
        for name, run in RUNS.items()
        for kind in ROWS
    },
    comparisons=[Comparison(of=f"leyden, {kind}", to=f"{name}, {kind}", limit=1 / 3) for kind in ROWS for name in PEERS],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_peers"))
