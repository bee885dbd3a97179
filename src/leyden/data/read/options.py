"""The arguments of `StreamingDataset`, checked once and kept as one frozen configuration."""

import configparser
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leyden.core.arguments import flag, one_of, whole
from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError, listed
from leyden.data.codecs.serializer import Serializer
from leyden.data.config import Dir, ItemLoader, ParquetLoader, PyTreeLoader, TokensLoader, parse_bytes, place_of
from leyden.data.placement import Place
from leyden.data.read.folders import checked_cache_size

LOOK_AHEAD_BYTES = 64_000_000  # of one `max_pre_download`
_MOST_LANES = 2**16
_SESSION = frozenset({"profile_name", "region_name"})


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderOptions:
    """What the order of the samples depends on, beside the data."""

    seed: int
    shuffle: bool
    kind: Literal["sequential", "lanes"]
    lanes: int
    window: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """Where the data is and how it is opened."""

    url: str
    cache_dir: str | None
    max_cache_size: "int | float | str | None"
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    index_path: str | None = None
    version: int | None = None
    encryption: Any = None
    item_loader: ItemLoader = field(default_factory=PyTreeLoader)
    columns: "tuple[str, ...] | None" = None
    serializers: Mapping[str, Serializer] = field(default_factory=dict)
    trust: bool = False
    verify: Literal["first", "always", "never"] = "first"
    ram_bytes: int = 2**30  # of a cache in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How rows are read and handed out."""

    decode: "bool | Mapping[str, bool]"
    output: Literal["torch", "numpy"]
    drop_last: bool | None
    subsample: float
    batch_size: int | None
    place: Place | None
    connections: int
    ahead_bytes: int
    ram_bytes: int
    force_override_state: bool


def order_options(*, seed: Any, shuffle: Any, order: str, lanes: int, window: int) -> OrderOptions:
    """Return the order's options.

    Raises:
        ConfigError: One is not accepted.
    """
    flag("shuffle", shuffle)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigTypeError(f"seed={seed!r} is not accepted: it takes a whole number.")
    one_of("order", order, ("auto", "sequential", "lanes"))
    whole("lanes", lanes, 1)
    whole("window", window, 1)
    if order == "sequential" and shuffle:
        raise ConfigError("order='sequential' with shuffle=True contradict each other: leave order='auto', or shuffle=False.")
    if lanes > _MOST_LANES or lanes & (lanes - 1):
        raise ConfigError(f"lanes={lanes!r} is not accepted: it takes a power of two up to {_MOST_LANES}, such as 64.")
    is_lanes = shuffle or order == "lanes"
    return OrderOptions(seed=seed, shuffle=shuffle, kind="lanes" if is_lanes else "sequential", lanes=lanes, window=window)


def source_options(
    input_dir: "str | os.PathLike[str] | Dir",
    item_loader: Any,
    columns: Sequence[str] | None,
    given: Mapping[str, Any],
) -> SourceOptions:
    """Return the source's options.

    Args:
        input_dir: As the user gave it.
        item_loader: As the user gave it.
        columns: As the user gave them.
        given: The other arguments by name.
    """
    loader = PyTreeLoader() if item_loader is None else item_loader() if isinstance(item_loader, type) else item_loader
    if not isinstance(loader, TokensLoader | PyTreeLoader | ParquetLoader):
        raise ConfigTypeError(f"item_loader={item_loader!r} is not accepted: it takes TokensLoader(block_size=…), ParquetLoader() or None.")
    if isinstance(loader, ParquetLoader):
        if loader.pre_load_chunk or not loader.low_memory:
            warnings.warn("ParquetLoader(pre_load_chunk=…, low_memory=…) have no effect: row groups are fetched ahead.", stacklevel=4)
        columns = columns or loader.columns
    if isinstance(columns, str):
        raise ConfigTypeError(f"columns={columns!r} is not accepted: it takes a list of names, such as [{columns!r}].")
    for name in ("storage_options", "session_options", "serializers"):
        if given[name] is not None and not isinstance(given[name], Mapping):
            raise ConfigTypeError(f"{name}={given[name]!r} is not accepted: it takes a dict.")
    folder = given["cache_dir"]
    if isinstance(folder, Dir):
        folder = folder.path
    if folder is None and isinstance(input_dir, Dir) and input_dir.url:
        folder = input_dir.path
    return SourceOptions(
        url=place_of(input_dir),
        cache_dir=None if folder is None else os.fspath(folder),
        max_cache_size=checked_cache_size(given["max_cache_size"]),
        storage_options={**(given["storage_options"] or {}), **session(given["session_options"])},
        index_path=given["index_path"],
        version=None if given["version"] is None else whole("version", given["version"], 1),
        encryption=given["encryption"],
        item_loader=loader,
        columns=None if columns is None else tuple(columns),
        serializers=dict(given["serializers"] or {}),
        trust=flag("trust", given["trust"]),
        verify=one_of("verify", given["verify"], ("first", "always", "never")),
        ram_bytes=parse_bytes(given["ram_bytes"], "ram_bytes"),
    )


def read_options(given: Mapping[str, Any]) -> ReadOptions:
    """Return how rows are read and handed out.

    Raises:
        ConfigError: An argument is not accepted.
    """
    ahead, units = given["prefetch_bytes"], whole("max_pre_download", given["max_pre_download"], 0)
    subsample = given["subsample"]
    if isinstance(subsample, bool) or not isinstance(subsample, int | float | np.number) or not 0 < subsample < math.inf:
        raise ConfigError(f"subsample={subsample!r} is not accepted: it takes a number > 0; 0.1 is a tenth, 2 is every row twice.")
    if not isinstance(given["decode"], (bool, Mapping)):
        raise ConfigTypeError(f"decode={given['decode']!r} is not accepted: it takes True, False, or a dict of them by leaf.")
    return ReadOptions(
        decode=given["decode"],
        output=one_of("output", given["output"], ("torch", "numpy")),
        drop_last=None if given["drop_last"] is None else flag("drop_last", given["drop_last"]),
        subsample=float(given["subsample"]),
        batch_size=None if given["batch_size"] is None else whole("batch_size", given["batch_size"], 1),
        place=Place.checked(given["rank"], given["world_size"]),
        connections=whole("connections", given["connections"], 1),
        ahead_bytes=units * LOOK_AHEAD_BYTES if ahead is None else parse_bytes(ahead, "prefetch_bytes"),
        ram_bytes=parse_bytes(given["ram_bytes"], "ram_bytes"),
        force_override_state=flag("force_override_state_dict", given["force_override_state_dict"]),
    )


def report_replaced(*, num_canonical_nodes: Any, batch_decode: Any, item_shuffle_window: Any, window_direct_io: bool) -> None:
    """Warn about arguments that other settings replace, and refuse the one that cannot be had.

    Raises:
        UnsupportedError: `window_direct_io` is set.
    """
    replaced = {
        "num_canonical_nodes": (num_canonical_nodes is not None, "batches are the same for any number of nodes; lanes=… spreads them"),
        "batch_decode": (batch_decode != "auto", "batches are always decoded together"),
        "item_shuffle_window": (item_shuffle_window is not None, "window=… says over how many blocks of a lane rows are mixed"),
    }
    for name, (is_set, reason) in replaced.items():
        if is_set:
            warnings.warn(f"StreamingDataset({name}=…) has no effect: {reason}.", stacklevel=4)
    if window_direct_io:
        raise UnsupportedError("window_direct_io=True is not supported: blocks are read through the page cache. Leave it out.")


def session(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a session's options mean for the storage.

    Raises:
        ConfigError: There are others than `profile_name` and `region_name`.
    """
    unknown = set(options or {}) - _SESSION
    if unknown:
        raise ConfigError(
            f"session_options={sorted(unknown)} are not accepted: only {listed(sorted(_SESSION))} are. Use storage_options=…."
        )
    found = dict(options or {})
    profile = found.pop("profile_name", None)
    if profile is not None:
        found.update(profile_credentials(profile))
    return found


def profile_credentials(profile: str) -> dict[str, str]:
    """Return the credentials of a profile in `~/.aws/credentials`.

    Raises:
        ConfigError: There is no such profile.
    """
    parser = configparser.ConfigParser()
    parser.read(Path("~/.aws/credentials").expanduser())
    if profile not in parser:
        raise ConfigError(f"profile_name={profile!r}: ~/.aws/credentials has no such profile; there are {listed(parser.sections())}.")
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {name: parser[profile][name] for name in names if name in parser[profile]}
