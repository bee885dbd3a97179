"""Public names that are imported at their first use (PEP 562), so that importing a package costs nothing.

```python
if TYPE_CHECKING:
    from .trainer import Trainer as Trainer      # type checkers see the real thing, and catch typos
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"Trainer": ".trainer"})
```

A test holds the typed imports and the table to each other.
"""

import importlib
import sys
from collections.abc import Callable, Mapping


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
