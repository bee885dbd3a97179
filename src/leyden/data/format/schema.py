"""`Schema`: the tree of a sample and its leaves, and how the schemas of many units become one.

A tree is JSON: nodes `dict`, `tuple`, `list`, `namedtuple` and `graph` with children, and leaves. A leaf's name is its path,
joined by `/`; leaves, and so columns, are ordered by the bytes of their names.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, final

from leyden.data.errors import SchemaError

_WIDER = {("int", "float"): "float", ("float", "int"): "float"}
_FIELDS = ("dtype", "shape", "of", "file")


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of a sample.

    Args:
        name: Its path in the tree; the empty name is a sample that is one leaf.
        type: `bool int float str bytes array list json text jpeg …`.
        nullable: Whether it is `None` in some samples.
        dtype: Of an array's elements.
        shape: Of an array; `None` where a size varies.
        of: `numpy`, `torch` or `scalar`: what an array is given back as.
        file: Which of a chunk's column files holds it; `None` is the chunk itself.
    """

    name: str
    type: str
    nullable: bool = False
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    of: str | None = None
    file: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the leaf's node."""
        node: dict[str, Any] = {"kind": "leaf", "name": self.name, "type": self.type, "nullable": self.nullable}
        for field in _FIELDS:
            value = getattr(self, field)
            if value is not None:
                node[field] = list(value) if isinstance(value, tuple) else value
        if self.type == "array" and self.shape is None:
            node["shape"] = None
        return node

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> "Leaf":
        """Return the leaf of a node."""
        shape = node.get("shape")
        return cls(
            node["name"],
            node["type"],
            node.get("nullable", False),
            node.get("dtype"),
            None if shape is None else tuple(shape),
            node.get("of"),
            node.get("file"),
        )


@final
class Schema:
    """The tree of a sample.

    Args:
        tree: Its JSON.

    Example:
        >>> Schema({"kind": "leaf", "name": "", "type": "int", "nullable": False}).leaves[0].type
        'int'
    """

    __slots__ = ("leaves", "tree")

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.leaves = tuple(sorted(map(Leaf.from_json, leaf_nodes(tree)), key=lambda leaf: leaf.name.encode()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(self.leaves)

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{leaf.name}: {leaf.type}' for leaf in self.leaves)})"

    def to_json(self) -> Mapping[str, Any]:
        """Return the tree as JSON."""
        return self.tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Schema":
        """Return the schema of a tree."""
        return cls(tree)

    def index(self, name: str) -> int:
        """Return the number of a column.

        Raises:
            KeyError: There is no leaf of that name.
        """
        for index, leaf in enumerate(self.leaves):
            if leaf.name == name:
                return index
        raise KeyError(name)

    def with_leaves(self, change: Callable[[Leaf], Leaf]) -> "Schema":
        """Return a schema with each leaf changed."""
        return Schema(_mapped(self.tree, lambda node: change(Leaf.from_json(node)).to_json()))


def leaf_nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the leaves of a tree, in the order of the tree."""
    if tree["kind"] == "leaf":
        yield tree
    else:
        for child in tree["children"]:
            yield from leaf_nodes(child)


def unify_all(schemas: Sequence[Schema], where: Callable[[int], str] = lambda index: f"unit {index}") -> Schema:
    """Return the schema that all samples of all these schemas have, taken in order.

    Args:
        schemas: At least one.
        where: Says which schema disagrees, by its number.

    Raises:
        SchemaError: One of them cannot go with those before it.
    """

    def joined(left: Schema, index: int) -> Schema:
        return unify(left, schemas[index], where(index))

    return reduce(joined, range(1, len(schemas)), schemas[0])


def unify(left: Schema, right: Schema, where: str = "a sample") -> Schema:
    """Return the schema of samples of both.

    `None` with a type is that type, nullable; int with float is float; sizes that differ are open; a list of numbers with
    another list is JSON. Whole-number widths of arrays never mix.

    Args:
        left: What was there before.
        right: What comes.
        where: Where `right` comes from, for the error.

    Raises:
        SchemaError: The two do not go together.
    """
    return left if left.tree == right.tree else Schema(_unified(left.tree, right.tree, where))


def _unified(left: Mapping[str, Any], right: Mapping[str, Any], where: str) -> dict[str, Any]:
    if left["kind"] == "leaf" and right["kind"] == "leaf":
        return unify_leaves(Leaf.from_json(left), Leaf.from_json(right), where).to_json()
    right = _in_order_of(left, right)
    if _frame(left) != _frame(right):
        raise SchemaError(
            f"{where} is built unlike the samples before it: {described(right)} instead of {described(left)}. "
            "Return the same keys and lengths each time; use None for what is missing."
        )
    children = [_unified(a, b, where) for a, b in zip(left["children"], right["children"], strict=True)]
    return {**left, "children": children}


def _in_order_of(left: Mapping[str, Any], right: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a dict with its keys in the order of another one with the same keys: the order of keys says nothing."""
    if left["kind"] != "dict" or right["kind"] != "dict" or left["keys"] == right["keys"] or set(left["keys"]) != set(right["keys"]):
        return right
    children = dict(zip(right["keys"], right["children"], strict=True))
    return {**right, "keys": left["keys"], "children": [children[key] for key in left["keys"]]}


def _frame(node: Mapping[str, Any]) -> tuple[Any, ...]:
    return node["kind"], node.get("keys"), node.get("fields"), node.get("hetero"), len(node.get("children", ()))


def unify_leaves(left: Leaf, right: Leaf, where: str) -> Leaf:
    """Return the leaf that values of both have; the rules and the errors are those of `unify`."""
    nullable = left.nullable or right.nullable
    if "none" in (left.type, right.type):
        return dataclasses.replace(right if left.type == "none" else left, nullable=True, file=left.file)
    kind = left.type if left.type == right.type else _WIDER.get((left.type, right.type))
    if {left.type, right.type} == {"list", "json"}:
        kind = "json"
    if kind == "list" and left.dtype != right.dtype:  # a list of nothing goes with every list
        kind = "json" if None not in (left.dtype, right.dtype) else "list"
    if kind is None or (kind == "array" and (left.dtype, left.of) != (right.dtype, right.of)):
        raise SchemaError(
            f"{where}: leaf {left.name!r} is {_described_leaf(right)}, but it was {_described_leaf(left)} before. "
            "Return the same type each time, for instance float(value) or values.astype('float32')."
        )
    dtype = None if kind == "json" else left.dtype or right.dtype
    return dataclasses.replace(left, type=kind, nullable=nullable, dtype=dtype, shape=_shared(left.shape, right.shape))


def _shared(left: tuple[int | None, ...] | None, right: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
    if left is None or right is None or len(left) != len(right):
        return None
    return tuple(a if a == b else None for a, b in zip(left, right, strict=True))


def described(node: Mapping[str, Any]) -> str:
    """Return a few words for a node: `a dict with keys 'a', 'b'`."""
    if node["kind"] == "leaf":
        return _described_leaf(Leaf.from_json(node))
    if node["kind"] == "dict":
        return f"a dict with keys {', '.join(map(repr, node['keys']))}"
    if node["kind"] == "namedtuple":
        return f"a {node['name']} with fields {', '.join(node['fields'])}"
    return f"a {node['kind']} of {len(node['children'])}"


def _described_leaf(leaf: Leaf) -> str:
    if leaf.type == "array":
        size = "of any rank" if leaf.shape is None else f"({', '.join('?' if n is None else str(n) for n in leaf.shape)})"
        return f"a {leaf.of} array of {leaf.dtype} {size}"
    return f"a list of {leaf.dtype}" if leaf.type == "list" and leaf.dtype else leaf.type


def _mapped(node: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    if node["kind"] == "leaf":
        return change(node)
    return {**node, "children": [_mapped(child, change) for child in node["children"]]}
