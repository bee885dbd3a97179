"""A second reader of Leyden's datasets, written from docs/reference/data-format.md alone: it shares no code with the library.

Every checksum and every padding is looked at. Media come back as the bytes of their files.
"""

import base64
import io
import itertools
import json
import struct
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zstandard

DTYPES = "u1 ?1 i1 i2 i4 i8 u1 u2 u4 u8 f2 u2 f4 f8 c8 c16 u1 u1".replace("?1", "?").split()
NAMES = ["none", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16"]
NAMES += ["float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"]
VALIDITY, OFFSETS, INNER, SHAPES, VALUES = range(5)


def read_dataset(folder: Path) -> list[Any]:
    """Return all samples of the newest version of a dataset that is not encrypted."""
    newest = max((folder / "_leyden").glob("manifest-*.json"))
    assert (folder / "index.json").read_bytes() == newest.read_bytes()
    manifest = read_manifest(newest.read_bytes())
    leaves = sorted(leaves_of(manifest["schema"]), key=lambda leaf: leaf["name"].encode())
    samples: list[Any] = []
    for chunk in manifest["chunks"]:
        rows = read_chunk((folder / chunk["name"]).read_bytes(), chunk, leaves)
        gone = set(read_deletes((folder / chunk["deleted"]["name"]).read_bytes()) if chunk["deleted"] else [])
        samples += [built(manifest["schema"], row) for number, row in enumerate(rows) if number not in gone]
    assert len(samples) == manifest["num_rows"]
    return samples


def canonical(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def read_manifest(data: bytes) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(data)
    assert canonical(manifest) == data
    assert (manifest["format"], manifest["format_version"]) == ("leyden-data", 1)
    assert xxhash.xxh3_64_hexdigest(canonical({**manifest, "check": ""})) == manifest["check"]
    content = {name: manifest[name] for name in ("schema", "chunks", "cipher")}
    assert xxhash.xxh3_128_hexdigest(canonical(content)) == manifest["digest"]
    return manifest


def leaves_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] if node["kind"] == "leaf" else [leaf for child in node["children"] for leaf in leaves_of(child)]


def read_chunk(data: bytes, entry: dict[str, Any], leaves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a chunk, each a dict from leaf names to values."""
    magic, version, flags, zero, chunk_id = struct.unpack_from("<8sHHIQ", data)
    assert (magic, version, flags, zero, any(data[24:64])) == (b"LDCHUNK1", 1, 0, 0, False)
    assert (len(data), xxhash.xxh3_128_hexdigest(data)) == (entry["bytes"], entry["digest"])
    start, size, checksum, length, end = struct.unpack("<QIIQ8s", data[-32:])
    assert (length, end, start + size + 32) == (len(data), b"LDCHEND1", len(data))
    assert crc32c(data[start : start + size]) == checksum
    footer = json.loads(data[start : start + size])
    text = f"{footer['job']}/{footer['unit']}/{footer['sequence']}"
    assert chunk_id == xxhash.xxh3_64_intdigest(text.encode()) == int(footer["chunk_id"], 16)
    pairs = np.frombuffer(base64.b64decode(entry["blocks"]), "<u4").reshape(-1, 2).tolist()
    rows: list[dict[str, Any]] = []
    offset = 64
    for number, (count, stored) in enumerate(pairs):
        columns = read_block(data[offset : offset + 64 * stored], (number, count, chunk_id, len(rows)), leaves)
        rows += [dict(zip((leaf["name"] for leaf in leaves), values, strict=True)) for values in zip(*columns, strict=True)]
        offset += 64 * stored
    assert (offset, len(rows)) == (start, entry["rows"])
    return rows


def read_block(data: bytes, place: tuple[int, ...], leaves: list[dict[str, Any]]) -> list[list[Any]]:
    """Return one list of values per leaf."""
    magic, digest, *found, header_bytes, columns, cipher, buffers, zero, size = struct.unpack_from("<8sQIIQQIHHIIQ", data)
    assert (magic, tuple(found), cipher, zero, size, columns) == (b"LDBLOCK1", place, 0, 0, len(data), len(leaves))
    assert header_bytes == -(-(64 + 64 * columns + 40 * buffers) // 64) * 64
    assert xxhash.xxh3_64_intdigest(data[16:header_bytes]) == digest
    used = header_bytes
    raw: list[tuple[int, bytes]] = []
    for number in range(buffers):
        at, stored, raw_bytes, own, role, codec, zeros = struct.unpack_from("<QQQQBB6s", data, 64 + 64 * columns + 40 * number)
        content = data[at : at + stored]
        assert (xxhash.xxh3_64_intdigest(content), any(zeros)) == (own, False)
        if stored:
            assert (at % 64, any(data[used:at])) == (0, False)
            used = at + stored
        raw.append((role, content if codec == 0 else zstandard.decompress(content)))
        assert len(raw[-1][1]) == raw_bytes
    assert not any(data[used:])
    return [column_of(struct.unpack_from("<BBBBIII8I", data, 64 + 64 * index), raw, place[1], leaf) for index, leaf in enumerate(leaves)]


def column_of(record: tuple[int, ...], raw: list[tuple[int, bytes]], rows: int, leaf: dict[str, Any]) -> list[Any]:
    kind, dtype, rank, flags, _, first, count, *dims = record
    own = dict(raw[first : first + count])
    if kind == 0:
        return [None] * rows
    values = np.frombuffer(own[VALUES], f"<{DTYPES[dtype]}" if DTYPES[dtype] != "?" else "?")
    offsets = np.frombuffer(own.get(OFFSETS, b""), "<i8").tolist()
    inner = np.frombuffer(own.get(INNER, b""), "<i8").tolist()
    if kind == 1:
        found = list(values.reshape(rows, *dims[:rank]))
    elif kind == 5:
        found = [[own[VALUES][a:b].decode() for a, b in zip(inner[x:y], inner[x + 1 : y + 1], strict=True)] for x, y in pairs_of(offsets)]
    else:
        found = [values[a:b] for a, b in pairs_of(offsets)]
    if kind == 4:
        shapes = np.frombuffer(own[SHAPES], "<u4").reshape(rows, rank)
        found = [each.reshape(shape) for each, shape in zip(found, shapes, strict=True)]
    bits = np.unpackbits(np.frombuffer(own[VALIDITY], "u1"), count=rows, bitorder="little") if VALIDITY in own else np.ones(rows)
    return [value_of(each, leaf, flags) if present else None for each, present in zip(found, bits, strict=True)]


def pairs_of(offsets: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(offsets))


def value_of(stored: Any, leaf: dict[str, Any], flags: int) -> Any:
    kind = leaf["type"]
    if kind in {"bool", "int", "float"}:
        return {"bool": bool, "int": int, "float": float}[kind](stored)
    if kind == "list":
        return stored if isinstance(stored, list) else stored.tolist()
    if kind == "array":
        array = np.load(io.BytesIO(stored.tobytes())) if flags & 2 else stored
        return array.astype(DTYPES[NAMES.index(leaf["dtype"])])
    if kind in {"str", "text"}:
        return stored.tobytes().decode()
    return json.loads(stored.tobytes()) if kind == "json" else stored.tobytes()


def built(node: dict[str, Any], row: dict[str, Any]) -> Any:
    if node["kind"] == "leaf":
        return row[node["name"]]
    children = [built(child, row) for child in node["children"]]
    if node["kind"] == "dict":
        return dict(zip(node["keys"], children, strict=True))
    if node["kind"] == "namedtuple":
        return namedtuple(node["name"], node["fields"])(*children)  # type: ignore[misc]
    return tuple(children) if node["kind"] == "tuple" else children


def read_deletes(data: bytes) -> list[int]:
    assert (data[:8], xxhash.xxh3_64_intdigest(data[:-8])) == (b"LDDELET1", struct.unpack("<Q", data[-8:])[0])
    return np.frombuffer(data, "<u4", struct.unpack_from("<Q", data, 8)[0], 16).tolist()


def read_keys(data: bytes) -> dict[Any, int]:
    assert (data[:8], xxhash.xxh3_64_intdigest(data[:-8])) == (b"LDKEYS01", struct.unpack("<Q", data[-8:])[0])
    n = struct.unpack_from("<Q", data, 8)[0]
    hashes, rows = (np.frombuffer(data, "<u8", n, 16 + 8 * n * part).tolist() for part in (0, 1))
    ends = np.frombuffer(data, "<i8", n + 1, 16 + 16 * n).tolist()
    keys = [data[24 + 24 * n + a : 24 + 24 * n + b] for a, b in pairs_of(ends)]
    assert hashes == sorted(hashes) == [xxhash.xxh3_64_intdigest(key) for key in keys]
    return {key[1:].decode() if key[:1] == b"s" else int(key[1:]): row for key, row in zip(keys, rows, strict=True)}


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
