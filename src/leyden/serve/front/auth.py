"""Keys: read when a server starts, compared in constant time."""

import hmac
import secrets
from collections.abc import Mapping
from typing import final

from leyden.core import settings
from leyden.core.log import get_logger
from leyden.serve.config import Secrets
from leyden.serve.faults import Fault

_CHALLENGE = {"www-authenticate": "Bearer"}
_logger = get_logger(__name__)


def read_secrets(environ: Mapping[str, str] | None = None, *, may_shut_down: bool = False) -> Secrets:
    """Return the keys that the environment names.

    Args:
        environ: Where they are; the process's environment by default.
        may_shut_down: Whether the server can be stopped by a request: a key is made up and logged if there is none.

    Example:
        >>> read_secrets({"LEYDEN_SERVE_API_KEY": "one, two"}).api_keys
        ('one', 'two')
    """
    given = settings.get("LEYDEN_SERVE_API_KEY", environ) or ""
    keys = tuple(key for each in given.split(",") if (key := each.strip()))
    shutdown_key = settings.get("LEYDEN_SERVE_SHUTDOWN_KEY", environ) or ""
    if may_shut_down and not shutdown_key:
        shutdown_key = secrets.token_urlsafe(32)
        _logger.warning("LEYDEN_SERVE_SHUTDOWN_KEY is not set. This server stops for the key %s", shutdown_key)
    return Secrets(api_keys=keys, shutdown_key=shutdown_key if may_shut_down else "")


@final
class Keys:
    """Who may come in.

    Args:
        keys: Any of them opens; none of them opens to all.

    Example:
        >>> Keys(("secret",)).refusal({b"authorization": b"Bearer secret"}) is None
        True
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(key.encode() for key in keys)

    def refusal(self, headers: Mapping[bytes, bytes]) -> Fault | None:
        """Return why a request is not let in; `None` if it is.

        Args:
            headers: By lower-case name.
        """
        if not self._keys:
            return None
        given = headers.get(b"x-api-key") or _bearer(headers)
        if not given:
            return Fault(
                401,
                "auth.missing_key",
                "This server asks for a key: send X-API-Key, or Authorization: Bearer.",
                headers=_CHALLENGE,
            )
        # All are compared, so that the time says nothing about which one was close.
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        if any(matches):
            return None
        return Fault(
            401, "auth.invalid_key", "Invalid API Key. Check that you are passing a correct 'X-API-Key' in your header.", headers=_CHALLENGE
        )


def opens(key: str, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request brings a certain key as a bearer."""
    return bool(key) and hmac.compare_digest(_bearer(headers), key.encode())


def _bearer(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
