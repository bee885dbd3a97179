"""The socket that a server listens on: bound and listening before anything is announced."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leyden.core.errors import ConfigError

_BACKLOG = 2048
_UNIX = "unix:"


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; other processes inherit it.

    Args:
        host: An address, or `unix:/path`.
        port: The port; 0 takes a free one.

    Raises:
        ConfigError: Somebody else listens there, or it may not be used.
    """
    if host.startswith(_UNIX):
        return _unix(host.removeprefix(_UNIX))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use{holder_of(port)}. Pass another port=, or 0 for a free one.") from error
        raise ConfigError(f"host={host!r}, port={port}: this machine does not let us listen there: {error}.") from error
    made.set_inheritable(True)
    return made


def _unix(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if Path(path).is_socket() and not _is_served(path):
        Path(path).unlink()  # of a server that was killed
    try:
        made.bind(path)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise ConfigError(f"host='unix:{path}' cannot be listened at: {error}. Take a path that is free and below 107 bytes.") from error
    return made


def _is_served(path: str) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe, contextlib.suppress(OSError):
        probe.connect(path)
        return True
    return False


@contextmanager
def closing(listener: socket.socket) -> Iterator[socket.socket]:
    """Close a listening socket at the end, and remove its file if it has one."""
    name = listener.getsockname()
    try:
        yield listener
    finally:
        listener.close()
        if isinstance(name, str) and name:
            with contextlib.suppress(OSError):
                Path(name).unlink()


def url_of(listener: socket.socket, *, is_secure: bool = False) -> str:
    """Return where one reaches a socket from this machine."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"{_UNIX}{name}"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(name[0], name[0])  # noqa: S104 - what was listened on
    return f"{'https' if is_secure else 'http'}://{host}:{name[1]}"


def holder_of(port: int) -> str:
    """Return in words which process listens on a port, where the system tells.

    Example:
        >>> holder_of(1)
        ''
    """
    inodes = _inodes_of(port)
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = {str(link.readlink()) for link in (process / "fd").iterdir()}
            if links & inodes:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                return f" by process {process.name} ({command[:80]})"
    return ""


def _inodes_of(port: int) -> set[str]:
    found = set[str]()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: listens
                    found.add(f"socket:[{fields[9]}]")
    return found
