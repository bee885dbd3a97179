"""What checkpoints are called: templates filled with metrics, free names, the default directory. Pure but for one `realpath`."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from string import Formatter
from typing import Any

from torch import Tensor

from leyden.core.errors import ConfigError
from leyden.core.storage import is_url


def fill(template: str, metrics: Mapping[str, Any], *, inserts_names: bool = True, equals: str = "=") -> str:
    """Return a template with its `{name:format}` replaced by metrics; an absent one is 0.

    Args:
        template: Names may hold anything but braces, `:` and `!`, such as `val/acc`.
        metrics: Numbers and one-element tensors.
        inserts_names: Whether a value comes after its name: `{epoch}` becomes `epoch=3`.
        equals: What joins the two.

    Raises:
        ConfigError: The braces do not match, or a format does not fit its value.

    Example:
        >>> fill("{epoch:02d}-{val/loss:.2f}", {"epoch": 3, "val/loss": 0.123})
        'epoch=03-val/loss=0.12'
        >>> fill("best-{missing}", {}, inserts_names=False)
        'best-0'
    """
    parts: list[str] = []
    for literal, name, form, conversion in _parsed(template):
        parts.append(literal)
        if name is None:
            continue
        if not name:
            raise ConfigError(f"filename={template!r} has braces without a name. Write which metric goes there, such as '{{epoch}}'.")
        value = plain(metrics.get(name, 0))
        text = _formatted(template, name, value, form or "", conversion)
        parts.append(f"{name}{equals}{text}" if inserts_names else text)
    return "".join(parts)


def pattern(template: str) -> str:
    """Return a regular expression for what `fill` makes of a template.

    Example:
        >>> pattern("last{epoch}")
        'last.*'
    """
    parts = [(re.escape(literal), name) for literal, name, _, _ in _parsed(template)]
    return "".join(literal if name is None else f"{literal}.*" for literal, name in parts)


def plain(value: Any) -> Any:
    """Return the number in a one-element tensor; everything else as it is."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def first_free(candidates: Iterator[str], is_taken: Callable[[str], bool]) -> str:
    """Return the first candidate that is not taken.

    Example:
        >>> first_free(versions("a", first=1), {"a", "a-v1"}.__contains__)
        'a-v2'
    """
    return next(name for name in candidates if not is_taken(name))


def versions(stem: str, *, first: int, join: str = "-") -> Iterator[str]:
    """Yield `stem`, then `stem-v1`, `stem-v2`, … from `first` on."""
    yield stem
    while True:
        yield f"{stem}{join}v{first}"
        first += 1


def absolute(dirpath: str | os.PathLike[str]) -> str:
    """Return a directory as checkpoints are named by: a URL as it is without its last slash, a path real and absolute."""
    text = os.fspath(dirpath)
    if is_url(text) and not text.startswith("file://"):
        return text.rstrip("/")
    return os.path.realpath(os.path.expanduser(text.removeprefix("file://")))  # noqa: PTH111 - a string stays a string


def join(directory: str | None, name: str) -> str:
    """Return the path or URL of a name in a directory; `None` leaves the name alone.

    Example:
        >>> join("s3://bucket/run", "last.ckpt"), join(None, "last.ckpt")
        ('s3://bucket/run/last.ckpt', 'last.ckpt')
    """
    if directory is None:
        return name
    return f"{directory}/{name}" if is_url(directory) else os.path.join(directory, name)  # noqa: PTH118 - names are strings


def default_directory(loggers: list[Any], root: str) -> str:
    """Return where checkpoints go if nobody says: beside the first logger's files, else below the root directory."""
    if not loggers:
        return join(root, "checkpoints")
    logger = loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    directory = root if logger.save_dir is None else os.fspath(logger.save_dir)
    for part in (str(logger.name or ""), version, "checkpoints"):
        directory = join(directory, part) if part else directory
    return directory


def lies_in(path: str, directory: str) -> bool:
    """Return whether a path or URL is below a directory.

    Example:
        >>> lies_in("/runs/a/x.ckpt", "/runs/a"), lies_in("/runs/ab/x.ckpt", "/runs/a")
        (True, False)
    """
    return path.startswith(directory.rstrip("/") + "/")


def _parsed(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"filename={template!r}: {error}. A metric stands in braces, such as '{{val_loss:.2f}}'.") from error


def _formatted(template: str, name: str, value: Any, form: str, conversion: str | None) -> str:
    try:
        return format(Formatter().convert_field(value, conversion), form)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"filename={template!r}: {name!r} is {value!r}, which the format {form!r} does not fit: {error}. "
            f"Numbers with a fraction take one such as '{{{name}:.2f}}'."
        ) from error
