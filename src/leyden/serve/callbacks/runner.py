"""`CallbackRunner`: calls callbacks, and lets none of them harm a request."""

from collections.abc import Callable, Sequence
from typing import Any, final

from leyden.core.errors import ConfigTypeError
from leyden.core.log import get_logger
from leyden.serve.callbacks.callback import Callback

_logger = get_logger(__name__)


@final
class CallbackRunner:
    """Calls callbacks in their order; one that raises is logged, and the others are called.

    Args:
        callbacks: One, several, or none.

    Raises:
        ConfigTypeError: One is no `Callback`.

    Example:
        >>> CallbackRunner(None).trigger_event("on_before_setup", lit_api=None)
    """

    def __init__(self, callbacks: Callback | Sequence[Callback] | None = None) -> None:
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        for each in given:
            if not isinstance(each, Callback):
                made = f": pass an object, {each.__name__}()" if isinstance(each, type) else ""
                raise ConfigTypeError(f"callbacks={each!r:.80} is not accepted{made}. It takes objects of Callback, one or a list of them.")
        self._callbacks = given

    def trigger_event(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of all callbacks.

        Args:
            event_name: The method's name; the members of `EventTypes` are such names.
            args: Handed on.
            kwargs: Handed on.
        """
        for callback in self._callbacks:
            try:
                getattr(callback, event_name)(*args, **kwargs)
            except Exception:  # the user's code may raise anything: requests are unaffected
                _logger.exception("%s.%s() failed", type(callback).__name__, event_name)

    def told_about(self, lit_api: Any) -> Callable[[str], None]:
        """Return a function that tells all callbacks of an event of an API; one that does nothing if there is none."""
        if not self._callbacks:
            return _tell_nobody

        def tell(event: str) -> None:
            self.trigger_event(event, lit_api=lit_api)

        return tell


def _tell_nobody(event: str) -> None:
    """Tell no callback."""
