"""What names a function: everything that its answers depend on, and the same in every process."""

import functools
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leyden.data import AesGcm, optimize
from leyden.data.write.described import describe, digest_of
from leyden.data.write.plan import digest_of_inputs

QUALITY = 1
CALLS = 0
SCRIPT = """
import functools
import pickle
from leyden.data.write.described import describe
from leyden.data.write.plan import digest_of_inputs

class Filter:
    def __init__(self): self.words = {"the", "a", "of", "and"}
    def keep(self, text, stop=frozenset({"x", "y", "z"})): return lambda: self.words

def sample(text, stop): return text

held = Filter().keep("")
print(describe(Filter().keep), describe(held), describe(functools.partial(sample, stop={"a", "b", "c"})))
print(digest_of_inputs([{"tags": {"a", "b", "c"}}]))
"""


class Times:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def of(self, number: int) -> Any:
        return number * self.factor

    def __call__(self, number: int) -> Any:
        return self.of(number)


class Cached(Times):
    def __getstate__(self) -> dict[str, Any]:
        return {"factor": self.factor}  # what else it holds is found again


def with_default(factor: int) -> Callable[..., int]:
    def sample(number: int, factor: int = factor) -> int:
        return number * factor

    return sample


def with_keyword(factor: int) -> Callable[..., int]:
    def sample(number: int, *, factor: int = factor) -> int:
        return number * factor

    return sample


def closing_over(factor: Any) -> Callable[..., Any]:
    inner = lambda number: number * factor  # noqa: E731 - what is closed over is a function without a name

    def sample(number: int) -> Any:
        return inner(number)

    return sample


def without_text(constant: int) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(f"def sample(i):\n    def inner(): return i + {constant}\n    return inner()\n", names)
    made: Callable[..., Any] = names["sample"]
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda factor: Times(factor).of,
        Times,
        with_default,
        with_keyword,
        closing_over,
        without_text,
        lambda factor: functools.partial(Times(factor).of, 3),
        lambda factor: Times(torch.full((2,), factor)).of,
        lambda factor: Times(np.full(2, factor)).of,
    ],
    ids=["method", "object", "default", "keyword", "closure", "code", "partial", "tensor", "array"],
)
def test_a_function_that_holds_something_else_is_another_one(make: Callable[[int], Any]) -> None:
    assert describe(make(1)) == describe(make(1))
    assert describe(make(1)) != describe(make(10))


def test_constants_of_the_module_that_a_function_names_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(number: int) -> int:
        return number * QUALITY

    before = describe(sample)
    monkeypatch.setitem(globals(), "QUALITY", 2)
    assert describe(sample) != before


def test_what_an_object_finds_again_does_not_count() -> None:
    used = Cached(2)
    before = describe(used.of)
    used.cache = object()  # type: ignore[attr-defined]
    assert describe(used.of) == before


def test_modules_cycles_and_what_cannot_be_pickled_are_described() -> None:
    def made() -> Any:
        def sample(number: int) -> Any:
            return sample, torch, lock, number

        lock = __import__("threading").Lock()
        return sample

    assert describe(made()) == describe(made())
    cycle: list[Any] = [1]
    cycle.append(cycle)
    other: list[Any] = [2]
    other.append(other)
    assert digest_of(cycle) != digest_of(other)


def test_equal_values_are_described_alike_whatever_is_shared() -> None:
    part = ["a"]
    assert digest_of([part, part]) == digest_of([["a"], ["a"]])
    assert digest_of_inputs([(np.int64(1), {2, 1})]) == digest_of_inputs([(np.int64(1), {1, 2})])
    assert digest_of_inputs([np.int64(1)]) != digest_of_inputs([np.int64(2)])


def test_the_order_of_hashes_does_not_count(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    told = set[bytes]()
    for seed in ("1", "2", "3"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        told.add(subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, check=True).stdout)
    assert len(told) == 1


def test_lambdas_of_one_line_are_told_apart() -> None:
    first, second = (lambda number: number + 1), (lambda number: number + 2)
    assert describe(first) != describe(second)
    again, _ = (lambda number: number + 1), (lambda number: number + 2)
    assert describe(again)["closure"] == describe(first)["closure"]


def _counted(number: int) -> int:
    global CALLS  # noqa: PLW0603 - that is what is tested
    CALLS += 1
    return number


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def count(self, number: int) -> int:
        self.calls += 1
        return number


def test_a_global_that_a_function_sets_does_not_count() -> None:
    before = describe(_counted)
    _counted(1)
    assert describe(_counted) == before


@pytest.mark.parametrize("inputs", [list, iter])
def test_a_function_that_changes_what_it_holds_finds_its_job_again(tmp_path: Path, inputs: Callable[[range], Any]) -> None:
    first = optimize(Counter().count, inputs(range(5)), str(tmp_path), num_workers=0)
    assert optimize(Counter().count, inputs(range(5)), str(tmp_path), num_workers=0)[:3] == first[:3]


def test_a_key_that_was_used_is_the_same_key() -> None:
    fresh, used = AesGcm(password="a"), AesGcm(password="a")
    used.master(bytes(32))
    assert digest_of(fresh) == digest_of(used) == digest_of(pickle.loads(pickle.dumps(used)))
    assert digest_of(fresh) != digest_of(AesGcm(password="b"))
