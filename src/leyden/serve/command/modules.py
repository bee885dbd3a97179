"""`Target`: the file or module that a user names, and its import under the name by which worker processes import it too.

Classes travel to workers by name. So a file is imported as the module that it is: `server.py` as `server`, with its folder first on
the path, as `python server.py` has it; a file of a package as `package.server`, with the folder that holds the package. Workers
inherit the path. The block below `if __name__ == "__main__":` does not run.
"""

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from leyden.core.errors import ConfigError, LeydenError, NotFoundError, closest

_OURS = f"{Path(__file__).parents[2]}/"


class Target(NamedTuple):
    """What a user names.

    Args:
        place: A file, or a module with dots.
        name: What to take of it; empty to look for it.
    """

    place: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read `FILE[:NAME]` or `package.module[:NAME]`.

        Example:
            >>> Target.parse("server.py:api"), Target.parse("models.server")
            (Target(place='server.py', name='api'), Target(place='models.server', name=''))
        """
        place, colon, name = text.rpartition(":")
        if not colon or Path(text).exists():
            return cls(text)
        return cls(place, name)

    @property
    def is_file(self) -> bool:
        """Whether it is the path of a file, not the name of a module."""
        return self.place.endswith(".py") or "/" in self.place or Path(self.place).exists()

    def folder(self) -> Path:
        """Return the folder from which it is imported.

        Raises:
            NotFoundError: The file is not there.
            ConfigError: It is no Python file.
        """
        return module_of(checked_file(self.place))[0] if self.is_file else Path.cwd()

    def load(self) -> ModuleType:
        """Import it.

        Raises:
            NotFoundError: There is no such file or module.
            ConfigError: It is no Python file, cannot have its name, or raises while it is imported.
        """
        if not self.is_file:
            return _imported(self.place, self._checked_module())
        path = checked_file(self.place)
        root, name = module_of(path)
        _put_first(root)
        present = sys.modules.get(name)
        if present is not None and not _is_of(present, path):
            raise _hidden(path, present)
        module = _imported(name, path)
        if not _is_of(module, path):
            raise _hidden(path, module)
        return module

    def _checked_module(self) -> Path | None:
        """Return the file of a module, if it has one; packages above it are imported."""
        _put_first(Path.cwd())
        with explained(None):
            try:
                spec = importlib.util.find_spec(self.place)
            except ModuleNotFoundError as error:
                if not f"{self.place}.".startswith(f"{error.name}."):
                    raise  # a package above it lacks something
                spec = None
            except ValueError:  # of a name such as `a..b`, or a module without a spec
                spec = None
        if spec is None:
            raise _absent(self.place)
        return Path(spec.origin) if spec.has_location and spec.origin else None


def checked_file(place: str) -> Path:
    """Return the path of a Python file, from the root.

    Raises:
        NotFoundError: It is not there.
        ConfigError: It is something else.
    """
    path = Path(place)
    if path.is_dir():
        raise ConfigError(f"{place!r} is a folder: name the Python file in it, such as {str(path / 'server.py')!r}.")
    if not path.is_file():
        raise _absent(place)
    if path.suffix != ".py" or "." in path.stem or path.stem == "__main__":
        raise ConfigError(f"{place!r} cannot be imported under its name, which workers need: call it something like server.py.")
    return path.resolve()


def module_of(path: Path) -> tuple[Path, str]:
    """Return the folder from which a file is imported, and its name as a module there.

    Args:
        path: Of the file, from the root.

    Example:
        >>> module_of(Path("/srv/no-package/server.py"))
        (PosixPath('/srv/no-package'), 'server')
    """
    folder, parts = path.parent, list[str]() if path.name == "__init__.py" else [path.stem]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


@contextlib.contextmanager
def explained(path: Path | None) -> Iterator[None]:
    """Say in one line what a user's code raises, and at which line.

    Args:
        path: Of the user's file; where it is unknown, the last place counts.

    Raises:
        ConfigError: It raised.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        place = _place_of(error, path)
        if isinstance(error, LeydenError) and not place:
            raise  # ours, about what was named
        raise ConfigError(f"{place}{_said(error)}") from error


def _imported(name: str, path: Path | None) -> ModuleType:
    with explained(path):
        return importlib.import_module(name)


def _put_first(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def _is_of(module: ModuleType, path: Path) -> bool:
    found = getattr(module, "__file__", None)
    return found is not None and Path(found).resolve() == path


def _hidden(path: Path, module: ModuleType) -> ConfigError:
    found = getattr(module, "__file__", None) or "a part of Python"
    return ConfigError(f"{path.name} has the name of a module that is imported already ({module.__name__}, {found}): rename the file.")


def _absent(place: str) -> NotFoundError:
    path = Path(place)
    with contextlib.suppress(OSError):
        near = [str(each) for each in path.parent.glob("*.py")]
        hint = closest(place, near) or closest(place + ".py", near)
        return NotFoundError(f"there is no file and no module {place!r} here.{hint} Name a Python file, or a module as package.module.")
    return NotFoundError(f"there is no file {place!r}.")


def _place_of(error: BaseException, path: Path | None) -> str:
    """Return where in the user's file something went wrong, as a beginning of the message."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<frozen", _OURS))]
    folder = f"{path.parent}/" if path is not None else ""
    own = [frame for frame in frames if frame.filename.startswith(folder) and "site-packages" not in frame.filename.removeprefix(folder)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""


def _said(error: BaseException) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, LeydenError):
        return message
    if isinstance(error, SystemExit):
        return f'it ends the program while it is imported (SystemExit: {message or 0}). Do that below `if __name__ == "__main__":`.'
    return f"{type(error).__name__}: {message}"[:2000]
