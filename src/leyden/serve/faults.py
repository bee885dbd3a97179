"""`Fault`: an answer that is an error, with its status, code, message and what clients read as `detail`.

What a client did wrong is 4xx, whatever it was; what a hook did wrong is 500. Faults travel from hooks to the front end.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, final

from leyden.core.errors import LeydenError, listed

_STATUSES = range(100, 600)
_SAID = 300
_KEYS = 20
_ABOUT_VALUES = (LookupError, TypeError, ValueError, ArithmeticError, AssertionError, EOFError)
_READERS = frozenset(
    {"PIL", "gzip", "lzma", "soundfile", "struct", "tarfile", "wave", "xml", "zipfile", "zlib"}
)  # of files, sent by clients
_JSON_TYPES = frozenset({dict, list, str, int, float, bool})  # not None: that is what an attribute is that was not set


@final
class Fault(LeydenError):  # noqa: N818 - an answer, as HTTP has them
    """An answer that is an error.

    Args:
        status: Of HTTP.
        code: Stable, for programs.
        message: For people: what was given, what is accepted.
        detail: What `detail` of the answer is; the message by default.
        headers: Of the answer.

    Example:
        >>> Fault(415, "request.unsupported_type", "Send application/json.").body
        {'detail': 'Send application/json.', 'code': 'request.unsupported_type', 'message': 'Send application/json.'}
    """

    code = "serve.fault"

    def __init__(self, status: int, code: str, message: str, *, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        message = message.encode("utf-8", "backslashreplace").decode()  # a client's lone surrogates travel in no frame
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.detail: Any = message if detail is None else detail
        self.headers: Mapping[str, str] = {str(name): str(text) for name, text in (headers or {}).items()}
        self.is_bare = False

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body; of a hook's own `HTTPException` nothing but its detail."""
        if self.is_bare:
            return {"detail": self.detail}
        return {"detail": self.detail, "code": self.code, "message": self.message}

    def __reduce__(self) -> tuple[Any, ...]:
        return (_again, (self.status, self.code, self.message, self.detail, dict(self.headers), self.is_bare))


def _again(status: int, code: str, message: str, detail: Any, headers: Mapping[str, str], is_bare: bool) -> Fault:  # noqa: FBT001 - a pickle
    fault = Fault(status, code, message, detail=detail, headers=headers)
    fault.is_bare = is_bare
    return fault


class HookCall(NamedTuple):
    """Which hook was called with what.

    Args:
        hook: Its name.
        keys: Of the payload, if that is a dict: what a `KeyError` of a decoder is about.
    """

    hook: str
    keys: tuple[str, ...] = ()


def fault_of(error: BaseException, call: HookCall) -> Fault:
    """Return the answer to what a hook raised.

    Args:
        error: What it raised: a `Fault`, an `HTTPException` of FastAPI or Starlette, or anything else.
        call: The hook.

    Example:
        >>> fault_of(KeyError("input"), HookCall("decode_request", ("x",))).message
        "decode_request() raised KeyError: 'input'; the payload has keys ['x']"
    """
    if isinstance(error, Fault):
        return error
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status in _STATUSES and hasattr(error, "detail"):  # by its looks: nobody imports FastAPI here
        detail = error.detail
        fault = Fault(status, "request.refused", f"{detail}"[:_SAID], detail=detail, headers=getattr(error, "headers", None))
        fault.is_bare = True
        return fault
    message = f"{call.hook}() raised {type(error).__name__}: {error}"[:_SAID]
    if call.hook == "decode_request" and _is_about_the_payload(error):
        more = ", …" if len(call.keys) > _KEYS else ""
        keys = f"; the payload has keys [{listed(key[:_KEYS] for key in call.keys[:_KEYS])}{more}]" if call.keys else ""
        return Fault(422, "request.invalid", message + keys)
    return Fault(500, "worker.failed", message, detail="Internal server error")


def _is_about_the_payload(error: BaseException) -> bool:
    if isinstance(error, AttributeError):  # request.get(…), and the client sent a list
        return type(error.obj) in _JSON_TYPES
    if isinstance(error, OSError) and error.errno is not None:  # a disk, a network
        return False
    return isinstance(error, _ABOUT_VALUES) or not {type(error).__module__.partition(".")[0], _home_of(error)}.isdisjoint(_READERS)


def _home_of(error: BaseException) -> str:
    """Return the package whose code raised an error: Pillow says `OSError` of an image that is cut off."""
    place, name = error.__traceback__, ""
    while place is not None:
        name = place.tb_frame.f_globals.get("__name__", "")
        place = place.tb_next
    return str(name).partition(".")[0]
