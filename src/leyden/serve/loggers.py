"""`Logger`: takes what hooks hand to `LitAPI.log`, away from the requests.

Loggers run in one process of their own (`logger_process.py`), so that a slow one costs no request anything. One with an app that
is mounted runs in each front end instead, in a thread (`front/mounted.py`): that app shows the numbers of its own process.
"""

import inspect
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.log import get_logger
from leyden.serve.log_values import unpack

_QUIET_SECONDS = 10.0  # between two lines about the same failure
_logger = get_logger(__name__)


class Mount(NamedTuple):
    """An ASGI app of a logger's, and where it answers."""

    path: str
    app: Any


class Logger(ABC):
    """Takes the values that `LitAPI.log` is called with. Subclass it, and pass objects as `LitServer(…, loggers=[…])`.

    The object goes to the logger process by pickle; one that cannot is made anew there, from its class.

    Example:
        >>> class Printing(Logger):
        ...     def process(self, key, value):
        ...         print(f"{key}: {value}")
        >>> Printing().process("loss", 0.5)
        loss: 0.5
    """

    _mount: Mount | None = None

    def mount(self, path: str, app: Any) -> None:
        """Let an ASGI app answer at a path, with what this logger has counted: `process` is then called in each front end.

        Args:
            path: Starts with `/`. At `/metrics` it takes the place of the server's own numbers, which move to `/metrics/server`.
            app: Such as `prometheus_client.make_asgi_app()`. It needs the server's key, if there is one.

        Raises:
            ConfigError: The path does not start with `/`, or it is no app.
        """
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError(f"mount(path={path!r}) must start with '/'. Pass path={f'/{path}'!r}.")
        if not callable(app):
            raise ConfigTypeError(f"mount(app={app!r:.80}) is no ASGI app: pass prometheus_client.make_asgi_app(), a Starlette, a FastAPI.")
        self._mount = Mount("/" + path.strip("/"), app)

    @property
    def mounted(self) -> Mount | None:
        """What is mounted, and where."""
        return self._mount

    @abstractmethod
    def process(self, key: str, value: Any) -> None:
        """Take a value. What it raises is logged, and harms nobody.

        Args:
            key: Its name.
            value: Numbers, text, bytes, lists and dicts of them; arrays and tensors come as lists.
        """

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """Bring away what is kept: called once, after the last value, when the server stops."""


def loggers_of(given: Any) -> tuple[Logger, ...]:
    """Return the loggers of a server: one, several, or none.

    Raises:
        ConfigTypeError: One is no `Logger`.
        ConfigError: Two have different apps at one path.
    """
    found = list[Logger]()
    apps = dict[str, Any]()
    several = isinstance(given, Sequence) and not isinstance(given, str)
    for each in given if several else [] if given is None else [given]:
        if not isinstance(each, Logger):
            made = f": pass an object, {each.__name__}()" if isinstance(each, type) else ""
            raise ConfigTypeError(f"loggers={each!r:.80} is not accepted{made}. It takes objects of Logger, one or a list of them.")
        if each.mounted is not None and apps.setdefault(each.mounted.path, each.mounted.app) is not each.mounted.app:
            raise ConfigError(f"two loggers mount different apps at {each.mounted.path!r}: give each a path of its own.")
        found.append(each)
    return tuple(found)


def packed(loggers: Sequence[Logger]) -> bytes:
    """Return what the logger process makes its loggers of.

    Raises:
        ConfigError: One can neither be sent nor be made anew.
    """
    return pickle.dumps([_parcel(logger) for logger in loggers])


def unpacked(data: bytes) -> list[Logger]:
    """Return loggers, in the process that they are for; those that cannot be made are told in the log, and left out."""
    made = list[Logger]()
    for parcel in pickle.loads(data):  # noqa: S301 - written by our own supervisor
        try:
            found = pickle.loads(parcel)  # noqa: S301 - the same
            made.append(found() if isinstance(found, type) else found)
        except Exception:  # the user's code may raise anything: the others go on
            _logger.exception("a logger could not be made, and gets no values")
    return made


def _parcel(logger: Logger) -> bytes:
    """Return an object as a pickle; of one that has none, its class."""
    kind = type(logger)
    try:
        return pickle.dumps(logger)
    except Exception as error:
        reason = f"the logger {kind.__name__} cannot be sent to its process ({error})"
        if not _pickles(kind):
            raise ConfigError(f"{reason}, nor can its class. Define it at the top of a module.") from error
        if not _needs_nothing(kind):
            raise ConfigError(
                f"{reason}, nor be made there, as its class takes arguments. Give them defaults, or make what does not pickle in process()."
            ) from error
        _logger.info("%s, which makes a new one", reason)
        return pickle.dumps(kind)


def _pickles(kind: type) -> bool:
    try:
        pickle.dumps(kind)
    except (pickle.PicklingError, AttributeError):  # it is no name of a module
        return False
    return True


def _needs_nothing(kind: type) -> bool:
    """Return whether an object can be made without arguments, without making one."""
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError):
        return False
    return True


@final
class LoggerCalls:
    """Calls loggers with values as they come, and lets none of them harm another.

    Args:
        loggers: Which.
        clock: Returns seconds.
    """

    def __init__(self, loggers: Sequence[Logger], clock: Callable[[], float] = time.monotonic) -> None:
        self._loggers, self._clock = loggers, clock
        self._told: dict[tuple[int, str], _Complaint] = {}

    def process(self, key: str, value: bytes) -> None:
        """Hand a value to all loggers.

        Args:
            key: Its name.
            value: As msgpack.
        """
        for place, logger in enumerate(self._loggers):
            try:
                logger.process(key, unpack(value))  # each gets one of its own
            except Exception as error:  # noqa: BLE001 - the user's code may raise anything: others are unaffected
                self._complain(place, logger, key, error)

    def _complain(self, place: int, logger: Logger, key: str, error: Exception) -> None:
        """Tell of a failure; the next ones of its kind are counted for a while, as values may come by the thousand."""
        now = self._clock()
        complaint = self._told.setdefault((place, type(error).__name__), _Complaint())
        if now < complaint.quiet_until:
            complaint.count += 1
            return
        more = f" (and {complaint.count:,} times since the last line)" if complaint.count else ""
        complaint.quiet_until, complaint.count = now + _QUIET_SECONDS, 0
        _logger.error("%s.process(%r, …) failed%s", type(logger).__name__, key, more, exc_info=error)

    def close(self) -> None:
        """Let all loggers bring away what they keep."""
        for logger in self._loggers:
            try:
                logger.close()
            except Exception:  # the same
                _logger.exception("%s.close() failed", type(logger).__name__)


@final
class _Complaint:
    __slots__ = ("count", "quiet_until")

    def __init__(self) -> None:
        self.count, self.quiet_until = 0, float("-inf")
