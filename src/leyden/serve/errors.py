"""Errors of serving: branches of `leyden.core.errors`.

```
RemoteError
├── LinkError                            what came over a link between two processes is not what the protocol allows
└── RequestError                         a request of a `Client` was not answered as it was meant
    ├── RejectedError (ValueError)       the server does not accept it: 3xx, 4xx
    ├── BusyError                        the server takes no more at the moment: 429, 503
    ├── LateError (TimeoutError)         it took too long: 408, 504, or no answer in time
    ├── FailedError                      it went wrong in the server: 5xx
    ├── NoAnswerError (ConnectionError)  nobody listens there, or the connection ended before the answer began
    └── BrokenStreamError                an answer that had begun breaks off
```
"""

from typing import Any

from leyden.core.errors import RemoteError


class LinkError(RemoteError):
    """What came over a link between two processes cannot be understood; the link is broken and must be closed."""

    code = "serve.link"


class RequestError(RemoteError):
    """A request was not answered as it was meant. Catch this to catch all that a client raises once it has sent something.

    Args:
        message: What happened, and what to do.
        remote_traceback: Nothing: servers keep their tracebacks in their logs, under the request's id.
        status: Of HTTP; `None` where no answer came.
        code: The server's own word for it, which never changes; that of the class where it says none.
        request_id: Under which the server's log has it.
        detail: What the answer says of it: text, or what a hook or a validation put there.
        retry_after: In how many seconds the server wants to be asked again.
    """

    code = "serve.request"

    def __init__(
        self,
        message: str,
        remote_traceback: str = "",
        *,
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        detail: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remote_traceback)
        if code:
            self.code = code
        self.status, self.request_id, self.detail, self.retry_after = status, request_id, detail, retry_after


class RejectedError(RequestError, ValueError):
    """The server does not accept what was sent, or who sent it."""

    code = "serve.rejected"


class BusyError(RequestError):
    """The server takes no more requests at the moment: its queue is full, it has no worker yet, or it is leaving."""

    code = "serve.busy"


class LateError(RequestError, TimeoutError):
    """The answer was not there in time."""

    code = "serve.late"


class FailedError(RequestError):
    """It went wrong in the server: a hook raised, or a worker died."""

    code = "serve.failed"


class NoAnswerError(RequestError, ConnectionError):
    """Nobody listens there, or the connection ended before an answer began.

    Attributes:
        was_sent: Whether the server may have seen the request, and may have computed it.
    """

    code = "serve.no_answer"
    was_sent = False


class BrokenStreamError(RequestError):
    """An answer that had begun breaks off: what was yielded until then is right, and is not all."""

    code = "serve.broken_stream"
