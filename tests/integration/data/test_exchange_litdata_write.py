"""LitData 0.2.76 itself reads what Leyden writes in its layout, and so do we."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from leyden.data.format.column import Column, bytes_column_of
from leyden.data.format.schema import Schema
from leyden.data.interop.columns import array_column, fixed_column, list_column, strings_column
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from leyden.data.types import Jpeg, Pil
from tests.support.foreign_rows import plain, same, samples
from tests.support.peers import peer_python, run_peer

SCRIPT = Path(__file__).parents[2] / "support/litdata_cases.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the environment may have to be made first


def leaf(name: str, kind: str, **facts: Any) -> dict[str, Any]:
    return {"kind": "leaf", "name": name, "type": kind, "nullable": False, **facts}


def picture(i: int) -> Any:
    return Image.fromarray((np.arange(60).reshape(5, 4, 3) + i).astype(np.uint8))


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    picture(i).save(buffer, "PNG")
    return buffer.getvalue()


def tensors(rows: Sequence[Any], dtype: str) -> Column:
    shapes = np.array([row.shape for row in rows], np.int64)
    return array_column(dtype, np.frombuffer(b"".join(row.tobytes() for row in rows), np.uint8), shapes)


NODES = {
    "z": leaf("z", "int"), "f": leaf("f", "float"), "ok": leaf("ok", "bool"), "s": leaf("s", "str"), "t": leaf("t", "text"),
    "raw": leaf("raw", "bytes"), "j": leaf("j", "json"), "li": leaf("li", "list", dtype="int64"), "ls": leaf("ls", "list", dtype="str"),
    "lf": leaf("lf", "list", dtype="float64"), "jpeg": leaf("jpeg", "jpeg"), "png": leaf("png", "image"), "pil": leaf("pil", "pil"),
    "n1": leaf("n1", "array", dtype="float32", shape=None, of="numpy"), "n2": leaf("n2", "array", dtype="uint64", shape=None, of="numpy"),
    "t1": leaf("t1", "array", dtype="int32", shape=None, of="torch"), "t2": leaf("t2", "array", dtype="bfloat16", shape=[2, 2], of="torch"),
}  # fmt: skip
TREE = {
    "kind": "dict",
    "keys": [*NODES, "pair"],
    "children": [*NODES.values(), {"kind": "tuple", "children": [leaf("pair/0", "int"), leaf("pair/1", "str")]}],
}


def block(start: int, rows: int) -> dict[str, Column]:
    ids = range(start, start + rows)
    counts = np.array([i % 3 for i in ids], np.int64)
    ends = np.concatenate([[0], np.cumsum(counts)])
    total = int(ends[-1])
    words = [b"a", "bé".encode(), b"", b"long text"]
    chosen = [words[k % 4] for k in range(total)]
    inner = np.concatenate([[0], np.cumsum([len(word) for word in chosen])]).astype(np.int64)
    return {
        "z": fixed_column("int64", np.array(ids)),
        "f": fixed_column("float64", np.array(ids) / 7),
        "ok": fixed_column("bool", np.array(ids) % 2 == 0),
        "s": bytes_column_of([f"né {i}".encode() for i in ids]),
        "t": bytes_column_of([f"T{i}".encode() for i in ids]),
        "raw": bytes_column_of([bytes([i] * i) for i in ids]),
        "j": bytes_column_of([b'{"a":[1,null,"x"],"b":%d}' % i for i in ids]),
        "li": list_column("int64", np.arange(total), ends),
        "lf": list_column("float64", np.arange(total) / 3, ends),
        "ls": strings_column(np.frombuffer(b"".join(chosen), np.uint8), inner, ends),
        "jpeg": bytes_column_of([Jpeg(array=np.asarray(picture(i))).encode() for i in ids]),
        "png": bytes_column_of([png(i) for i in ids]),
        "pil": bytes_column_of([Pil(image=picture(i)).encode() for i in ids]),
        "n1": tensors([np.full(i + 1, i, np.float32) for i in ids], "float32"),
        "n2": tensors([np.full((2, i + 1), i, np.uint64) for i in ids], "uint64"),
        "t1": tensors([np.full(i, i, np.int32) for i in ids], "int32"),
        "t2": tensors([torch.full((2, 2), float(i), dtype=torch.bfloat16).view(torch.uint16).numpy() for i in ids], "bfloat16"),
        "pair/0": fixed_column("int64", np.array(ids)),
        "pair/1": bytes_column_of([f"p{i}".encode() for i in ids]),
    }


def write(folder: Path, settings: LitdataSettings, tree: Any = TREE, blocks: Any = block) -> None:
    folder.mkdir()
    schema = Schema.from_json(tree)
    writer = LitdataWriter(tree, schema.leaves, settings)
    chunks = [
        chunk for start in (0, 5) for chunk in writer.add([columns[each.name] for columns in [blocks(start, 5)] for each in schema.leaves])
    ]
    chunks += writer.finish()
    for chunk in chunks:
        (folder / chunk.name).write_bytes(chunk.data)
    (folder / "index.json").write_bytes(writer.index([chunk.entry for chunk in chunks]))


def tokens(start: int, rows: int) -> dict[str, Column]:
    return {"": tensors([np.arange(i * 9, i * 9 + 5 + i, dtype=np.uint16) for i in range(start, start + rows)], "uint16")}


CASES = {
    "rows": LitdataSettings(chunk_size=4),
    "bytes": LitdataSettings(chunk_bytes=6000),
    "framed": LitdataSettings(chunk_size=7, compression="zstd", frame_rows=3),
    "sample": LitdataSettings(chunk_size=7, compression="zstd:2", level="sample"),
    "whole": LitdataSettings(chunk_size=7, compression="zstd", level="chunk"),
}
TOKENS = leaf("", "array", dtype="int32", shape=None, of="torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = peer_python("litdata", ["zstd", "pyarrow", "cryptography"])
    root = tmp_path_factory.mktemp("ours")
    for name, settings in CASES.items():
        write(root / name, settings)
    write(root / "tokens", LitdataSettings(chunk_size=40, is_tokens=True), TOKENS, tokens)
    theirs = [str(root / name) for name in [*CASES, "tokens"]]
    run_peer(python, SCRIPT, "read", *theirs)
    return root


@pytest.mark.parametrize("name", CASES)
def test_litdata_reads_our_rows_as_we_do(name: str, folder: Path) -> None:
    ours = samples(LitdataSource(str(folder / name)))
    assert len(ours) == 10
    assert [row["z"] for row in ours] == list(range(10))
    assert ours[3]["ls"] == []
    assert ours[4]["li"] == [3]
    for row in ours:
        row["t2"] = row["t2"].float()
    theirs = pickle.loads((folder / f"{name}.pickle").read_bytes())
    assert same([plain(row) for row in ours], theirs)


def test_litdata_reads_our_tokens_as_we_do(folder: Path) -> None:
    ours = samples(LitdataSource(str(folder / "tokens"), block_size=8))
    assert same([plain(row) for row in ours], pickle.loads((folder / "tokens.pickle").read_bytes()))
