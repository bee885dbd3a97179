"""`FrontEnd`: wires what one front end is made of: dispatcher, intake, app, the short way; and watches the time.

```python
front = FrontEnd(config)
front.add_worker(WorkerId(0, 0), "unix:/tmp/leyden-1/w0.sock")     # now or later, and again after a restart elsewhere
uvicorn.Server(uvicorn.Config(front.app, **front.uvicorn_options())).run(sockets=[listening])
```
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, final

from leyden.core.errors import ConfigError, LeydenError
from leyden.core.lazy import Later
from leyden.core.log import get_logger
from leyden.serve.config import ServerConfig
from leyden.serve.effects import WorkerId
from leyden.serve.front.dispatcher import Dispatcher
from leyden.serve.front.intake import Intake
from leyden.serve.front.late import LateApp, may_be_late
from leyden.serve.front.mounted import MountedLoggers
from leyden.serve.front.parts import Parts
from leyden.serve.front.probe import missing
from leyden.serve.front.protocol import HotPath
from leyden.serve.front.readiness import Readiness
from leyden.serve.metrics import Layout, Page, render
from leyden.serve.tracing import RequestIds

_routes: Any = Later("leyden.serve.front.routes")  # FastAPI, of which the short way needs nothing
_submitter: Any = Later("leyden.serve.front.submitter")
_SWEEP_SECONDS = 1.0
_logger = get_logger(__name__)


class Events(NamedTuple):
    """Whom a front end tells what happens.

    Args:
        on_request: For each request of an API.
        on_response: For each that is answered.
    """

    on_request: Callable[[], None] | None = None
    on_response: Callable[[], None] | None = None


@final
class FrontEnd:
    """One front end. Make it before or after a fork; everything that needs an event loop begins in `running`.

    Args:
        config: Of the server.
        page: The counters that this front end writes; one of its own by default.
        pages: Those of all front ends and of the supervisor, for `/metrics`.
        events: Whom it tells what happens.
        lifespan: Runs around `running` in the app's own lifespan: for a server that starts its workers there.

    Attributes:
        dispatcher: Takes calls, knows workers.
        readiness: Says whether all is well.
        loggers: Those with an app.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        page: Page | None = None,
        pages: Sequence[Page] = (),
        events: Events | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        events = events or Events()
        layout = Layout([api.path for api in config.apis])
        own = page or Page(layout)
        self.config = config
        self.dispatcher = Dispatcher(config, own, layout, on_request=events.on_request, on_response=events.on_response)
        self.readiness = Readiness(config, self.dispatcher.num_ready)
        self.intake = Intake(config, RequestIds(), self.dispatcher.now)
        self.loggers = MountedLoggers(config.loggers, lambda api: own.add(layout.slot("log_dropped_total", api)))
        self._hot = HotPath(self.dispatcher, self.intake)
        self._options: dict[str, Any] | None = None
        self._lifespan = lifespan or contextlib.nullcontext
        self._sweeping: asyncio.TimerHandle | None = None
        every = pages or [own]

        def metrics() -> str:
            self.dispatcher.show()
            return render(layout, every)

        has_tools = any(api.tool is not None for api in config.apis)
        self._tools = _submitter.tools_of(config, self.dispatcher, self.intake) if has_tools else None
        self._parts = Parts(config, self.dispatcher, self.intake, self.readiness, metrics, self._shut_down, self._tools)
        self._app: Any = None
        self._late: LateApp | None = None

    @property
    def app(self) -> Any:
        """The complete ASGI app, made when it is first asked for."""
        if self._app is None:
            self._app = _routes.build(self._parts, self._app_lifespan)
        return self._app

    def _is_late(self) -> bool:
        return self._app is None and may_be_late(self.config)

    def served(self, settle: Callable[[], None]) -> Any:
        """Return what a server of its own is to run: the app, or what stands for it until it is needed.

        Args:
            settle: Called once an app that is late is made.
        """

        def made() -> Any:
            app = self.app
            settle()
            return app

        if self._is_late():
            self._late = LateApp(made, lambda: self._app_lifespan(None))
            return self._late
        return self.app

    def share_limits(self, num_front_ends: int) -> None:
        """Keep a part of the server's limits, of which others keep the rest; before it runs."""
        self.config = dataclasses.replace(self.config, num_front_ends=num_front_ends)
        self.dispatcher.reconfigure(self.config)

    def make_middlewares(self) -> None:
        """Make the middlewares before there are processes, so that what is wrong with them is told, once, to who calls `run`.

        An app that may be late has none, and is not made here.

        Raises:
            ConfigError: One cannot be made.
        """
        if self._is_late():
            return
        try:
            self.app.middleware_stack = self.app.build_middleware_stack()
        except LeydenError:
            raise
        except Exception as error:
            names = ", ".join(
                getattr(each.cls, "__name__", str(each.cls)) for each in self.app.user_middleware if each.cls is not _routes.Edge
            )
            raise ConfigError(
                f"the middlewares of this server ({names}) cannot be made: {type(error).__name__}: {error}. Each is called with the app "
                "and its keywords: middlewares=[(Class, {'keyword': value})]."
            ) from error

    # -- workers -------------------------------------------------------------------------------------------------------

    def add_worker(self, worker: WorkerId, address: str) -> None:
        """Connect to a worker now, or as soon as it listens, and again whenever its connection ends."""
        self.dispatcher.add_worker(worker, address)

    def remove_worker(self, worker: WorkerId) -> None:
        """Forget a worker; what it still has is answered as lost."""
        self.dispatcher.remove_worker(worker)

    def set_wanted(self, api: int, count: int) -> None:
        """Take note of how many workers an API is to have; 0 while it sleeps."""
        self.readiness.wanted[api] = count

    def set_failing(self, api: int, message: str) -> None:
        """Refuse an API's requests, as its workers cannot start; an empty message takes them again."""
        self.readiness.failing[api] = message
        self.dispatcher.set_failing(api, is_failing=bool(message))

    # -- life ----------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work, in the running event loop, until the context ends; then what is left is answered with 503."""
        self.dispatcher.start()
        self._sweep()
        try:
            async with contextlib.nullcontext() if self._tools is None else self._tools.running():
                with self.loggers.running():
                    yield
        finally:
            if self._sweeping is not None:
                self._sweeping.cancel()
            self.dispatcher.close()

    def uvicorn_options(self) -> dict[str, Any]:
        """Return the settings of uvicorn that this front end needs; routes that were added to the app are known by then.

        Only the first call finds out which APIs are hot, and logs it: made before a fork, it speaks for all front ends.
        """
        if self._options is None:
            self._options = self._found_options()
        return self._options

    def _found_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"lifespan": "on", "timeout_keep_alive": max(1, round(self.config.keep_alive))}
        lacking = missing()
        if lacking:
            _logger.warning("no API is hot: uvicorn's HttpToolsProtocol has no %s; please report its version", ", ".join(lacking))
            return options
        for number, api in enumerate(self.config.apis):
            reason = "" if self._is_late() else _routes.why_not_hot(self.app, self.config, number)
            if not reason:
                self._hot.routes[api.path.encode()] = number
            _logger.info("%s is %s", api.path, f"not hot: {reason}" if reason else "hot")
        return {**options, "http": self._hot.protocol()}

    def _shut_down(self) -> None:
        self.dispatcher.tell(shutdown=True)

    @contextlib.asynccontextmanager
    async def _app_lifespan(self, _: Any) -> AsyncIterator[None]:
        async with self._lifespan(), self.running():
            yield

    def _sweep(self) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        now = self.dispatcher.now()
        self._hot.sweep(now)
        self.dispatcher.sweep(now)
        if self._late is not None and self.readiness.is_ready:
            self._late.begin()
        shortest = min(config.header_timeout, config.body_timeout, config.keep_alive)
        self._sweeping = loop.call_later(max(0.02, min(_SWEEP_SECONDS, shortest / 4)), self._sweep)
