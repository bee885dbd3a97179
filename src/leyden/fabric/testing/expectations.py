"""How a kit says what it found: `AssertionError` with both values, since pytest rewrites no `assert` outside of test files.

No kit imports pytest: a kit is a plain class whose `test_*` methods any runner can call.
"""

import contextlib
import math
import unittest
from collections.abc import Generator, Sequence
from typing import Any, NoReturn


def expect(is_so: object, rule: str) -> None:
    """Raise unless something is so.

    Args:
        is_so: Taken for its truth.
        rule: What every implementation must do, and what this one did.

    Raises:
        AssertionError: It is not so.
    """
    if not is_so:
        raise AssertionError(rule)


def expect_equal(found: Any, expected: Any, rule: str) -> None:
    """Raise with both values unless they are equal.

    Raises:
        AssertionError: They are not.
    """
    expect(found == expected, f"{rule}: expected {expected!r}, found {found!r}")


def expect_close(found: Sequence[float], expected: Sequence[float], rule: str, *, relative: float) -> None:
    """Raise with the first pair that differs by more than `relative`; to zero, absolutely.

    Raises:
        AssertionError: A pair differs, or there are not as many.

    Example:
        >>> expect_close([1.0], [1.0 + 1e-9], "the same", relative=1e-6)
    """
    expect_equal(len(found), len(expected), f"{rule} (how many values)")
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        is_close = math.isclose(ours, theirs, rel_tol=relative, abs_tol=0.0 if theirs else relative)
        expect(is_close, f"{rule}: value {index} should be {theirs!r} (± {relative}), found {ours!r}")


@contextlib.contextmanager
def refused(what: str, *errors: type[Exception], words: str = "") -> Generator[None, None, None]:
    """Expect the block to raise one of `errors`, with `words` in its message.

    Raises:
        AssertionError: Nothing is raised, or the words are missing. Another error passes.
    """
    try:
        yield
    except errors as error:
        expect(words in str(error), f"the refusal of {what} should say {words!r}, but says: {error}")
        return
    names = " or ".join(error.__name__ for error in errors)
    raise AssertionError(f"{what} should be refused with {names}, but was accepted")


def skip(reason: str) -> NoReturn:
    """End a test as skipped: pytest and unittest both take this exception."""
    raise unittest.SkipTest(reason)
