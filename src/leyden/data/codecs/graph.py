"""Graphs: PyG's `Data` and `HeteroData`, and `leyden.data.Graph`, as trees of arrays; nothing is pickled.

A graph's parts are `{field: array}`; in a heterogeneous one the fields of a node type or edge type form a dict of their own,
and an edge type's three names are joined by `__`. What is no array goes as one JSON value under `REST`.
"""

import sys
from collections.abc import Mapping
from typing import Any

from leyden.core.errors import ConfigError
from leyden.data.codecs.json import is_json

REST = "__rest__"
JOINT = "__"


def is_pyg(value: Any) -> bool:
    """Return whether the value is a graph of PyTorch Geometric, without importing it."""
    module = sys.modules.get("torch_geometric.data")
    return module is not None and isinstance(value, (module.Data, module.HeteroData))


def parts_of(fields: Mapping[Any, Any]) -> tuple[dict[str, Any], bool]:
    """Return the tree of a graph's fields and whether it is heterogeneous.

    Args:
        fields: As PyG's `to_dict` gives them: names to arrays, or node types and edge types to dicts of such.

    Raises:
        ConfigError: A field is neither an array nor JSON-able.
    """
    tree: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in fields.items():
        name = JOINT.join(key) if isinstance(key, tuple) else key
        if isinstance(value, Mapping) and key != "_global_store" and any(map(_is_array, value.values())):
            arrays, others = _split(value)
            tree[name] = arrays
            if others:
                rest[name] = others
        else:
            _place(name, value, tree, rest)
    hetero = any(isinstance(value, dict) for value in tree.values())
    return {**tree, REST: rest}, hetero


def fields_of(parts: Mapping[str, Any], *, hetero: bool) -> dict[Any, Any]:
    """Return the fields that `parts_of` took apart."""
    rest = parts.get(REST) or {}
    fields: dict[Any, Any] = {}
    for name, value in parts.items():
        if name == REST:
            continue
        fields[_key(name, hetero=hetero)] = {**value, **rest.get(name, {})} if isinstance(value, Mapping) else value
    return fields | {_key(name, hetero=hetero): value for name, value in rest.items() if name not in parts}


def _key(name: str, *, hetero: bool) -> Any:
    names = tuple(name.split(JOINT))
    return names if hetero and len(names) == 3 else name


def _split(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    arrays: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in fields.items():
        _place(name, value, arrays, rest)
    return arrays, rest


def _place(name: str, value: Any, arrays: dict[str, Any], rest: dict[str, Any]) -> None:
    if _is_array(value):
        arrays[name] = value
    elif is_json(value) or (isinstance(value, Mapping) and is_json(dict(value))):
        rest[name] = value
    else:
        raise ConfigError(f"graph field {name!r} is a {type(value).__name__}: a field is an array, a tensor or a JSON value.")


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
