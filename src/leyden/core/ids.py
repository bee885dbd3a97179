"""Identifiers that are short, unique, and sort by the time they were made.

`job-01k2v9x3fa7q8m4t1zc0` = prefix, ten characters of milliseconds since 1970, ten of randomness (50 bits), in
Crockford's base 32 in lower case: no `i l o u`, safe in paths, URLs, DNS names and on file systems that ignore case.
Two ids made in the same millisecond sort at random; 100 a millisecond meet with a chance of 5 in 10**12.
"""

import os
import re
import time
from collections.abc import Callable

from leyden.core.errors import ConfigError

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_DIGITS = 10  # 50 bits of milliseconds: enough until the year 37,648
_RANDOM_DIGITS = 10
_PREFIX = re.compile(r"[a-z][a-z0-9]*")


def _system_bits(count: int) -> int:
    size = (count + 7) // 8
    return int.from_bytes(os.urandom(size)) >> (8 * size - count)  # `secrets` would do it, and costs 10 ms to import


def new_id(
    prefix: str,
    *,
    now: Callable[[], float] = time.time,
    random_bits: Callable[[int], int] = _system_bits,
) -> str:
    """Return a new identifier.

    Args:
        prefix: What it names, such as `"job"`: lower-case letters and digits, a letter first.
        now: Returns seconds since 1970 (`Clock.time`).
        random_bits: Returns a number of that many random bits.

    Raises:
        ConfigError: The prefix has other characters.

    Example:
        >>> new_id("job", now=lambda: 1.0, random_bits=lambda bits: 31)
        'job-00000000z8000000000z'
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"prefix={prefix!r} is not accepted: it takes lower-case letters and digits, a letter first, such as 'job'.")
    milliseconds = int(now() * 1000)
    return f"{prefix}-{_encode(milliseconds, _TIME_DIGITS)}{_encode(random_bits(5 * _RANDOM_DIGITS), _RANDOM_DIGITS)}"


def created_at(identifier: str) -> float:
    """Return when an identifier was made, in seconds since 1970, to the millisecond.

    Raises:
        ConfigError: It is not one of ours.

    Example:
        >>> created_at("job-00000000z8000000000z")
        1.0
    """
    digits = identifier.rpartition("-")[2]
    if len(digits) != _TIME_DIGITS + _RANDOM_DIGITS or not set(digits) <= set(ALPHABET):
        raise ConfigError(f"{identifier!r} is not an id of Leyden: those look like {new_id('job')!r}.")
    return sum(ALPHABET.index(digit) << (5 * place) for place, digit in enumerate(reversed(digits[:_TIME_DIGITS]))) / 1000


def _encode(number: int, length: int) -> str:
    return "".join(ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(length)))
