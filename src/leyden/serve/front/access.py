"""Who asked: the client that a trusted proxy names, for the access log of the short way, which ASGI middlewares never see."""

import contextlib
from typing import Any, final

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Address = tuple[str, int]


@final
class Clients:
    """Tells clients as uvicorn does, by asking its own middleware, which is made for the first request that a proxy sends.

    Example:
        >>> import uvicorn
        >>> config, headers = uvicorn.Config("x", forwarded_allow_ips="10.0.0.1"), [(b"x-forwarded-for", b"192.0.2.7")]
        >>> clients = Clients()
        >>> clients.behind(config, ("10.0.0.1", 5), headers), clients.behind(config, ("10.0.0.2", 5), headers)
        (('192.0.2.7', 0), ('10.0.0.2', 5))
    """

    def __init__(self) -> None:
        self._middleware: ProxyHeadersMiddleware | None = None

    def behind(self, config: Any, peer: Address | None, headers: list[tuple[bytes, bytes]]) -> Address | None:
        """Return the client of a request.

        Args:
            config: Of uvicorn, the same each time: `proxy_headers`, `forwarded_allow_ips`.
            peer: Who is connected.
            headers: Of the request, names in lower case.
        """
        if not config.proxy_headers:
            return peer
        if self._middleware is None:
            self._middleware = ProxyHeadersMiddleware(_nothing, trusted_hosts=config.forwarded_allow_ips)
        scope: Any = {"type": "http", "client": peer, "headers": headers, "scheme": "http"}
        asked: Any = self._middleware(scope, _never, _never)
        with contextlib.suppress(StopIteration):
            asked.send(None)  # it waits for nothing, so this is all of it
        return scope["client"]


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Be the app behind the middleware."""


async def _never(*_: Any) -> Any:
    """Be what nobody calls."""
