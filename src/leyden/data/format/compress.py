"""Compression of buffers: only where it saves a tenth, so that reading never pays for nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.optional import require

RAW, ZSTD, LZ4 = range(3)
_LEAST_BYTES, _LEAST_SAVING = 512, 0.9
_ACCEPTED = 'Accepted are "zstd", "zstd:1" to "zstd:22", "lz4", "auto" and None.'


@final
@dataclasses.dataclass(frozen=True)
class Compression:
    """How buffers are compressed.

    Args:
        name: `zstd`, `zstd:N`, `lz4`, or `auto`, which is `zstd:1`; `None`: not at all.

    Raises:
        ConfigError: Another name.

    Example:
        >>> codec, stored = Compression("zstd").shrink(bytes(10_000))
        >>> codec == ZSTD and expand(codec, stored, 10_000, "here") == bytes(10_000)
        True
    """

    name: str | None = None

    def __post_init__(self) -> None:
        name, _, level = (self.name if isinstance(self.name, str) else "").partition(":")
        level_is_known = not level or (name == "zstd" and level.isdecimal() and 1 <= int(level) <= 22)
        if self.name is not None and (name not in ("zstd", "lz4", "auto") or not level_is_known):
            raise ConfigError(f"compression={self.name!r} is not known. {_ACCEPTED}")

    def shrink(self, raw: Any) -> tuple[int, Any]:
        """Return the codec's number and the bytes to store: the raw ones, unless a tenth is saved."""
        if self.name is None or len(raw) < _LEAST_BYTES:
            return RAW, raw
        codec, stored = self._compressed(raw)
        return (codec, stored) if len(stored) <= _LEAST_SAVING * len(raw) else (RAW, raw)

    def _compressed(self, raw: Any) -> tuple[int, bytes]:
        name, _, level = str(self.name).partition(":")
        if name == "lz4":
            return LZ4, require("lz4.frame", extra="data", purpose='compression="lz4"').compress(raw)
        library = require("zstandard", extra="data", purpose='compression="zstd"')
        chosen = 1 if name == "auto" else int(level or 4)
        return ZSTD, library.ZstdCompressor(level=chosen, write_content_size=True).compress(raw)


def expand(codec: int, stored: Any, raw_bytes: int, where: str) -> Any:
    """Return the bytes that were compressed.

    Args:
        codec: The codec's number.
        stored: What is in the file.
        raw_bytes: How many bytes must come out.
        where: The place, for the error.

    Raises:
        CorruptDataError: It is no compressed data, or of another length.
    """
    if codec == RAW:
        return stored
    try:
        found = _EXPANDERS[codec](stored, raw_bytes)
    except KeyError:
        raise CorruptDataError(f"{where}: there is no codec {codec}.") from None
    except Exception as error:
        raise CorruptDataError(f"{where}: the compressed bytes are damaged ({error}).") from error
    if len(found) != raw_bytes:
        raise CorruptDataError(f"{where}: {len(found):,} bytes came out of the compressed ones instead of {raw_bytes:,}.")
    return found


def _zstd(stored: Any, raw_bytes: int) -> bytes:
    library = require("zstandard", extra="data", purpose="reading data compressed with zstd")
    return library.ZstdDecompressor().decompress(stored, max_output_size=max(1, raw_bytes))


def _lz4(stored: Any, raw_bytes: int) -> bytes:
    return require("lz4.frame", extra="data", purpose="reading data compressed with lz4").decompress(stored)


_EXPANDERS: dict[int, Callable[[Any, int], bytes]] = {ZSTD: _zstd, LZ4: _lz4}
