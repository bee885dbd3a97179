"""Logging: libraries speak to the logger `leyden` and never print; a command line program decides what is shown.

Modules take `get_logger(__name__)`. Until a program calls `configure`, or sets up `logging` itself, nothing is shown.
What a user must see even then is a `warnings.warn` or an exception.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO, final

from leyden.core import settings
from leyden.core.errors import ConfigError

_ROOT = "leyden"
_RANKS = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "LOCAL_RANK")  # the first that is set
logging.getLogger(_ROOT).addHandler(logging.NullHandler())  # else Python shows warnings of libraries on stderr


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module of Leyden; pass `__name__`.

    Raises:
        ConfigError: The name lies outside of the package, where its records would escape `configure`.
    """
    if name != _ROOT and not name.startswith(_ROOT + "."):
        raise ConfigError(f"{name!r} is not below the logger {_ROOT!r}: pass __name__ of a module of Leyden.")
    return logging.getLogger(name)


def configure(
    level: str | None = None,
    *,
    json: bool = False,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Show Leyden's log records; for programs, not for libraries. A second call replaces the first.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`; by default the setting `LEYDEN_LOG_LEVEL`.
        json: Whether to write one JSON object a line, for machines, instead of text.
        stream: Where to; by default `sys.stderr`.
        environ: Where ranks and settings are looked up; by default the process's environment.

    Raises:
        ConfigError: No such level.
    """
    environ = settings.environment() if environ is None else environ
    chosen = settings.get("LEYDEN_LOG_LEVEL", environ if level is None else {"LEYDEN_LOG_LEVEL": level})
    handler = _ShownHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter(environ) if json else _TextFormatter(environ))
    logger = logging.getLogger(_ROOT)
    for old in [each for each in logger.handlers if isinstance(each, _ShownHandler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(chosen.upper())


def current_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank that a launcher has given this process, or `None` without one.

    Example:
        >>> current_rank({"RANK": "3"}), current_rank({})
        (3, None)
    """
    text = next((environ[name] for name in _RANKS if environ.get(name)), "")
    return int(text) if text.isdecimal() else None


@final
class _ShownHandler(logging.StreamHandler[TextIO]):
    """The handler of `configure`; a class of its own, so that the next call finds it."""


@final
class _TextFormatter(logging.Formatter):
    """`12:30:05 WARNING [rank 1] leyden.fabric.launch: …`; ranks are read for each record, since they come late."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(prefix)s%(name)s: %(message)s", "%H:%M:%S")
        self._environ = environ

    def format(self, record: logging.LogRecord) -> str:
        rank = current_rank(self._environ)
        record.prefix = "" if rank is None else f"[rank {rank}] "
        return super().format(record)


@final
class _JsonFormatter(logging.Formatter):
    """One JSON object a line: `time level logger message`, and `rank` and `traceback` where there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._environ = environ

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        rank = current_rank(self._environ)
        if rank is not None:
            line["rank"] = rank
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
