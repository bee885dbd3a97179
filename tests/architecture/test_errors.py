"""The error tree is complete where a reader looks for it: in the docstring that draws it, and in the reference."""

import inspect
from pathlib import Path

import pytest

from leyden.core import errors

REFERENCE = Path(__file__).parents[2] / "docs/reference/errors.md"
CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.LeydenError)]


@pytest.mark.parametrize("error", CLASSES)
def test_error_is_drawn_in_the_tree(error: type[errors.LeydenError]) -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if error.__name__ in line.replace("(", " ").split()]
    assert len(drawn) == 1
    if error is not errors.LeydenError:
        parents = [base.__name__ for base in error.__bases__]
        for parent in parents[1:]:  # the built-in that old code catches
            assert f"({parent})" in drawn[0]


@pytest.mark.parametrize("error", CLASSES)
def test_error_is_documented_with_its_code(error: type[errors.LeydenError]) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert f"`{error.__name__}`" in text
    assert f"`{error.code}`" in text


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
