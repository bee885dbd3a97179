"""Public names that are imported at their first use (PEP 562), so that importing a package costs nothing.

```python
if TYPE_CHECKING:
    from .trainer import Trainer as Trainer      # type checkers see the real thing, and catch typos
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"Trainer": ".trainer"})
```

A test holds the typed imports and the table to each other. `Later` is the same for a module that another one needs only once
something happens: a run, a save.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def exports(package: str, table: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package whose names live in the modules of `table`.

    Args:
        package: The package's `__name__`.
        table: Public name → module that defines it, relative (`.fabric`) or absolute. A name equal to the last part of
            its module stands for the module itself when the module has no attribute of that name.

    Raises:
        AttributeError: On access, for a name that is not in the table.
    """

    def getattr_(name: str) -> object:
        if name not in table:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(table[name], package)
        value = getattr(module, name, module) if table[name].rsplit(".", 1)[-1] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)  # the second access does not come here
        return value

    return getattr_, lambda: sorted(table), list(table)


class Later:
    """A module that is imported when something of it is first used.

    Args:
        name: Its full name.

    Example:
        >>> Later("json").dumps([1])
        '[1]'
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)  # what copying and pickling ask for
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # the second access does not come here
        return value
