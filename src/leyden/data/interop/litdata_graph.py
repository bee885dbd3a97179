"""LitData's graph leaves: `LDGR`, version 1 to 3, named tensors, and a pickled `_meta` that says how they hang together.

`_meta` holds dicts, lists, tuples and strings only, so it is unpickled by a reader that refuses every name: no code can
run. Graphs that were pickled as a whole need `trust=True`.
"""

import io
import pickle
import struct
from typing import Any

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.optional import installed
from leyden.data.codecs.serializer import Serializer
from leyden.data.interop.litdata_arrays import tensor_of
from leyden.data.types import Graph

MAGIC = b"LDGR"
PICKLED, META = 1, "_meta"
TENSOR_MARK = "__ldgr_t__"


class LitdataGraph(Serializer):
    """Reads graph leaves of LitData's datasets.

    Args:
        trust: Whether graphs that were pickled as a whole may be loaded.
    """

    def __init__(self, *, trust: bool = False) -> None:
        self.trust = trust

    def serialize(self, data: Any) -> tuple[bytes, str | None]:
        raise ConfigError(f"LitData's graph layout is only read, so {type(data).__name__} cannot be written in it.")

    def can_serialize(self, data: Any) -> bool:
        del data
        return False

    def deserialize(self, data: bytes) -> Any:
        if data[:4] != MAGIC:
            return self._whole(data)
        fields = _fields(memoryview(data))
        meta = _plain_pickle(fields.pop(META, pickle.dumps({})), "graph _meta")
        tensors = {name: tensor_of(value) for name, value in fields.items()}
        return _graph({**tensors, **meta})

    def _whole(self, data: bytes) -> Any:
        if not self.trust:
            raise ConfigError("a graph was pickled as a whole, which runs the code it names. Pass trust=True if you trust its writer.")
        loaded = pickle.loads(data)  # noqa: S301 - trusted
        return loaded if isinstance(loaded, Graph) else Graph(data=loaded)


class _Refusing(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _plain_pickle(data: Any, what: str) -> Any:
    try:
        return _Refusing(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise CorruptDataError(f"{what} is not plain: {error}") from error


def _fields(view: memoryview) -> dict[str, bytes]:
    """Return the payload of each field; widths of counts and names grew with the versions."""
    version = view[4]
    if version not in {1, 2, 3}:
        raise CorruptDataError(f"a graph of version {version}; there are 1, 2 and 3")
    small = ">H" if version == 3 else ">B"
    width, at = struct.calcsize(small), 5
    count = struct.unpack_from(small, view, at)[0]
    at += width
    found: dict[str, bytes] = {}
    for _ in range(count):
        length = struct.unpack_from(small, view, at)[0]
        at += width
        name = bytes(view[at : at + length]).decode()
        at += length + (version > 1)  # one byte says whether the payload is pickled, which only `_meta` is
        size = struct.unpack_from(">I", view, at)[0]
        found[name] = bytes(view[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _graph(values: dict[str, Any]) -> Any:
    tree, paths, names = (values.pop(name, None) for name in ("_tree", "_paths", "_fields"))
    values.pop("_cls", None)
    if tree is not None and paths is not None and names is not None:
        by_path = {tuple(path): values[name] for path, name in zip(paths, names, strict=True)}
        values = _filled(tree, by_path, ())
    graph = Graph(data=values)
    parts, hetero = graph.parts()
    return graph.to_pyg() if installed("torch_geometric") else Graph.of_parts(parts, hetero=hetero)


def _filled(tree: Any, tensors: dict[tuple[Any, ...], Any], path: tuple[Any, ...]) -> Any:
    if isinstance(tree, dict):
        return {key: _filled(value, tensors, (*path, key)) for key, value in tree.items()}
    return tensors[path] if tree == TENSOR_MARK else tree
