"""Logging: libraries speak to the logger `leyden` and never print; a command line program decides what is shown.

Modules take `get_logger(__name__)`. Until a program calls `configure`, or sets up `logging` itself, nothing is shown.
What a user must see even then is a `warnings.warn` or an exception.

What a record is about (a request, a job) travels beside its message: as `extra={"fields": {...}}` of one record, or for all records
of a thread or task by `about`. JSON lines hold it; text ends with the `request_id` where the message does not say it.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, Protocol, TextIO, final

from leyden.core import settings
from leyden.core.errors import ConfigError
from leyden.core.optional import require

_ROOT = "leyden"
_RANKS = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "LOCAL_RANK")  # the first that is set
_WARNINGS = "py.warnings"  # the logger of `logging.captureWarnings`
_MOST_IDS = 4  # that a line of text names
logging.getLogger(_ROOT).addHandler(logging.NullHandler())  # else Python shows warnings of libraries on stderr

Style = Literal["text", "json", "rich"]


class Subject(Protocol):
    """What log records may be about."""

    def log_fields(self) -> Mapping[str, object]:
        """Return the facts that are shown beside a message: `request_id`, `trace_id` and others."""
        ...


_SUBJECT: ContextVar[Subject | None] = ContextVar("leyden_log_subject", default=None)
about: Final = _SUBJECT.set  # what the records of this thread or task are about from now on; `None`: nothing


@contextmanager
def speaking_of(subject: Subject | None) -> Iterator[None]:
    """Let the records of this thread or task be about something, while the context lasts."""
    token = _SUBJECT.set(subject)
    try:
        yield
    finally:
        _SUBJECT.reset(token)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSetup:
    """How records are shown; processes hand it to those that they start.

    Args:
        level: The least severe record that is shown.
        style: `"text"`, `"json"` (one object a line), or `"rich"` (in colours).
        format: Of text, with the names of `logging` and `request_id`, `trace_id`, `api`; ours by default.
        also: Further loggers that are shown in the same way.
        stream: Where to.
        is_chosen: Whether the user has chosen it, so that no program overrides it.
    """

    level: str = "warning"
    style: Style = "text"
    format: str | None = None
    also: tuple[str, ...] = ()
    stream: Literal["stdout", "stderr"] = "stderr"
    is_chosen: bool = False


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
    json: bool | None = None,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Show Leyden's log records; for programs, not for libraries. A second call replaces the first.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`; by default the setting `LEYDEN_LOG_LEVEL`.
        json: Whether to write one JSON object a line, for machines, instead of text; by default the setting `LEYDEN_LOG_FORMAT`.
        stream: Where to; by default `sys.stderr`.
        environ: Where ranks and settings are looked up; by default the process's environment.

    Raises:
        ConfigError: No such level.
    """
    environ = settings.environment() if environ is None else environ
    setup = by_settings(environ, level)
    show(setup if json is None else replace(setup, style="json" if json else "text"), stream=stream, environ=environ)


def by_settings(environ: Mapping[str, str] | None = None, level: str | None = None) -> LogSetup:
    """Return the setup of a program that says nothing.

    Args:
        environ: Where settings are looked up; by default the process's environment.
        level: Instead of the setting `LEYDEN_LOG_LEVEL`.

    Raises:
        ConfigError: No such level, or a setting is not accepted.

    Example:
        >>> by_settings({"LEYDEN_LOG_FORMAT": "json"}).style
        'json'
    """
    chosen = settings.get("LEYDEN_LOG_LEVEL", environ if level is None else {"LEYDEN_LOG_LEVEL": level})
    return LogSetup(level=chosen, style=settings.get("LEYDEN_LOG_FORMAT", environ))


def show(
    setup: LogSetup,
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    always: Mapping[str, object] | None = None,
) -> None:
    """Show Leyden's log records as a setup says; replaces what was shown before.

    Args:
        setup: How.
        stream: Where to, if not to the setup's stream.
        environ: Where ranks are looked up; by default the process's environment.
        always: Facts of this process that JSON lines hold; by default those that they held before.

    Raises:
        MissingDependencyError: `rich` is not installed.
    """
    target = stream or (sys.stdout if setup.stream == "stdout" else sys.stderr)
    kept = next((each.always for each in _formatters()), {}) if always is None else always
    formatter = _Formatter(setup, settings.environment() if environ is None else environ, kept)
    handler = _rich_handler(target) if setup.style == "rich" else logging.StreamHandler(target)
    handler.setFormatter(formatter)
    hide()
    for name in (_ROOT, *setup.also):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(setup.level.upper())
    if setup.style == "json":  # else warnings would be the only lines that are none
        logging.captureWarnings(True)  # noqa: FBT003 - the standard library's signature
        logging.getLogger(_WARNINGS).addHandler(handler)


def hide() -> None:
    """Show nothing any more."""
    for handler in list(logging.getLogger(_ROOT).handlers):
        if not isinstance(handler.formatter, _Formatter):
            continue
        setup = handler.formatter.setup
        for name in (_ROOT, _WARNINGS, *setup.also):
            logging.getLogger(name).removeHandler(handler)
        if setup.style == "json":
            logging.captureWarnings(False)  # noqa: FBT003 - the same


def shown() -> LogSetup | None:
    """Return how this process shows records; `None` if it does not."""
    return next((each.setup for each in _formatters()), None)


def _formatters() -> "list[_Formatter]":
    """Return how records are shown: one, or none."""
    return [each.formatter for each in logging.getLogger(_ROOT).handlers if isinstance(each.formatter, _Formatter)]


def _rich_handler(stream: TextIO) -> logging.Handler:
    handler = require("rich.logging", purpose="logs in colours", package="rich").RichHandler
    console = require("rich.console", purpose="logs in colours", package="rich").Console
    return handler(console=console(file=stream), show_path=False, rich_tracebacks=True, markup=False)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record is about: its own fields, and those of the thread's or task's subject; where it is formatted."""
    subject = _SUBJECT.get()
    found = {} if subject is None else dict(subject.log_fields())
    return found | getattr(record, "fields", {})


def current_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank that a launcher has given this process, or `None` without one.

    Example:
        >>> current_rank({"RANK": "3"}), current_rank({})
        (3, None)
    """
    text = next((environ[name] for name in _RANKS if environ.get(name)), "")
    return int(text) if text.isdecimal() else None


@final
class _Formatter(logging.Formatter):
    """Formats as a setup says; ranks are read for each record, since they come late.

    `12:30:05 WARNING [rank 1] leyden.fabric.launch: …` · `{"time": …, "level": …, "logger": …, "message": …, "pid": …}`
    """

    def __init__(self, setup: LogSetup, environ: Mapping[str, str], always: Mapping[str, object]) -> None:
        ours = "%(message)s" if setup.style == "rich" else "%(asctime)s %(levelname)s %(prefix)s%(name)s: %(message)s"
        super().__init__(setup.format or ours, None if setup.format else "%H:%M:%S")
        self.setup = setup
        self._environ, self.always = environ, always

    def format(self, record: logging.LogRecord) -> str:
        fields = {**self.always, **fields_of(record)}
        return self._json(record, fields) if self.setup.style == "json" else self._text(record, fields)

    def _text(self, record: logging.LogRecord, fields: Mapping[str, object]) -> str:
        rank = current_rank(self._environ)
        record.prefix = "" if rank is None else f"[rank {rank}] "
        names = _names(fields)
        for name, value in (("request_id", names), ("trace_id", fields.get("trace_id")), ("api", fields.get("api"))):
            setattr(record, name, value or "-")
        if self.setup.format or not names or names in record.getMessage():
            return super().format(record)
        kept = record.msg, record.args
        record.msg, record.args = f"{record.getMessage()} ({names})", None
        try:
            return super().format(record)
        finally:
            record.msg, record.args = kept

    def _json(self, record: logging.LogRecord, fields: Mapping[str, object]) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        line |= {name: value for name, value in fields.items() if name not in line}
        rank = current_rank(self._environ)
        if rank is not None:
            line["rank"] = rank
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _names(fields: Mapping[str, object]) -> str:
    """Return the request, or the requests of a batch, that a record is about."""
    if "request_id" in fields:
        return str(fields["request_id"])
    several = fields.get("request_ids")
    names = [str(each) for each in several] if isinstance(several, Sequence) else []
    more = [f"… {len(names) - _MOST_IDS} more"] if len(names) > _MOST_IDS else []
    return ", ".join([*names[:_MOST_IDS], *more])
