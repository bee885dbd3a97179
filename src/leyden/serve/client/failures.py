"""What went wrong with a request, as an error: of an answer that is one, and of a connection that failed."""

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from leyden.serve.codec import read_json
from leyden.serve.errors import BrokenStreamError, BusyError, FailedError, LateError, NoAnswerError, RejectedError, RequestError
from leyden.serve.faults import Fault

LOST = "worker.lost"
_SAID = 500
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def of_answer(what: str, request_id: str, response: httpx.Response, body: bytes) -> RequestError:
    """Return the error that an answer is.

    Args:
        what: The request, in words.
        request_id: Its name, unless the answer says another.
        response: Its head.
        body: Its body.
    """
    said = _said(body)
    status = response.status_code
    code = said.get("code") if isinstance(said.get("code"), str) else ""
    request_id = response.headers.get("x-request-id") or request_id
    told = said.get("message") or said.get("detail") or body[:_SAID].decode("utf-8", "replace") or response.reason_phrase
    if response.is_redirect:
        told = f"it is at {response.headers.get('location')!r} now. Give the client that URL: a key is not sent to where an answer points."
    return _kind(status, code)(
        f"{what}: {status} {code}{': ' if code else ''}{told} (request {request_id})",
        status=status,
        code=code,
        request_id=request_id,
        detail=said.get("detail", body.decode("utf-8", "replace") or None),
        retry_after=retry_after(response.headers.get("retry-after")),
    )


def _said(body: bytes) -> dict[str, Any]:
    try:
        value = read_json(body)
    except Fault:
        return {}
    return value if isinstance(value, dict) else {}


def _kind(status: int, code: str) -> type[RequestError]:
    if status in {408, 504}:
        return LateError
    if status in {429, 503} and code != LOST:
        return BusyError
    return FailedError if status >= 500 else RejectedError


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a `Retry-After`: it has them, or a date; `None` where it has neither.

    Example:
        >>> retry_after("2"), retry_after("soon"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT")
        (2.0, None, 0.0)
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds())


def of_connection(what: str, request_id: str, error: httpx.RequestError) -> RequestError:
    """Return the error of a request that was not answered.

    Args:
        what: The request, in words.
        request_id: Its name.
        error: Of httpx.
    """
    found: RequestError
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, _UNSENT):
        found = LateError(f"{what}: no answer came in time (request {request_id}).", request_id=request_id)
    elif isinstance(error, _UNSENT):
        hint = "Is the server running, and is this its URL?"
        if is_about_certificates(error):
            hint = "Of a certificate of your own: Client(…, verify='certificate.pem')."
        found = NoAnswerError(f"{what}: no connection: {error or type(error).__name__}. {hint}", request_id=request_id)
    else:
        found = NoAnswerError(
            f"{what}: the connection ended before an answer began: {error or type(error).__name__}. It may have been computed; "
            f"Client(…, idempotent=True) sends such requests again (request {request_id}).",
            request_id=request_id,
        )
        found.was_sent = True
    found.__cause__ = error
    return found


def of_break(what: str, request_id: str, status: int, error: httpx.RequestError) -> RequestError:
    """Return the error of an answer that had begun, and breaks off without a word.

    Args:
        what: The request, in words.
        request_id: Its name.
        status: Of the answer.
        error: Of httpx.
    """
    if isinstance(error, httpx.TimeoutException):
        found: RequestError = LateError(
            f"{what}: nothing more of the answer came in time (request {request_id}).", status=status, request_id=request_id
        )
    else:
        found = BrokenStreamError(
            f"{what}: the answer breaks off: {error or type(error).__name__} (request {request_id}).", status=status, request_id=request_id
        )
    found.__cause__ = error
    return found


def is_about_certificates(error: BaseException | None) -> bool:
    """Return whether a connection failed for what TLS says: then it will fail again."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
