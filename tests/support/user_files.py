"""Files as users write them, and an interpreter that forgets again what it has imported of them."""

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path


def write(folder: Path, **files: str) -> Path:
    """Write Python files, `name="source"` or `**{"package/name": "source"}`, and return the folder."""
    for name, source in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return folder


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    """Forget afterwards the modules and the paths that came in the meantime."""
    modules, path = set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            module = sys.modules[name]
            if "site-packages" not in (getattr(module, "__file__", None) or "") and not name.startswith(("leyden", "tests")):
                del sys.modules[name]
