"""`Registry`: names → what they make, open to others by `register` and by entry points.

Built-in targets are strings (`"package.module:Class"`), so that filling a registry imports nothing. Entry points are
read once, when a name is not known yet or everything is asked for: looking through all installed packages takes time.
An entry point gives a class, which is registered under the entry point's name, or a function, which is called with the
registry and registers what it likes.
"""

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A registered name: what it makes, and with which arguments."""

    name: str
    target: Callable[..., Any] | str
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """Return the class or function, importing its module if it was registered as a string."""
        if not isinstance(self.target, str):
            return self.target
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


class Registry:
    """Names (in any case) of one kind of thing.

    Args:
        kind: What the names are, for messages: `"strategy"`.
        group: The entry-point group that adds names.
        discover: Lists the entry points of a group.
    """

    def __init__(self, kind: str, group: str, *, discover: Callable[[str], list[EntryPoint]] | None = None) -> None:
        self.kind = kind
        self.group = group
        self._discover = discover or (lambda group: list(entry_points(group=group)))
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def register(
        self, name: str, target: Callable[..., Any] | str | None = None, description: str = "", *, override: bool = False, **options: Any
    ) -> Any:
        """Add a name and return its target; without `target`, return a decorator that adds the class below it.

        Args:
            name: The name, taken in any case.
            target: A class or function, or `"package.module:Class"`, imported at its first use.
            description: One line for people.
            override: Whether the name may be taken already.
            **options: Arguments that `get` passes to the target.

        Raises:
            ConfigError: The name is taken.
        """
        if not isinstance(name, str) or not name:
            raise ConfigTypeError(f"a {self.kind} is registered under a non-empty string, not {name!r}.")
        if target is None:
            return functools.partial(self._register_below, name, description, override=override, **options)
        key = name.lower()
        if key in self._entries and not override:
            raise ConfigError(f"the {self.kind} {name!r} is registered already. Choose another name, or pass override=True.")
        self._entries[key] = Entry(name=key, target=target, description=description, options=options)
        return target

    def remove(self, name: str) -> None:
        """Take a name out.

        Raises:
            ConfigError: There is no such name.
        """
        self.entry(name)
        del self._entries[name.lower()]

    def find(self, name: str) -> Entry | None:
        """Return what is registered under `name`, also by an entry point; else `None`."""
        if name.lower() not in self._entries:
            self.discover()
        return self._entries.get(name.lower())

    def entry(self, name: str) -> Entry:
        """Return what is registered under `name`.

        Raises:
            ConfigError: There is no such name; the message has the closest and all that are there.
        """
        found = self.find(name)
        if found is None:
            raise ConfigError(f"{self.kind}={name!r} is not known.{closest(name, self)} Registered are {listed(self)}.")
        return found

    def get(self, name: str, **more: Any) -> Any:
        """Return a new object of the name: its target called with the registered options and `more`.

        Raises:
            ConfigError: There is no such name.
        """
        entry = self.entry(name)
        return entry.load()(**{**entry.options, **more})

    def discover(self) -> None:
        """Read the entry points, once. One that cannot be loaded is reported and left out."""
        if self._discovered:
            return
        self._discovered = True
        for point in self._discover(self.group):
            try:
                self._adopt(point.name, point.load())
            except Exception as error:  # noqa: BLE001 - a broken plug-in of somebody else must not stop every run
                warnings.warn(f"the entry point {point.name!r} of {self.group} is left out: {type(error).__name__}: {error}", stacklevel=3)

    def _register_below(self, name: str, description: str, target: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        self.register(name, target, description, **options)
        return target

    def _adopt(self, name: str, found: Any) -> None:
        if not inspect.isclass(found):
            found(self)
        elif name.lower() not in self._entries:
            self.register(name, found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
