"""What a server writes about itself and its requests: `configure_logging`, and how the processes of a server agree on it.

The setup of the process that starts a server goes to its workers and its logger process (front ends are forked, and have it). Lines
about a request name it: those of hooks by what their thread or task is about (`leyden.core.log.about`), access lines by the fields of
their records. With JSON, colours or a format of one's own, uvicorn's lines are written in the same way.
"""

import copy
import dataclasses
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from leyden.core import log
from leyden.core.errors import ConfigError, closest, listed
from leyden.core.lazy import Later
from leyden.core.optional import require

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_UVICORN: Final = ("uvicorn", "uvicorn.error", "uvicorn.access")
_ACCESS: Final = "uvicorn.access"
_NUM_ACCESS_ARGUMENTS: Final = 5  # of uvicorn's access lines: client, method, path, version, status
_config: Any = Later("uvicorn.config")
_logger = log.get_logger(__name__)


def configure_logging(
    level: "str | int" = logging.INFO,
    format: str | None = None,
    stream: TextIO | None = None,
    use_rich: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    *,
    json: bool = False,
    also: Sequence[str] = (),
) -> None:
    """Choose how a server's log is written, in all of its processes; call it before `run`, or where `server.app` is made.

    Args:
        level: The least severe record that is written: `"debug"`, `"info"`, `logging.WARNING`, …
        format: Of text, as in `logging`, with `%(request_id)s`, `%(trace_id)s` and `%(api)s` beside the usual names.
        stream: Where to; by default `sys.stdout`. Workers write to `sys.stderr` if it is neither of the two.
        use_rich: Whether lines and tracebacks are written in colours.
        json: Whether each line is a JSON object: `time level logger message pid`, and `request_id trace_id api client method path
            status seconds traceback` where there are such.
        also: Names of further loggers that are written in the same way, such as that of your own package.

    Raises:
        ConfigError: No such level, or two ways at once.
        MissingDependencyError: `rich` is not installed.

    Example:
        ```python
        configure_logging(json=True, also=["my_models"])
        LitServer(Classifier()).run()
        ```
    """
    if sum((json, use_rich, format is not None)) > 1:
        raise ConfigError("configure_logging() takes one of json=True, use_rich=True and format='…', not two of them.")
    setup = log.LogSetup(
        level=_level(level),
        style="json" if json else "rich" if use_rich else "text",
        format=_format(format),
        also=tuple(also),
        stream="stdout" if stream in {None, sys.stdout} else "stderr",
        is_chosen=True,
    )
    log.show(_with_uvicorn(setup), stream=stream)


def prepare(level: str, *, pretty: bool) -> None:
    """Show records, for a server that runs: as the user has chosen before, else with this level.

    Args:
        level: That `run` was given.
        pretty: Whether in colours.

    Raises:
        ConfigError: No such level.
        MissingDependencyError: `rich` is not installed.
    """
    shown = log.shown()
    if pretty:
        log.show(_with_uvicorn(log.LogSetup(level=_level(level), style="rich")))
    elif shown is None:
        log.configure(_level(level))
        shown = log.shown() or log.LogSetup()
        if _is_uniform(shown):
            log.show(_with_uvicorn(shown))
    elif not shown.is_chosen:
        log.show(_with_uvicorn(dataclasses.replace(shown, level=_level(level))))


def announce(text: str) -> None:
    """Say what a program says in any case: on standard output, or as a line of JSON."""
    shown = log.shown()
    if shown is not None and shown.style == "json":
        _logger.log(logging.getLevelNamesMapping()[shown.level.upper()], text)
    else:
        print(text, flush=True)  # noqa: T201 - what a program says


def uvicorn_config() -> "dict[str, Any] | None":
    """Return uvicorn's setting `log_config`: its own look with the names of requests; `None` if its lines are written as ours."""
    shown = log.shown()
    if shown is not None and _is_uniform(shown):
        return None
    config = copy.deepcopy(_config.LOGGING_CONFIG)
    config["filters"] = {"access": {"()": AccessFields}}
    config["handlers"]["access"]["filters"] = ["access"]
    config["formatters"]["access"]["fmt"] += " %(request_id)s"
    return config


class AccessFields(logging.Filter):
    """Lets all records pass; those of uvicorn's access log get what they say as fields."""

    def filter(self, record: logging.LogRecord) -> bool:
        fields = log.fields_of(record)
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == _NUM_ACCESS_ARGUMENTS:
            client, method, path, _, status = arguments
            fields = {**fields, "client": client, "method": method, "path": path, "status": status}
        record.fields = fields
        record.request_id = fields.get("request_id", "-")
        return True


def _is_uniform(setup: log.LogSetup) -> bool:
    """Return whether uvicorn's lines are to look as ours."""
    return setup.style != "text" or setup.format is not None


def _with_uvicorn(setup: log.LogSetup) -> log.LogSetup:
    """Return a setup that has uvicorn's loggers, if their lines are to look as ours; their own handlers go."""
    if not _is_uniform(setup):
        return setup
    if setup.style == "rich":
        require("rich", purpose="logs in colours")
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != _UVICORN[0]
    access = logging.getLogger(_ACCESS)
    if not any(isinstance(each, AccessFields) for each in access.filters):
        access.addFilter(AccessFields())
    return dataclasses.replace(setup, also=tuple(dict.fromkeys((*setup.also, _UVICORN[0]))))


def _level(level: object) -> str:
    name = logging.getLevelName(level) if isinstance(level, int) else str(level)
    name = {"trace": "debug", "warn": "warning", "fatal": "critical"}.get(name.lower(), name.lower())
    if name not in LEVELS:
        raise ConfigError(f"level={level!r} is not accepted: it takes one of {listed(LEVELS)}.{closest(str(level), LEVELS)}")
    return name


def _format(text: str | None) -> str | None:
    if text is not None:
        try:
            logging.Formatter(text)
        except ValueError as error:
            raise ConfigError(f"format={text!r:.200} is not accepted: {error}. Write names such as %(asctime)s %(message)s.") from error
    return text
