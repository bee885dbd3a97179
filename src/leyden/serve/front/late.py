"""`LateApp`: the app of a front end, made while requests are answered already.

Importing FastAPI takes longer than all else that a small server does before its first answer, and requests that take the short way
need nothing of it. So the app is made in a thread: when a request first needs it, which waits for that, or once the workers are
ready, whichever comes first.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, final

from leyden.core.log import get_logger
from leyden.serve.config import ServerConfig

_logger = get_logger(__name__)


def may_be_late(config: ServerConfig) -> bool:
    """Return whether requests of all APIs take the short way, whatever else the app has, and nothing of the user's is in it.

    Several front ends share the memory of an app that is made before they are forked: theirs is not late.

    Example:
        >>> may_be_late(ServerConfig()), may_be_late(ServerConfig(num_front_ends=2))
        (True, False)
    """
    if config.num_front_ends > 1 or config.middlewares or config.loggers:
        return False
    return not any(api.spec or api.authorize or api.tool or "{" in api.path for api in config.apis)


@final
class LateApp:
    """Stands for an app.

    Args:
        make: Makes it; called once, in a thread.
        running: Runs while the server does, as the app's lifespan would.
    """

    def __init__(self, make: Callable[[], Any], running: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._make, self._running = make, running
        self._app: asyncio.Future[Any] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        app = await asyncio.shield(self.begin())
        await app(scope, receive, send)

    def begin(self) -> "asyncio.Future[Any]":
        """Begin to make the app, in the running event loop, unless that was done; return what will be it."""
        if self._app is None:
            self._app = asyncio.get_running_loop().run_in_executor(None, self._make)
            self._app.add_done_callback(_told)
        return self._app

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        async with self._running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _told(app: "asyncio.Future[Any]") -> None:
    """Log at once what every request that needs the app will be answered with."""
    if not app.cancelled() and (error := app.exception()) is not None:
        _logger.error("the app of this server cannot be made: only requests of APIs are answered", exc_info=error)
