"""What was probably meant: the closest name to the one that a parser's error complains about."""

import inspect
import re
from collections.abc import Iterable, Iterator

from leyden.core.errors import ConfigError, closest
from leyden.trainer.cli.instantiate import class_of

_OPTION = re.compile(
    r"unrecognized arguments: --(?P<a>[\w.]+)|does not accept option '(?P<b>[\w.]+)'|[Kk]ey \"(?P<c>[\w.]+)\" is not expected"
    r"|No action for key \"(?P<d>[\w.]+)\""
)
_CHOICE = re.compile(r"invalid choice: '(?P<name>[^']+)' \(choose from (?P<choices>[^)]*)\)")
_ARGUMENT = re.compile(r"class_path '(?P<path>[\w.]+)':\s+Option '(?P<name>[\w.]+)' is not accepted")
_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\w+)")
_WANTED = re.compile(r"<class '(?P<path>[\w.]+)'>")


def suggestion(message: str, options: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for what an error is about, or an empty string.

    Args:
        message: The error.
        options: The parser's arguments.

    Example:
        >>> suggestion("unrecognized arguments: --trainer.max_epoch=3", ["trainer.max_epochs", "trainer.max_steps"])
        " Did you mean 'trainer.max_epochs'?"
    """
    if match := _OPTION.search(message):
        return closest(next(filter(None, match.groups())), _shortened(options, message))
    if match := _CHOICE.search(message):
        return closest(match["name"], re.findall(r"[\w-]+", match["choices"]))
    if match := _ARGUMENT.search(message):
        return closest(match["name"], _parameters(match["path"]))
    if match := _CLASS.search(message):
        return closest(match["name"], {name for path in _WANTED.findall(message) for name in _subclasses(path)})
    return ""


def _shortened(options: Iterable[str], message: str) -> set[str]:
    """Return arguments as the error calls them: without the subcommand where it says which."""
    command = re.search(r"Subcommand '(\w+)' does not accept", message)
    names = set(options)
    return {name.removeprefix(f"{command[1]}.") for name in names} if command else names


def _parameters(path: str) -> Iterable[str]:
    try:
        return inspect.signature(class_of({"class_path": path})).parameters
    except (ConfigError, TypeError, ValueError):
        return ()


def _subclasses(path: str) -> Iterator[str]:
    try:
        pending = [class_of({"class_path": path})]
    except ConfigError:  # a built-in type
        return
    while pending:
        kind = pending.pop()
        yield kind.__name__
        pending.extend(type.__subclasses__(kind))
