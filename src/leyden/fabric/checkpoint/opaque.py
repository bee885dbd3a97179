"""`Opaque`: what stands in a tree for a value whose class the importer did not import; how to find and name them."""

import argparse
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass(eq=False, slots=True, repr=False)
class Opaque:
    """A value whose class was not imported: what the file says about it, and nothing that runs.

    Args:
        name: The class or function, as `module.name`.
        args: What it would have been called with; `None` if the name itself was stored.
        state: What would have been set on it afterwards.
        items: Elements or `(key, value)` pairs it would have been given.
        kwargs: Keyword arguments of the call.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: Any = None
    items: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Opaque({self.name!r})"


def is_namespace(value: Any) -> bool:
    """Return whether a value is an attribute holder without methods: `argparse.Namespace` or `SimpleNamespace`."""
    return type(value) in (argparse.Namespace, SimpleNamespace)


def opaque_values(tree: Any, path: str = "") -> Iterator[tuple[str, Opaque]]:
    """Yield the place and the value of every `Opaque` in plain containers.

    Args:
        tree: What a reader returned.
        path: How the tree is reached.

    Example:
        >>> [place for place, _ in opaque_values({"hparams": {"augment": Opaque("research.Mixup")}})]
        ["['hparams']['augment']"]
    """
    yield from _opaque_values(tree, path, set())


def _opaque_values(tree: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Opaque]]:
    if isinstance(tree, Opaque):
        yield path, tree
        return
    children = _children(tree)
    if children is None or id(tree) in seen:
        return
    seen.add(id(tree))
    for step, child in children:
        yield from _opaque_values(child, path + step, seen)


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    if isinstance(tree, Mapping):
        return [(f"[{key!r}]", item) for key, item in tree.items()]
    if isinstance(tree, (list, tuple, set, frozenset)):
        return [(f"[{index}]", item) for index, item in enumerate(tree)]
    if is_namespace(tree):
        return [(f".{name}", item) for name, item in vars(tree).items()]
    return None


def warn_of_opaque(tree: Any, where: str) -> None:
    """Warn once, with places and names, of values whose classes were not imported.

    Args:
        tree: What a reader returned.
        where: The file, for the message.
    """
    found = [f"{value.name} at {place}" for place, value in opaque_values(tree)]
    if found:
        shown = "; ".join(found[:10]) + (f"; and {len(found) - 10} more" if len(found) > 10 else "")
        warnings.warn(
            f"{where} holds {len(found)} value(s) of classes that are not read, since that would run their code: {shown}. "
            "Each is an inert leyden Opaque(name, args, state) now.",
            UserWarning,
            stacklevel=3,
        )
