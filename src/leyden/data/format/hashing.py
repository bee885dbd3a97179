"""The checksums of files: xxh3-64 for buffers, xxh3-128 for whole files, CRC-32C for footers."""

from typing import Any

import xxhash

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def xxh3_64(buffer: Any) -> int:
    """Return the 64-bit hash of a buffer, seed 0.

    Example:
        >>> f"{xxh3_64(b''):016x}"
        '2d06800538d394c2'
    """
    return xxhash.xxh3_64_intdigest(buffer)


def digest128(buffer: Any) -> str:
    """Return the 128-bit hash of a buffer as 32 digits."""
    return xxhash.xxh3_128_hexdigest(buffer)


def crc32c(buffer: bytes) -> int:
    """Return the CRC-32C of a few kilobytes.

    Example:
        >>> f"{crc32c(b'123456789'):08x}"
        'e3069283'
    """
    value = 0xFFFFFFFF
    for byte in buffer:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_entry(value) for value in range(256))
