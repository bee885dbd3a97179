"""LitData's `index.json`: chunks, leaf formats, and the tree that samples are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError

INDEX = "index.json"
Level = Literal["chunk", "batch", "sample"]
DEFAULT_FRAME_ROWS = 256
DICTS = ("builtins.dict", "collections.OrderedDict", "collections.defaultdict")
SEQUENCES = {"builtins.list": "list", "builtins.tuple": "tuple", "collections.deque": "list"}


@dataclass(frozen=True, kw_only=True)
class LitdataIndex:
    """What `index.json` says.

    Args:
        names: The chunks' file names.
        rows: int64 (chunks,), items in each.
        stored_bytes: int64 (chunks,), bytes in each before compression of the file.
        tokens: int64 (chunks,) of a token dataset, else `None`.
        formats: What each leaf is, in the order of a row.
        tree: The spec of the samples' tree, as LitData writes it; `None` means a single leaf.
        compression: `None`, `"zstd"` or `"zstd:N"`.
        level: What is compressed.
        frame_rows: Rows in a frame of level `"batch"`.
        encryption: `{"algorithm", "level"}`, or `None`.
    """

    names: Sequence[str]
    rows: NDArray[np.int64]
    stored_bytes: NDArray[np.int64]
    tokens: NDArray[np.int64] | None
    formats: Sequence[str]
    tree: Mapping[str, Any] | None
    compression: str | None
    level: Level
    frame_rows: int
    encryption: Mapping[str, str] | None

    @property
    def is_file_compressed(self) -> bool:
        """Whether whole files are zstd frames."""
        return self.compression is not None and self.level == "chunk"


def parse_index(data: bytes, where: str) -> LitdataIndex:
    """Return what an `index.json` of LitData says.

    Raises:
        CorruptDataError: It is no JSON, or lacks what every index has.
        ConfigError: It is of a kind that is not read.
    """
    try:
        index = json.loads(data)
        config, chunks = index["config"], index["chunks"]
        loader = config.get("item_loader") or "PyTreeLoader"
        if loader not in {"PyTreeLoader", "TokensLoader"}:
            hint = " Open the folder of its Parquet files instead." if loader == "ParquetLoader" else ""
            raise ConfigError(f"{where} was written for LitData's {loader}; read here are PyTreeLoader and TokensLoader.{hint}")
        dims = [chunk.get("dim") for chunk in chunks]
        return LitdataIndex(
            names=[chunk["filename"] for chunk in chunks],
            rows=np.array([chunk["chunk_size"] for chunk in chunks], np.int64),
            stored_bytes=np.array([chunk["chunk_bytes"] for chunk in chunks], np.int64),
            tokens=np.array(dims, np.int64) if loader == "TokensLoader" else None,
            formats=config["data_format"],
            tree=_tree(config.get("data_spec")),
            compression=_compression(config.get("compression")),
            level=config.get("compression_level") or "chunk",
            frame_rows=config.get("compression_batch_size") or DEFAULT_FRAME_ROWS,
            encryption=config.get("encryption"),
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise CorruptDataError(f"{where} is no index of a LitData dataset: {type(error).__name__} {error}") from error


def node_of(tree: Mapping[str, Any] | None, leaves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema node of a tree whose leaves are described by `leaves`, which lack their names.

    Raises:
        ConfigError: The tree has nodes of an unknown class.
    """
    rest = list(leaves)
    return _node(tree, (), rest)


def spec_of(node: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return LitData's spec of a schema node, and the names of its leaves in LitData's order."""
    names: list[str] = []
    return _spec(node, names), names


def escaped(part: object) -> str:
    """Return a key as a part of a column's name."""
    return str(part).replace("~", "~0").replace("/", "~1")


def _tree(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else json.loads(text)[1]


def _compression(name: str | None) -> str | None:
    if name is not None and not name.startswith("zstd"):
        raise ConfigError(f"the dataset is compressed with {name!r}; of LitData's compressions 'zstd' and 'zstd:N' are read.")
    return name


def _node(tree: Mapping[str, Any] | None, path: tuple[str, ...], leaves: list[Mapping[str, Any]]) -> dict[str, Any]:
    if tree is None or tree["type"] is None:
        return {"kind": "leaf", "name": "/".join(path), "nullable": False, **leaves.pop(0)}
    kind, children = tree["type"], tree["children_spec"]
    if kind in DICTS:
        context = json.loads(tree["context"])
        keys = context[1] if kind == DICTS[2] else context
        return {
            "kind": "dict",
            "keys": keys,
            "children": [_node(c, (*path, escaped(k)), leaves) for k, c in zip(keys, children, strict=True)],
        }
    if kind in SEQUENCES:
        return {"kind": SEQUENCES[kind], "children": [_node(child, (*path, str(i)), leaves) for i, child in enumerate(children)]}
    raise ConfigError(f"samples of the dataset hold a {kind}; read are dicts, lists and tuples.")


def _spec(node: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    if node["kind"] == "leaf":
        names.append(node["name"])
        return {"type": None, "context": None, "children_spec": []}
    children = [_spec(child, names) for child in node["children"]]
    if node["kind"] == "dict":
        return {"type": DICTS[0], "context": json.dumps(node["keys"]), "children_spec": children}
    if node["kind"] in {"list", "tuple"}:
        return {"type": f"builtins.{node['kind']}", "context": "null", "children_spec": children}
    raise ConfigError(f"LitData's index has no node for a {node['kind']}: return dicts, lists or tuples to write its layout.")
