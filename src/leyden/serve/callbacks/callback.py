"""`Callback`: what a user may be told of a server, each event a method that does nothing by default."""

import enum
from typing import Any, final


@final
class EventTypes(enum.StrEnum):
    """Events, each named as the method that is called."""

    BEFORE_SETUP = "on_before_setup"
    AFTER_SETUP = "on_after_setup"
    BEFORE_DECODE_REQUEST = "on_before_decode_request"
    AFTER_DECODE_REQUEST = "on_after_decode_request"
    BEFORE_PREDICT = "on_before_predict"
    AFTER_PREDICT = "on_after_predict"
    BEFORE_ENCODE_RESPONSE = "on_before_encode_response"
    AFTER_ENCODE_RESPONSE = "on_after_encode_response"
    ON_SERVER_START = "on_server_start"
    ON_SERVER_END = "on_server_end"
    ON_REQUEST = "on_request"
    ON_RESPONSE = "on_response"


class Callback:
    """Told what happens. Subclass it, and pass objects as `LitServer(…, callbacks=[…])`; one that raises is logged.

    The events of steps come in workers, once for each batch, with `lit_api`; of a stream, those after `predict` and
    `encode_response` come when it has ended. `on_request` and `on_response` come in front ends, the others in the supervisor.

    Example:
        >>> class Greeter(Callback):
        ...     def on_after_setup(self, *args, **kwargs):
        ...         print("ready")
        >>> Greeter().on_after_setup(lit_api=None)
        ready
    """

    def on_before_setup(self, *args: Any, **kwargs: Any) -> None:
        """Called before `setup`, with `lit_api`."""

    def on_after_setup(self, *args: Any, **kwargs: Any) -> None:
        """Called after `setup`, with `lit_api`."""

    def on_before_decode_request(self, *args: Any, **kwargs: Any) -> None:
        """Called before a batch is decoded, with `lit_api`."""

    def on_after_decode_request(self, *args: Any, **kwargs: Any) -> None:
        """Called after a batch was decoded, with `lit_api`."""

    def on_before_predict(self, *args: Any, **kwargs: Any) -> None:
        """Called before `predict`, with `lit_api`."""

    def on_after_predict(self, *args: Any, **kwargs: Any) -> None:
        """Called after `predict`, with `lit_api`."""

    def on_before_encode_response(self, *args: Any, **kwargs: Any) -> None:
        """Called before a batch is encoded, with `lit_api`."""

    def on_after_encode_response(self, *args: Any, **kwargs: Any) -> None:
        """Called after a batch was encoded, with `lit_api`."""

    def on_server_start(self, *args: Any, **kwargs: Any) -> None:
        """Called once when the server starts, with `litserver`."""

    def on_server_end(self, *args: Any, **kwargs: Any) -> None:
        """Called once when the server has stopped, with `litserver`."""

    def on_request(self, *args: Any, **kwargs: Any) -> None:
        """Called for each request, with `active_requests` and `litserver`."""

    def on_response(self, *args: Any, **kwargs: Any) -> None:
        """Called for each answer, with `litserver`."""


@final
class NoopCallback(Callback):
    """Does nothing at any event."""
