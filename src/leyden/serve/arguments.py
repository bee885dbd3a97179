"""What users give to a server, checked and turned into plain values: sizes, paths, ports, numbers of workers."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed

DEFAULT_PAYLOAD = 100 * 2**20
FOREVER = 1e9  # seconds: thirty years and more are no limit, and would be too many milliseconds for a frame
HOSTS = ("0.0.0.0", "127.0.0.1", "::")  # noqa: S104 - what a server may listen on
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)I?B?\s*")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_LOWEST_PORT, _HIGHEST_PORT = 1024, 65535


def payload_bytes(value: object, name: str = "max_payload_size") -> int | None:
    """Return a size in bytes; `None` is without a limit.

    Args:
        value: A number, a text such as `"10MB"` (1 MB = 1024² bytes, as documented), `None` for 100 MB, -1 for no limit.
        name: What it is called.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> payload_bytes("10MB"), payload_bytes(None), payload_bytes(-1), payload_bytes(5)
        (10485760, 104857600, None, 5)
    """
    if value is None:
        return DEFAULT_PAYLOAD
    if value == -1:
        return None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.upper())):
        return int(float(match[1]) * 1024 ** _POWERS[match[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigError(f"{name}={value!r} is not accepted: it takes a number of bytes, a text such as '10MB' or '1GB', or -1 for no limit.")


def checked_path(name: str, path: object) -> str:
    """Return a path of the server.

    Raises:
        ConfigError: It does not start with `/`.
    """
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigError(f"{name} must start with '/', and is {path!r}. Pass {name}={f'/{path}'!r}.")
    return path


def checked_paths(paths: Sequence[str], own: Mapping[str, str]) -> None:
    """Refuse a path that two APIs have, or that the server itself answers.

    Args:
        paths: Of the APIs.
        own: Path → what the server answers there.

    Raises:
        ConfigError: One is in use.
    """
    seen: dict[str, str] = dict(own)
    for number, path in enumerate(paths):
        if path in seen:
            raise ConfigError(f"api_path {path!r} is already in use by {seen[path]}. Give each LitAPI a path of its own: api_path='/…'.")
        seen[path] = f"API {number}"


def checked_port(port: object) -> int:
    """Return a port; 0 is a free one.

    Raises:
        ConfigError: It is out of range.
    """
    if isinstance(port, str) and port.isdecimal():
        port = int(port)
    if isinstance(port, int) and not isinstance(port, bool) and (port == 0 or _LOWEST_PORT <= port <= _HIGHEST_PORT):
        return port
    raise ConfigError(f"port must be a value from {_LOWEST_PORT} to {_HIGHEST_PORT} but got {port!r}. 0 takes a free one.")


def checked_host(host: object) -> str:
    """Return what to listen on: an address, or `unix:/path`.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(host, str) and (host in HOSTS or (host.startswith("unix:/") and len(host) > len("unix:/"))):
        return host
    raise ConfigError(f"host must be '0.0.0.0', '127.0.0.1', or '::' but got {host!r}. A unix socket is 'unix:/path'.")


def checked_front_ends(count: object, workers: int) -> int:
    """Return how many front ends there are: by default one for four workers.

    Raises:
        ConfigError: Less than one.
    """
    if count is None:
        return max(1, -(-workers // 4))
    if isinstance(count, int) and not isinstance(count, bool) and count >= 1:
        return count
    raise ConfigError(f"num_api_servers must be greater than 0 but got {count!r}.")


def seconds_or_never(value: object, name: str = "timeout") -> float:
    """Return seconds; infinite for `False`, -1 and `None`.

    Raises:
        ConfigError: It is no number of seconds.

    Example:
        >>> seconds_or_never(30), seconds_or_never(False), seconds_or_never(-1)
        (30.0, inf, inf)
    """
    if value is None or value is False or value == -1:
        return math.inf
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value):
        return float(value) if value < FOREVER else math.inf
    raise ConfigError(f"{name}={value!r} is not accepted: it takes seconds > 0, or False for none.")


def workers_for(given: object, paths: Sequence[str]) -> list[int]:
    """Return how many workers each API has on each device.

    Args:
        given: A number for all, a list in the order of the APIs, or a dict by path, where one that is missing has one.
        paths: Of the APIs.

    Raises:
        ConfigError: Not one for each API, an unknown path, or a number < 1.

    Example:
        >>> workers_for({"/b": 3}, ["/a", "/b"])
        [1, 3]
    """
    if isinstance(given, Mapping):
        unknown = [path for path in given if path not in paths]
        if unknown:
            raise ConfigError(
                f"workers_per_device names the path {unknown[0]!r}, which no API has. There are: {listed(paths)}."
                f"{closest(str(unknown[0]), paths)}"
            )
        counts: list[object] = [given.get(path, 1) for path in paths]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        counts = list(given)
        if len(counts) != len(paths):
            raise ConfigError(f"workers_per_device has {len(counts)} numbers for {len(paths)} APIs: give one for each, in their order.")
    else:
        counts = [given] * len(paths)
    numbers = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count >= 1]
    if len(numbers) != len(paths):
        raise ConfigError(f"workers_per_device={given!r} is not accepted: it takes whole numbers ≥ 1.")
    return numbers


def checked_metadata(metadata: Any) -> Any:
    """Return a model's metadata.

    Raises:
        ConfigTypeError: It is no JSON.
    """
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise ConfigTypeError(f"model_metadata must be JSON serializable. {error}: pass numbers, text, lists and dicts of them.") from error
    return metadata
