"""Run by LitData's own Python: `write FOLDER` writes a dataset of every kind and pickles what LitData reads back from it;
`read FOLDER…` pickles what LitData reads from folders that Leyden wrote, beside each as `<folder>.pickle`.
"""

import io
import pickle
import shutil
import sys
from pathlib import Path

import litdata
import numpy as np
import torch
from litdata.streaming import serializers
from litdata.streaming.item_loader import TokensLoader
from litdata.streaming.writer import BinaryWriter
from litdata.utilities.encryption import FernetEncryption, RSAEncryption
from PIL import Image

try:
    import torchvision.io  # noqa: F401 - whether it can be imported
except Exception:  # noqa: BLE001 - one that does not fit torch: the file's bytes are LitData's all the same, Pillow decodes them
    serializers._decode_image_tensor = lambda data: (
        torch.from_numpy(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).copy()).permute(2, 0, 1).contiguous()
    )


def jpeg(i):
    x, y = np.meshgrid(np.arange(20 + i), np.arange(16))
    buffer = io.BytesIO()
    Image.fromarray(np.stack([x * 9, y * 9, x + y], -1).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def picture(i, mode="RGB"):
    return Image.fromarray((np.arange(60).reshape(5, 4, 3) + i).astype(np.uint8)).convert(mode)


def everything(i):
    return {
        "z": i,
        "a": {"f": i / 3, "b": i % 2 == 0, "t": f"text {i} é"},
        "bytes": bytes([i] * i),
        "n1": np.arange(i + 1, dtype=np.float32),
        "n2": np.full((2, i + 1), i, np.int16),
        "n3": np.full((2, 3), i, np.uint64),
        "t1": torch.arange(i),
        "t2": torch.full((i + 1, 2), i, dtype=torch.float64),
        "t0": torch.tensor(float(i)),
        "tf": torch.full((3, 2), i, dtype=torch.float16),
        "tb": torch.tensor([[True, False]]),
        "jpeg": litdata.Jpeg(bytes=jpeg(i)),
        "image": litdata.Image(array=np.asarray(picture(i))),
        "ja": litdata.JpegArray([litdata.Jpeg(bytes=jpeg(i)), litdata.Jpeg(bytes=jpeg(i + 1))]),
        "pil": picture(i, "L"),
        "text": litdata.Text(text=f"T{i}"),
        "file": litdata.File(bytes=b"f%d" % i),
        "tup": (i, (i + 1, f"{i}")),
    }


def jsons(i):
    return {
        "x": np.arange(3) + i,
        "records": [{"k": i, "v": "x" * i}, {"k": None, "v": "b"}],
        "s": ["a", "b" * i],
        "i": [1, i],
        "f": [0.5, i / 3],
        "m": [True, False],
        "d": {"q": {"r": [1, "a", None]}},
        "mixed": [1, "a", {"b": []}],
    }


def flat(i):
    row = {"id": i, "text": f"row {i}", "score": i / 7, "tags": ["a"] * (i % 3), "nested": {"ok": i % 2 == 0, "list": [{"p": i}]}}
    return {**row, "maybe": None if i % 5 else i, "word": None if i % 4 else "w"}


def graph(i):
    return {"g": litdata.Graph(x=torch.full((2, 3), float(i)), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([i])), "id": i}


def hetero(i):
    edges = {"edge_index": torch.tensor([[0], [1]])}
    return litdata.Graph(data={"paper": {"x": torch.full((2,), float(i))}, ("paper", "cites", "paper"): edges})


def tokens(i):
    return torch.arange(i * 7, i * 7 + 5 + i, dtype=torch.int32)


def cases(folder):
    keys = {"sample": FernetEncryption("pw", "sample"), "chunk": FernetEncryption("pw", "chunk"), "rsa": RSAEncryption("pw", "sample")}
    for name, key in keys.items():
        key.save(str(folder / f"{name}.json"))
    whole, frames = {"compression": "zstd", "compression_level": "chunk"}, {"compression": "zstd:3", "compression_level": "batch"}
    return {
        "everything": (everything, 7, {"chunk_size": 3}),
        "dict": (lambda i: {"i": i}, 7, {"chunk_size": 3}),
        "ints": (lambda i: i, 700, {"chunk_bytes": 2000}),
        "jsons": (jsons, 9, {"chunk_size": 4}),
        "flat": (flat, 600, {"chunk_size": 300}),
        "flat_zstd": (flat, 600, {"chunk_size": 300, "compression": "zstd"}),
        "whole_zstd": (everything, 7, {"chunk_size": 3, **whole}),
        "framed": (everything, 13, {"chunk_size": 10, "compression_batch_size": 4, **frames}),
        "sample_zstd": (everything, 7, {"chunk_size": 3, "compression": "zstd", "compression_level": "sample"}),
        "fernet_sample": (everything, 7, {"chunk_size": 3, "encryption": keys["sample"]}),
        "fernet_chunk": (everything, 7, {"chunk_size": 3, "encryption": keys["chunk"]}),
        "fernet_chunk_zstd": (everything, 7, {"chunk_size": 3, "encryption": keys["chunk"], **whole}),
        "rsa": (lambda i: (i, f"{i}"), 7, {"chunk_size": 3, "encryption": keys["rsa"]}),
        "graph": (graph, 5, {"chunk_size": 3}),
        "hetero": (hetero, 5, {"chunk_size": 3}),
        "tokens": (tokens, 20, {"chunk_size": 60, "item_loader": TokensLoader()}),
        "tokens_zstd": (tokens, 20, {"chunk_size": 60, "item_loader": TokensLoader(), **whole}),
        "pickled": (lambda i: {"c": complex(i, 1), "i": i}, 5, {"chunk_size": 3}),
    }


def plain(value):  # noqa: PLR0911 - a table of kinds
    """Return a value in a form that pickles without its library; `tests/support/foreign_rows.py` does the same on its side."""
    if isinstance(value, torch.Tensor):
        return "torch", str(value.dtype).replace("bfloat16", "float32"), (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ndarray):
        return "numpy", str(value.dtype), value
    if isinstance(value, Image.Image):
        return "pil", value.mode, value.size, value.tobytes()
    if type(value).__name__ == "Graph":
        return "graph", {k: plain(getattr(value, k)) for k in ("x", "edge_index", "y", "data") if getattr(value, k) is not None}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value


def read(folder, **options):
    dataset = litdata.StreamingDataset(str(folder), shuffle=False, **options)
    return [plain(dataset[i]) for i in range(len(dataset))]


def save(folder, rows):
    folder.with_name(folder.name + ".pickle").write_bytes(pickle.dumps(rows))


def write(root):
    for name, (make, count, options) in cases(root).items():
        folder = root / name
        folder.mkdir()
        writer = BinaryWriter(str(folder), **options)
        for i in range(count):
            writer[i] = make(i)
        writer.done()
        writer.merge()
        copy = shutil.copytree(folder, root / f"{name}.copy")  # reading replaces compressed files by plain ones
        known = {"encryption": options["encryption"]} if "encryption" in options else {}
        save(folder, read(copy, **known, **({"item_loader": TokensLoader(block_size=8)} if name.startswith("tokens") else {})))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    for path in map(Path, sys.argv[2:] if sys.argv[1] == "read" else []):
        save(path, read(path, **({"item_loader": TokensLoader(block_size=8)} if path.name.startswith("tokens") else {})))
