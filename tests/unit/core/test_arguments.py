"""Checks of single arguments: what they accept, numpy's numbers too, and what they say of the rest."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from leyden.core.arguments import flag, number, one_of, positive, whole
from leyden.core.errors import ConfigError, ConfigTypeError


def test_what_is_accepted_comes_back_as_python_s_own() -> None:
    assert [whole("n", value, 0) for value in (0, 7, np.int32(7))] == [0, 7, 7]
    assert [type(whole("n", np.uint8(7), 0)), type(number("x", np.float32(0.5), 0)), type(positive("x", 2))] == [int, float, float]
    assert [number("x", 0, 0), positive("x", math.inf), flag("f", False), one_of("o", "a", ("a", "b"))] == [0.0, math.inf, False, "a"]


@pytest.mark.parametrize(
    ("check", "value", "told"),
    [
        *((lambda value: whole("n", value, 1), value, "a whole number ≥ 1") for value in (0, -1, True, 1.0, "1", None, np.float64(2))),
        *((lambda value: number("n", value, 0), value, "a number ≥ 0") for value in (-0.5, True, "1", None, math.nan, 1j)),
        *((lambda value: positive("n", value), value, "a number > 0") for value in (0, -1, True, "x", math.nan)),
        (lambda value: flag("n", value), 1, "True or False"),
        (lambda value: one_of("n", value, ("torch", "numpy")), "nunpy", "one of 'torch', 'numpy'"),
        (lambda value: one_of("n", value, ("torch", "numpy")), None, "one of 'torch', 'numpy'"),
    ],
)
def test_the_rest_is_named_with_what_is_accepted(check: Callable[[Any], Any], value: Any, told: str) -> None:
    with pytest.raises((ConfigError, ConfigTypeError), match=re.escape(f"n={value!r} is not accepted: it takes {told}")):
        check(value)


def test_a_word_that_is_near_is_offered() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'numpy'"):
        one_of("output", "nunpy", ("torch", "numpy"))
