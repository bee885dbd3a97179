"""Small arguments that reading and writing share: places, sizes, and the item loaders as configuration.

An item loader says how rows are made of what is stored. Nothing is subclassed: the three kinds are final, and readers
and writers look at their fields.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from leyden.core.errors import ConfigError

_UNITS = {
    "": 1, "B": 1,
    "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9, "T": 10**12, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
TOKEN_DTYPES = ("auto", "uint16", "uint32", "int16", "int32", "int64", "int8", "uint8", "uint64")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


@final
@dataclass(frozen=True)
class Dir:
    """A place with two names: a URL, and a local folder that stands for it.

    Args:
        path: The local folder; read from and written to if there is no `url`, else the cache of it.
        url: Where the data is.

    Example:
        >>> Dir("cache", "s3://bucket/train").url
        's3://bucket/train'
    """

    path: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if not self.path and not self.url:
            raise ConfigError("Dir() names no place: give Dir(path='folder'), Dir(url='s3://bucket/train'), or both.")


@final
@dataclass(frozen=True)
class TokensLoader:
    """Rows are windows of one long stream of tokens.

    Args:
        block_size: Tokens in a window, such as 2049 for 2048 inputs and their targets; needed for reading.
        document_ids: Whether a row is `{"tokens", "document", "position"}` instead of the tokens alone.
        store_dtype: How tokens are stored: `"auto"` is the smallest integer that holds those of a block, else a dtype's name.
        mode: `"concat"`: windows cross documents and chunks; the last tokens that fill no window are left out.

    Example:
        >>> TokensLoader(block_size=2049).block_size
        2049
    """

    block_size: int | None = None
    document_ids: bool = False
    store_dtype: str = "auto"
    mode: Literal["concat"] = "concat"

    def __post_init__(self) -> None:
        if self.block_size is not None and (
            isinstance(self.block_size, bool) or not isinstance(self.block_size, int) or self.block_size < 1
        ):
            raise ConfigError(f"block_size={self.block_size!r} is not accepted: it takes a whole number of tokens ≥ 1, such as 2049.")
        if self.store_dtype not in TOKEN_DTYPES:
            raise ConfigError(f"store_dtype={self.store_dtype!r} is not accepted: it takes {', '.join(map(repr, TOKEN_DTYPES))}.")
        if self.mode != "concat":
            raise ConfigError(f"mode={self.mode!r} is not accepted: it takes 'concat'.")


@final
@dataclass(frozen=True)
class PyTreeLoader:
    """Rows are trees of leaves, as `optimize` wrote them; what is read without an item loader."""


@final
@dataclass(frozen=True)
class ParquetLoader:
    """Rows are those of Parquet files.

    Args:
        columns: Which columns are read; all by default.
        pre_load_chunk: Without effect: row groups are fetched ahead in any case.
        low_memory: Without effect: one row group is in memory at a time.
    """

    columns: Sequence[str] | None = None
    pre_load_chunk: bool = False
    low_memory: bool = True


ItemLoader = TokensLoader | PyTreeLoader | ParquetLoader


def parse_bytes(value: int | str, name: str) -> int:
    """Return a number of bytes: `1 MB` is 10⁶, `1 MiB` is 2²⁰.

    Args:
        value: A number, or text such as `"64MB"` and `"1.5 GiB"`.
        name: The argument, for the message.

    Raises:
        ConfigError: It is neither.

    Example:
        >>> parse_bytes("64MB", "chunk_bytes"), parse_bytes("2MiB", "block_bytes")
        (64000000, 2097152)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigError(f"{name}={value!r} is not accepted: it takes a number of bytes, or text such as '64MB' (10⁶) or '64MiB' (2²⁰).")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def place_of(place: "str | os.PathLike[str] | Dir") -> str:
    """Return the URL or path at which data is read or written.

    Example:
        >>> place_of(Dir("cache", "s3://bucket/train"))
        's3://bucket/train'
    """
    if isinstance(place, Dir):
        return place.url or os.fspath(place.path or "")
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):  # pyrefly: ignore[implicit-any-type-argument]
        raise ConfigError(f"{place!r} is no place: give a folder, a URL such as 's3://bucket/train', or Dir(path, url).")
    return os.fspath(place)
