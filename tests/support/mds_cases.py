"""Run by MosaicML Streaming's own Python: `write FOLDER` writes MDS datasets and pickles what it reads back from them."""

import importlib.machinery
import pickle
import sys
import types
from pathlib import Path

import numpy as np
from PIL import Image

try:
    import torchvision  # noqa: F401 - whether it can be imported
except Exception:  # noqa: BLE001 - one that does not fit torch; of it, only the names of base classes are needed
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchvision.datasets"].VisionDataset = object
    sys.modules["torchvision.transforms.functional"].to_tensor = None

from streaming import LocalDataset, MDSWriter


def picture(i):
    return Image.fromarray((np.arange(60).reshape(5, 4, 3) + i).astype(np.uint8))


COLUMNS = {
    "z": "int", "s": "str", "b": "bytes", "j": "json", "pil": "pil", "png": "png", "jpeg": "jpeg",
    "u8": "uint8", "f4": "float32", "f2": "float16", "big": "str_int", "sf": "str_float", "dec": "str_decimal",
    "any": "ndarray", "f": "ndarray:float32", "fixed": "ndarray:int16:2,3", "imgs": "list[png]", "a/b": "uint64",
}  # fmt: skip


def sample(i):
    from decimal import Decimal

    return {
        "z": i, "s": f"né {i}", "b": bytes([i] * i), "j": {"k": [1, None, i]}, "pil": picture(i), "png": picture(i), "jpeg": picture(i),
        "u8": np.uint8(i), "f4": np.float32(i / 3), "f2": np.float16(i / 3), "big": 10**30 + i, "sf": i / 7, "dec": Decimal(f"{i}.5"),
        "any": np.full((2, i + 1), i, np.int64), "f": np.full((300 if i == 3 else i + 1,), i, np.float32),
        "fixed": np.full((2, 3), i, np.int16), "imgs": [picture(i), picture(i + 1)], "a/b": np.uint64(2**63 + i),
    }  # fmt: skip


CASES = {
    "plain": {}, "hashed": {"hashes": ["sha1", "xxh64"]}, "zstd": {"compression": "zstd:7", "hashes": ["xxh3_64"]},
    "gz": {"compression": "gz"}, "bz2": {"compression": "bz2"}, "br": {"compression": "br"}, "snappy": {"compression": "snappy"},
}  # fmt: skip


def plain(value):
    if isinstance(value, np.ndarray):
        return "numpy", str(value.dtype), value
    if isinstance(value, np.generic):
        return "numpy", str(value.dtype), np.asarray(value)
    if isinstance(value, Image.Image):
        return "pil", value.mode, value.size, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if type(value).__name__ == "Decimal":
        return str(value)
    return [plain(item) for item in value] if isinstance(value, list) else value


def write(root):
    for name, options in CASES.items():
        with MDSWriter(out=str(root / name), columns=COLUMNS, size_limit=12_000, **options) as writer:
            for i in range(12):
                writer.write(sample(i))
        dataset = [plain(sample(i)) for i in range(12)]
        if not options:
            read = LocalDataset(str(root / name))
            dataset = [plain(read[i]) for i in range(len(read))]
        (root / f"{name}.pickle").write_bytes(pickle.dumps(dataset))


if __name__ == "__main__":
    write(Path(sys.argv[2]))
