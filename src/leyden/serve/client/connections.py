"""What both clients ask of httpx: certificates, limits, and a client that a user brings."""

import os
import ssl
from typing import Any, Final

import httpx

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.client.target import Target

# Connections are not counted: requests that wait for one would see their deadlines pass here, where no server can say so. Idle ones are
# let go before a proxy (60 s, mostly) or a server of ours (75 s) lets go of them.
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=50)

_PATHS: tuple[type, ...] = (str, os.PathLike)


def context_of(verify: Any) -> ssl.SSLContext | bool:
    """Return how certificates are looked at.

    Args:
        verify: Whether; the path of certificates that are trusted; or a context.

    Raises:
        ConfigError: There are none at that path.
    """
    if isinstance(verify, bool | ssl.SSLContext):
        return verify
    if not isinstance(verify, _PATHS):
        raise ConfigTypeError(f"verify={verify!r} is not accepted: it takes True, False, the path of a PEM file, or an ssl.SSLContext.")
    try:
        return ssl.create_default_context(cafile=verify)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"verify={verify!r} holds no certificates: {error}. Pass the path of a PEM file.") from error


def check_own(given: Any, kind: type, server: Target, verify: Any) -> None:
    """Refuse a client of httpx that is none, or that contradicts what else is given.

    Raises:
        ConfigError: It is, or it does.
    """
    if not isinstance(given, kind):
        raise ConfigTypeError(f"http={given!r:.80} is not accepted: it takes an httpx.{kind.__name__}.")
    if server.socket or verify is not True:
        name = "a unix: URL" if server.socket else "verify"
        raise ConfigError(f"http and {name} are both given. Set it in your own: httpx.{kind.__name__}(transport=…) or (verify=…).")
