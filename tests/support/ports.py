"""Ports of this computer for tests that start servers."""

import contextlib
import socket
import time


def free_port() -> int:
    """Return a port that was free a moment ago. Prefer port 0 where the server can take it: somebody may be faster."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, *, deadline_seconds: float = 30.0) -> None:
    """Return once something listens on the port; `TimeoutError` after the deadline."""
    deadline = time.monotonic() + deadline_seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens on port {port} after {deadline_seconds} s") from None
            time.sleep(0.02)  # polling a port has no event to wait for
        else:
            return
