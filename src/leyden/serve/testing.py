"""A server in a test: its workers run as they would, and requests go through `TestClient(server.app)` or any other client."""

import contextlib
from collections.abc import Iterator

from leyden.serve.server import LitServer


@contextlib.contextmanager
def running(server: LitServer, *, ready: bool = True, timeout: float = 60.0) -> Iterator[LitServer]:
    """Start a server's workers, and stop them at the end: no process is left.

    Args:
        server: The server.
        ready: Whether to wait until all workers are ready.
        timeout: For how long, in seconds.

    Raises:
        RemoteError: An API cannot be set up.
        StateError: The workers are not ready in time.

    Example:
        ```python
        with running(LitServer(SimpleLitAPI())) as server, TestClient(server.app) as client:
            assert client.post("/predict", json={"input": 4.0}).json() == {"output": 16.0}
        ```
    """
    server.start()
    try:
        if ready:
            server.wait_until_ready(timeout)
        yield server
    finally:
        server.stop()


def wrap_litserve_start(server: LitServer, worker_monitor: bool = False) -> contextlib.AbstractContextManager[LitServer]:  # noqa: FBT001, FBT002 - LitServe's signature
    """Start a server's workers without waiting for them; LitServe's name.

    Args:
        server: The server.
        worker_monitor: Without effect: workers are always looked after.
    """
    del worker_monitor
    return running(server, ready=False)
