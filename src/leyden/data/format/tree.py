"""From samples to columns: a tree of nodes that mirrors the sample, with a `LeafBuilder` at each leaf.

The first sample decides the tree; later ones must be built alike. A sample is added whole or not at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

from leyden.data import types
from leyden.data.codecs import json
from leyden.data.errors import SchemaError
from leyden.data.format.builder import LeafBuilder
from leyden.data.format.column import Column
from leyden.data.format.leaves import LIST_TYPES, LeafRules, text_bytes
from leyden.data.format.schema import Leaf, Schema, described


@final
class SampleBuilder:
    """Collects samples of one structure.

    Args:
        rules: What may be stored.
        token_dtype: Of a token dataset: `auto`, or the type that its numbers are stored in.

    Example:
        >>> samples = SampleBuilder(LeafRules())
        >>> samples.append({"id": 1, "text": "one"})
        19
        >>> [column.kind for column in samples.finish()]
        [1, 2]
    """

    def __init__(self, rules: LeafRules, token_dtype: str | None = None) -> None:
        self._rules, self._token_dtype = rules, token_dtype
        self._root: _Node | None = None
        self._builders: list[LeafBuilder] = []
        self.rows = 0

    @property
    def schema(self) -> Schema:
        """The schema of all samples so far, those of earlier blocks included.

        Raises:
            SchemaError: There was none.
        """
        if self._root is None:
            raise SchemaError("there was no sample, so nothing says what samples look like.")
        return Schema(self._root.to_json())

    def append(self, sample: Any) -> int:
        """Add a sample, and return how many bytes it counts for.

        Raises:
            SchemaError: It cannot be stored, or is built unlike those before; it was not added.
        """
        root = self._root or _checked_root(sample, self._rules, self._token_dtype)
        try:
            cost = root.append(sample)
        except Exception:
            for builder in root.builders():
                builder.keep(self.rows)
            raise
        if self._root is None:
            self._root, self._builders = root, sorted(root.builders(), key=lambda builder: builder.name.encode())
        self.rows += 1
        return cost

    def mark(self) -> "Mark":
        """Return what `go_back` needs, as long as the block is not finished."""
        return Mark(self._root, self._builders, [builder.mark() for builder in self._builders], self.rows)

    def go_back(self, mark: "Mark") -> None:
        """Forget the samples since a mark, and what they said of the schema."""
        self._root, self._builders, self.rows = mark.root, mark.builders, mark.rows
        for builder, before in zip(mark.builders, mark.leaves, strict=True):
            builder.go_back(before, mark.rows)

    def keep(self, rows: int) -> None:
        """Forget the samples of this block after the first `rows`."""
        for builder in self._builders:
            builder.keep(rows)
        self.rows = rows

    def finish(self) -> list[Column]:
        """Return the columns of the samples so far, in the order of the schema's leaves, and begin again."""
        self.rows = 0
        return [builder.finish() for builder in self._builders]


class Mark(NamedTuple):
    """How far a `SampleBuilder` was.

    Args:
        root: Its tree.
        builders: Its leaves.
        leaves: How far each was.
        rows: How many samples there were.
    """

    root: "_Node | None"
    builders: list[LeafBuilder]
    leaves: list[tuple[Any, ...]]
    rows: int


class _Node(ABC):
    """A place in the tree."""

    @abstractmethod
    def append(self, value: Any) -> int:
        """Add what a sample holds here."""

    @abstractmethod
    def builders(self) -> Iterator[LeafBuilder]:
        """Yield the leaves below."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the schema's node."""


@final
class _LeafNode(_Node):
    def __init__(self, builder: LeafBuilder) -> None:
        self._builder = builder
        self.append = builder.append  # type: ignore[method-assign] - one call less for each value

    def append(self, value: Any) -> int:
        return self._builder.append(value)

    def builders(self) -> Iterator[LeafBuilder]:
        yield self._builder

    def to_json(self) -> dict[str, Any]:
        return (self._builder.leaf or Leaf(self._builder.name, "none", nullable=True)).to_json()


@final
class _DictNode(_Node):
    def __init__(self, keys: Sequence[str | int], children: Sequence[_Node], kind: str = "dict", *, hetero: bool | None = None) -> None:
        self._keys, self._children, self._kind, self._hetero = tuple(keys), tuple(children), kind, hetero
        self._pairs = tuple((key, child.append) for key, child in zip(self._keys, self._children, strict=True))

    def append(self, value: Any) -> int:
        if self._kind == "graph":
            value = _graph_parts(value)[0]
        if type(value) is not dict or len(value) != len(self._pairs):
            raise _unlike(value, self)
        try:
            return sum([append(value[key]) for key, append in self._pairs])
        except KeyError as error:
            if error.args and error.args[0] in self._keys and error.args[0] not in value:
                raise _unlike(value, self) from None
            raise

    def builders(self) -> Iterator[LeafBuilder]:
        for child in self._children:
            yield from child.builders()

    def to_json(self) -> dict[str, Any]:
        children = [child.to_json() for child in self._children]
        if self._kind == "graph":
            return {"kind": "graph", "hetero": self._hetero, "keys": list(self._keys), "children": children}
        return {"kind": "dict", "keys": list(self._keys), "children": children}


@final
class _SequenceNode(_Node):
    def __init__(self, kind: type, children: Sequence[_Node]) -> None:
        self._kind, self._children = kind, tuple(children)

    def append(self, value: Any) -> int:
        if type(value) is not self._kind or len(value) != len(self._children):
            raise _unlike(value, self)
        return sum([child.append(item) for child, item in zip(self._children, value, strict=True)])

    def builders(self) -> Iterator[LeafBuilder]:
        for child in self._children:
            yield from child.builders()

    def to_json(self) -> dict[str, Any]:
        children = [child.to_json() for child in self._children]
        fields = getattr(self._kind, "_fields", None)
        if fields is None:
            return {"kind": "list" if self._kind is list else "tuple", "children": children}
        return {"kind": "namedtuple", "name": self._kind.__name__, "fields": list(fields), "children": children}


def _checked_root(sample: Any, rules: LeafRules, token_dtype: str | None) -> _Node:
    """Return the tree of a sample, whose leaves all have names of their own."""
    root = _node_of("", sample, rules, token_dtype)
    names = [builder.name for builder in root.builders()]
    if not names:
        raise SchemaError(f"a sample holds no value at all: {sample!r:.60}. Return None to leave an input out.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SchemaError(f"a sample has two leaves of the name {twice!r}: a key that is empty adds nothing to a name. Give it one.")
    return root


def _node_of(name: str, value: Any, rules: LeafRules, token_dtype: str | None = None) -> _Node:
    """Return the node that takes values such as this one."""
    kind = type(value)
    if isinstance(value, dict):
        return _dict_node(name, value, rules)
    if isinstance(value, tuple) or (kind is list and not _is_leaf_list(value)):
        children = [_node_of(_path(name, str(index)), item, rules) for index, item in enumerate(value)]
        return _SequenceNode(kind, children)
    graph = value if isinstance(value, types.Graph) else types.wrap(value)
    if isinstance(graph, types.Graph):
        parts, hetero = graph.parts()
        nodes = [_node_of(_path(name, str(key)), item, rules) for key, item in parts.items()]
        return _DictNode(tuple(parts), nodes, "graph", hetero=hetero)
    return _LeafNode(LeafBuilder(name, rules, token_dtype))


def _dict_node(name: str, value: dict[Any, Any], rules: LeafRules) -> _DictNode:
    wrong = next((key for key in value if type(key) not in (str, int)), None)
    if wrong is not None or type(value) is not dict:
        given = f"the key {wrong!r}" if wrong is not None else f"a {type(value).__name__}"
        raise SchemaError(
            f"a sample has {given}: dicts with keys of str or int are accepted. Return dict(…) with str(key), or Json(value)."
        )
    names = [_path(name, str(key)) for key in value]
    for path in names:
        text_bytes(path, path)
    if len(set(names)) != len(names):
        raise SchemaError(f"a sample has two keys of one name, {', '.join(map(repr, value))}: 1 and '1' cannot be told apart.")
    return _DictNode(tuple(value), [_node_of(path, item, rules) for path, item in zip(names, value.values(), strict=True)])


def _is_leaf_list(value: list[Any]) -> bool:
    kinds = set(map(type, value))
    return (len(kinds) <= 1 and kinds <= LIST_TYPES.keys()) or json.is_json(value)


def _path(name: str, key: str) -> str:
    escaped = key.replace("~", "~0").replace("/", "~1")
    return f"{name}/{escaped}" if name else escaped


def _graph_parts(value: Any) -> tuple[dict[str, Any], bool]:
    graph = value if isinstance(value, types.Graph) else types.wrap(value)
    if not isinstance(graph, types.Graph):
        raise SchemaError(f"this sample holds a {type(value).__name__} where the others hold a graph.")
    return graph.parts()


def _unlike(value: Any, node: _Node) -> SchemaError:
    given = f"a dict with keys {', '.join(map(repr, value))}" if isinstance(value, dict) else f"a {type(value).__name__}"
    size = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
    return SchemaError(
        f"this sample is built unlike those before it: {given}{size} instead of {described(node.to_json())}. "
        "Return the same keys and lengths each time; use None for what is missing."
    )
