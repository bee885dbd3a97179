"""`CallbackRunner`: calls callbacks, and lets none of them harm a request."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

from leyden.core.errors import ConfigTypeError
from leyden.core.log import get_logger
from leyden.serve.callbacks.callback import Callback, EventTypes

_logger = get_logger(__name__)


def _tell_nobody() -> None:
    """Tell no callback."""


class StepEvents(NamedTuple):
    """Functions that tell callbacks of the steps of a batch; bound once, as looking up an event costs more than a small model.

    Args:
        before_decode: Of `decode_request`.
        after_decode: Of `decode_request`.
        before_predict: Of `predict`.
        after_predict: Of `predict`.
        before_encode: Of `encode_response`.
        after_encode: Of `encode_response`.
    """

    before_decode: Callable[[], None] = _tell_nobody
    after_decode: Callable[[], None] = _tell_nobody
    before_predict: Callable[[], None] = _tell_nobody
    after_predict: Callable[[], None] = _tell_nobody
    before_encode: Callable[[], None] = _tell_nobody
    after_encode: Callable[[], None] = _tell_nobody


NO_EVENTS = StepEvents()


@final
class CallbackRunner:
    """Calls callbacks in their order; one that raises is logged, and the others are called.

    Args:
        callbacks: One, several, or none.

    Attributes:
        callbacks: All of them.

    Raises:
        ConfigTypeError: One is no `Callback`.

    Example:
        >>> CallbackRunner(None).trigger_event("on_before_setup", lit_api=None)
    """

    def __init__(self, callbacks: Callback | Sequence[Callback] | None = None) -> None:
        given: list[Any] = list(callbacks or []) if callbacks is None or isinstance(callbacks, Sequence) else [callbacks]
        for each in given:
            if not isinstance(each, Callback):
                made = f": pass an object, {each.__name__}()" if isinstance(each, type) else ""
                raise ConfigTypeError(f"callbacks={each!r:.80} is not accepted{made}. It takes objects of Callback, one or a list of them.")
        self.callbacks = tuple(given)

    def trigger_event(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of all callbacks.

        Args:
            event_name: The method's name; the members of `EventTypes` are such names.
            args: Handed on.
            kwargs: Handed on.
        """
        for callback in self.callbacks:
            try:
                getattr(callback, event_name)(*args, **kwargs)
            except Exception:  # the user's code may raise anything: requests are unaffected
                _logger.exception("%s.%s() failed", type(callback).__name__, event_name)

    def steps_of(self, lit_api: Any) -> StepEvents:
        """Return what tells all callbacks of the steps of an API."""
        events = (
            EventTypes.BEFORE_DECODE_REQUEST,
            EventTypes.AFTER_DECODE_REQUEST,
            EventTypes.BEFORE_PREDICT,
            EventTypes.AFTER_PREDICT,
            EventTypes.BEFORE_ENCODE_RESPONSE,
            EventTypes.AFTER_ENCODE_RESPONSE,
        )
        if not self.callbacks:
            return NO_EVENTS
        return StepEvents(*(functools.partial(self.trigger_event, event, lit_api=lit_api) for event in events))
