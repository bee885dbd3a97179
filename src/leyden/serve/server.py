"""`LitServer`: APIs on a port. Arguments become a frozen configuration; `run` and `app` start what serves it."""

import contextlib
import dataclasses
import inspect
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, final

from leyden.core import log, settings
from leyden.core.arguments import number, one_of, positive
from leyden.core.errors import ConfigError, StateError, closest
from leyden.core.lazy import Later
from leyden.serve import logging, wiring
from leyden.serve.api import LitAPI
from leyden.serve.arguments import (
    checked_front_ends,
    checked_host,
    checked_metadata,
    checked_port,
    payload_bytes,
    seconds_or_never,
)
from leyden.serve.callbacks.callback import EventTypes
from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.client_file import write_client
from leyden.serve.config import Compression, ServerConfig
from leyden.serve.engines.local import LocalEngine
from leyden.serve.fronts import AttachedFronts, ForkedFronts
from leyden.serve.listening import closing, listening, url_of
from leyden.serve.loading import refuse_while_importing, replaceable
from leyden.serve.metrics import Layout, Page
from leyden.serve.supervisor import Events, Replicas, Supervisor

_front_end: Any = Later("leyden.serve.front.front_end")
_process: Any = Later("leyden.serve.front.process")
_attached: Any = Later("leyden.serve.front.attached")
_auth: Any = Later("leyden.serve.front.auth")
_tls: Any = Later("leyden.serve.tls")
_uvicorn: Any = Later("uvicorn")
_logger = log.get_logger(__name__)
_END_SECONDS = 60.0


@final
class LitServer:  # noqa: SIZE003 - the documented interface
    """Serves APIs.

    Args:
        lit_api: One `LitAPI`, or several with paths of their own.
        accelerator: `"cpu"`, `"cuda"`, `"mps"`, `"gpu"`; `"auto"` and `None` take the best there is.
        devices: How many devices get workers, `"auto"` for all, ids, or lists of ids: one worker on several.
        workers_per_device: Worker processes on each device: a number, a list in the order of the APIs, or a dict by path.
        timeout: Seconds that a request may wait until its computation starts; `False` is for ever.
        healthcheck_path: Answers 200 when all workers are ready.
        info_path: Says what the server is.
        shutdown_path: Stops the server, if `enable_shutdown_api` is set and the key is right.
        enable_shutdown_api: Whether it can be stopped by a request.
        model_metadata: What `info_path` says of the model; JSON.
        spec: Deprecated: pass it to `LitAPI`.
        max_payload_size: The most bytes of a request: a number, `"10MB"`, `None` for 100 MB, -1 for no limit.
        track_requests: Whether `active_requests` counts.
        callbacks: One `Callback`, or a list.
        middlewares: ASGI middlewares: classes, or pairs of a class and its keywords.
        loggers: One `Logger`, or a list: they take what `LitAPI.log` is called with.
        fast_queue: Without effect: the fast way is the only way.
        disable_openapi_url: Whether the documentation is left out.
        max_batch_size: Deprecated: pass it to `LitAPI`.
        batch_timeout: Deprecated: pass it to `LitAPI`.
        stream: Deprecated: pass it to `LitAPI`.
        api_path: Deprecated: pass it to `LitAPI`.
        loop: Deprecated: pass it to `LitAPI`.
        restart_workers: Whether workers that died are started again; `False` stops the server, for an orchestrator to restart.
        deadline: Seconds for waiting and computation; of a stream, until its last piece. Requests may ask for less.
        max_queue_size: Requests of an API that may wait; `"auto"` refuses what would wait longer than `timeout`.
        max_inflight_bytes: Bytes of all bodies that are held.
        drain_timeout: Seconds for what is there when the server stops.
        drain_delay: Seconds between "not ready" and no new connections.
        header_timeout: Seconds that the head of a request may take.
        body_timeout: Seconds that its body may take, and for which the client of a stream may read nothing.
        keep_alive: Seconds that a connection may be idle.
        kill_after: Seconds after which a worker is killed, and started again, that goes on with what it was told to leave, because its
            client left or its time is over, and nobody waits for anything that it began before; by default it is waited for.
        expose_errors: Whether answers say what went wrong in a hook.
        compression: `"auto"` compresses large answers for clients that accept it; `"off"`.

    Raises:
        ConfigError: An argument is not accepted, or contradicts another.

    Example:
        ```python
        server = LitServer(Classifier(max_batch_size=16), workers_per_device=2)
        if __name__ == "__main__":
            server.run(port=8000)
        ```
    """

    @replaceable
    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        lit_api: "LitAPI | Sequence[LitAPI]",
        accelerator: str | None = "auto",
        devices: Any = "auto",
        workers_per_device: "int | Sequence[int] | Mapping[str, int]" = 1,
        timeout: "float | bool" = 30,
        healthcheck_path: str = "/health",
        info_path: str = "/info",
        shutdown_path: str = "/shutdown",
        enable_shutdown_api: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        model_metadata: Any = None,
        spec: Any = None,
        max_payload_size: "int | str | None" = None,
        track_requests: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        callbacks: Any = None,
        middlewares: Sequence[Any] | None = None,
        loggers: Any = None,
        fast_queue: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        disable_openapi_url: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        max_batch_size: int | None = None,
        batch_timeout: float = 0.0,
        stream: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        api_path: str | None = None,
        loop: Any = None,
        restart_workers: bool | None = None,  # noqa: FBT001 - the documented signature
        *,
        deadline: float | None = None,
        max_queue_size: 'int | Literal["auto"]' = "auto",
        max_inflight_bytes: "int | str" = 2**30,
        drain_timeout: float = 30,
        drain_delay: float = 0,
        header_timeout: float = 10,
        body_timeout: float = 60,
        keep_alive: float = 75,
        kill_after: float | None = None,
        expose_errors: bool = True,
        compression: Compression = "auto",
    ) -> None:
        old = wiring.given_old(
            {
                "max_batch_size": max_batch_size,
                "batch_timeout": batch_timeout,
                "stream": stream,
                "api_path": api_path,
                "loop": loop,
                "spec": spec,
            }
        )
        self._apis = wiring.apis_of(lit_api, old)
        self._callbacks = CallbackRunner(callbacks)
        if fast_queue:
            _logger.info("fast_queue=True: the fast way is the only way.")
        waits = seconds_or_never(timeout)
        own = wiring.own_paths(
            healthcheck_path, info_path, shutdown_path, may_shut_down=enable_shutdown_api, has_docs=not disable_openapi_url
        )
        plans = wiring.check_all(self._apis, waits, own)
        self.devices = wiring.devices_of(accelerator, devices)
        per_device = wiring.workers_of(workers_per_device, [api.api_path for api in self._apis], self._apis)
        self._loggers = wiring.checked_loggers(loggers, self._apis, own)
        self._log_routes = wiring.log_routes(self._loggers)
        stall = positive("body_timeout", body_timeout)
        self._replicas = wiring.replicas_of(
            self._apis, self.devices, per_device, self._callbacks.callbacks, stall_seconds=stall, logs=bool(self._loggers)
        )
        self._restarts = restart_workers is not False
        self.track_requests = track_requests
        self.enable_shutdown_api = enable_shutdown_api
        self._config = ServerConfig(
            apis=tuple(
                wiring.api_config(api, plan, replicas.count, waits)
                for api, plan, replicas in zip(self._apis, plans, self._replicas, strict=True)
            ),
            healthcheck_path=healthcheck_path,
            info_path=info_path,
            shutdown_path=shutdown_path,
            is_openapi_disabled=disable_openapi_url,
            model_metadata=checked_metadata(model_metadata),
            info={"devices": self.devices, "workers_per_device": workers_per_device, "track_requests": track_requests},
            loggers=tuple(logger for logger in self._loggers if logger.mounted is not None),
            middlewares=wiring.middlewares_of(middlewares),
            deadline=seconds_or_never(deadline, "deadline"),
            max_queue_size=wiring.queue_size(max_queue_size),
            max_inflight_bytes=payload_bytes(max_inflight_bytes, "max_inflight_bytes") or 2**62,
            max_payload_bytes=payload_bytes(max_payload_size),
            header_timeout=positive("header_timeout", header_timeout),
            body_timeout=stall,
            keep_alive=positive("keep_alive", keep_alive),
            drain_delay=number("drain_delay", drain_delay, 0),
            drain_timeout=number("drain_timeout", drain_timeout, 0),
            kill_after=seconds_or_never(kill_after, "kill_after"),
            exposes_errors=expose_errors,
            compression=one_of("compression", compression, ("auto", "off")),
        )
        self._layout = Layout([api.api_path for api in self._apis])
        self._page = Page(self._layout)  # of the front end of `app`; a forked one writes into its own
        self._pages = [self._page, Page(self._layout)]
        self._attached = AttachedFronts()
        self._supervisor: Supervisor | None = None
        self._thread: threading.Thread | None = None
        self._front: Any = None
        self._is_forked = False  # whether `run` looks after the workers
        self._is_front = False  # whether this process speaks HTTP

    # -- what one may look at ------------------------------------------------------------------------------------------

    @property
    def lit_api(self) -> "LitAPI | list[LitAPI]":
        """The API, or all of them."""
        return self._apis[0] if len(self._apis) == 1 else list(self._apis)

    @property
    def config(self) -> ServerConfig:
        """What the server is."""
        return self._config

    @property
    def replicas(self) -> Sequence[Replicas]:
        """What the workers of each API are to be."""
        return self._replicas

    @property
    def app(self) -> Any:
        """The complete ASGI app, for uvicorn, granian, a test client, or as a part of another app; users may add routes.

        Its lifespan starts and stops the workers. Starlette runs no lifespan of a *mounted* app: pass `server.lifespan` to the outer one.
        """
        return self._front_end.app

    @property
    def active_requests(self) -> int | None:
        """How many requests are not answered yet, in this front end or in all; `None` unless `track_requests` is set."""
        if not self.track_requests:
            return None
        if self._is_front:
            return int(self._front.dispatcher.num_open)
        slots = [self._layout.slot("inflight", number) for number in range(len(self._apis))]
        return int(sum(page.values[slot] for page in self._pages for slot in slots))

    @property
    def inference_workers(self) -> list[Any]:
        """The worker processes that are there."""
        return [] if self._supervisor is None else self._supervisor.workers

    def device_identifiers(self, accelerator: str, device: "int | Sequence[int]") -> list[str]:
        """Return the names of devices.

        Example:
            >>> from leyden.serve.test_examples import SimpleLitAPI
            >>> LitServer(SimpleLitAPI(), accelerator="cpu").device_identifiers("cuda", [0, 1])
            ['cuda:0', 'cuda:1']
        """
        return [f"{accelerator}:{each}" for each in (device if isinstance(device, Sequence) else [device])]

    # -- run -----------------------------------------------------------------------------------------------------------

    def run(
        self,
        host: str = "0.0.0.0",  # noqa: S104 - the documented default
        port: "int | str" = 8000,
        num_api_servers: int | None = None,
        log_level: str = "info",
        generate_client_file: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        api_server_worker_type: Literal["process", "thread"] | None = "process",
        pretty_logs: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        **uvicorn_kwargs: Any,
    ) -> None:
        """Serve until SIGTERM, SIGINT or a request to stop; return when all is answered.

        Args:
            host: `"0.0.0.0"`, `"127.0.0.1"`, `"::"`, or `"unix:/path"`.
            port: 1024 to 65535; 0 takes a free one, and prints it.
            num_api_servers: Processes that speak HTTP; by default one for four workers.
            log_level: Of the log, in all processes.
            generate_client_file: Whether `client.py` is written, unless there is one: it asks the first API something.
            api_server_worker_type: `"process"`; `"thread"` is taken for it.
            pretty_logs: Whether the log is written in colours, by `rich`.
            uvicorn_kwargs: Settings of uvicorn.

        Raises:
            ConfigError: An argument is not accepted, or the port is in use.
            RemoteError: No worker of an API can be set up.
            StateError: It runs already, or the script is only imported here.
            MissingDependencyError: `rich` is not installed, and `pretty_logs` is set.
        """
        refuse_while_importing()
        host, port = checked_host(host), checked_port(port)
        total = sum(replicas.count for replicas in self._replicas)
        front_ends = checked_front_ends(num_api_servers, total)
        if one_of("api_server_worker_type", api_server_worker_type or "process", ("process", "thread")) == "thread":
            _logger.info("api_server_worker_type='thread': front ends are processes all the same, which no model of yours can block.")
        if self._supervisor is not None:
            raise StateError("this server runs already.")
        logging.prepare(log_level, pretty=pretty_logs)
        options = _uvicorn_options(uvicorn_kwargs, log_level)
        with contextlib.ExitStack() as stack:
            options |= stack.enter_context(_tls.files())
            _tls.checked(options)
            listener = stack.enter_context(closing(listening(host, port)))
            self._serve(listener, front_ends, options, writes_client=generate_client_file)

    def _serve(self, listener: socket.socket, front_ends: int, options: Mapping[str, Any], *, writes_client: bool) -> None:
        engine, url = LocalEngine(), url_of(listener, is_secure="ssl_certfile" in options)
        pages = [Page(self._layout) for _ in range(front_ends)]
        self._pages = [*pages, Page(self._layout)]
        self._is_forked = True

        def made() -> Callable[[int, socket.socket], None]:
            front = self._front_end  # made before the fork, so that forked ones need not import anything; and after workers were started
            front.share_limits(front_ends)
            front.make_middlewares()
            front.uvicorn_options()
            if writes_client:
                write_client(url, front.config)
            return lambda number, control: be(front, number, control)

        def be(front: Any, number: int, control: socket.socket) -> None:
            self._page.values, self._is_front = pages[number].values, True
            _process.FrontProcess(front, listener, control, {"log_config": logging.uvicorn_config(), **options}).run()

        supervisor: Supervisor | None = None

        def strangers() -> Iterator[int]:
            yield from [] if supervisor is None else supervisor.strangers()

        # With this setting of prometheus_client's, the numbers of all processes are added up: one that counts is enough.
        adds_up = "PROMETHEUS_MULTIPROC_DIR" in settings.environment()
        fronts = ForkedFronts(front_ends, made, strangers, listener, share_logs=adds_up)
        supervisor = self._supervise(engine, fronts, on_ready=lambda: _announce(url, self._config))
        try:
            supervisor.run()
        finally:
            self._supervisor, self._is_forked = None, False

    def _supervise(self, engine: Any, fronts: Any, on_ready: Callable[[], None] | None = None) -> Supervisor:
        def started() -> None:
            if on_ready is not None:
                on_ready()
            self._callbacks.trigger_event(EventTypes.ON_SERVER_START, litserver=self)

        def ended() -> None:
            self._callbacks.trigger_event(EventTypes.ON_SERVER_END, litserver=self)

        config = self._config
        self._supervisor = Supervisor(
            self._replicas,
            engine,
            fronts,
            self._pages,
            drain_seconds=config.drain_delay + config.drain_timeout,
            restarts=self._restarts,
            events=Events(on_start=started, on_end=ended, logs=self._log_routes()),
        )
        return self._supervisor

    # -- in somebody else's process ------------------------------------------------------------------------------------

    @property
    def _front_end(self) -> Any:
        if self._front is None:
            secrets = _auth.read_secrets(may_shut_down=self.enable_shutdown_api)
            self._config = dataclasses.replace(self._config, secrets=secrets)
            events = _front_end.Events(*self._request_events())
            self._front = _front_end.FrontEnd(self._config, page=self._page, pages=_Pages(self), events=events, lifespan=self._with_workers)
        return self._front

    def _request_events(self) -> tuple[Callable[[], None] | None, Callable[[], None] | None]:
        """Return what is called for each request and each answer: nothing at all without callbacks."""
        if not self._callbacks.callbacks:
            return None, None
        trigger = self._callbacks.trigger_event
        return (
            lambda: trigger(EventTypes.ON_REQUEST, active_requests=self.active_requests, litserver=self),
            lambda: trigger(EventTypes.ON_RESPONSE, litserver=self),
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Start the workers, and stop them at the end: what an app that mounts `server.app` must do in its own lifespan."""
        async with self._with_workers(), self._front_end.running():
            yield

    @contextlib.asynccontextmanager
    async def _with_workers(self) -> AsyncIterator[None]:
        if self._is_forked:  # `run` looks after the workers
            yield
            return
        started_here = self._supervisor is None
        if started_here:
            self.start()
        control = self._attached.attach()
        self._wake()
        try:
            async with _attached.attached(self._front_end, control):
                self._is_front = True
                yield
        finally:
            self._is_front = False
            if started_here:
                self.stop()

    def start(self) -> None:
        """Start the workers, and what looks after them in a thread; returns at once."""
        if self._supervisor is not None:
            raise StateError("this server runs already.")
        supervisor = self._supervise(LocalEngine(may_die_with_thread=False), self._attached)

        def look_after() -> None:
            with contextlib.suppress(Exception):  # `error` has it
                supervisor.run()

        self._thread = threading.Thread(target=look_after, name="leyden-supervisor", daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until all workers are ready.

        Raises:
            RemoteError: An API cannot be set up.
            StateError: They are not ready in time, or were not started.
        """
        supervisor = self._supervisor
        if supervisor is None:
            raise StateError("the workers were not started.")
        if not supervisor.started.wait(timeout):
            raise StateError(f"the workers are not ready after {timeout:g} s.")
        if supervisor.error is not None:
            raise supervisor.error

    def stop(self) -> None:
        """Stop the workers that `start` started."""
        supervisor, thread = self._supervisor, self._thread
        if supervisor is None or thread is None:
            return
        supervisor.stop()
        thread.join(_END_SECONDS)
        self._supervisor = self._thread = None

    def _wake(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wake()


@final
class _Pages(Sequence[Page]):
    """The counters of all processes of a server, as they are when somebody asks."""

    def __init__(self, server: LitServer) -> None:
        self._server = server

    def __len__(self) -> int:
        return len(self._server._pages)

    def __getitem__(self, index: Any) -> Any:
        return self._server._pages[index]


def _announce(url: str, config: ServerConfig) -> None:
    paths = ", ".join(api.path for api in config.apis)
    logging.announce(f"Leyden serves {paths} at {url} (process {os.getpid()})")


def _uvicorn_options(given: Mapping[str, Any], log_level: str) -> dict[str, Any]:
    """Return uvicorn's settings, if it has them, and they are not the server's own.

    Raises:
        ConfigError: One is not.
    """
    if given:  # uvicorn is imported for these alone: else that happens while workers start
        known = set(inspect.signature(_uvicorn.Config).parameters) - {"app", "host", "port", "uds", "fd", "workers", "lifespan", "http"}
        for name in given:
            if name not in known:
                raise ConfigError(f"run({name}=…) is not accepted: neither run nor uvicorn has it.{closest(name, sorted(known))}")
    return {"log_level": log_level.lower(), **given}
