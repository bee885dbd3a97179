"""Transforms and batch functions for tests of loaders, at the top of a module so that worker processes can have them."""

import os
import random
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leyden.data.philox import SampleRng


def doubled(sample: dict[str, Any]) -> dict[str, Any]:
    return {"x": 2 * sample["x"]}


def with_draws(sample: dict[str, Any], rng: SampleRng) -> dict[str, Any]:
    return {"x": sample["x"], "draw": int(rng.numpy.integers(2**40))}


def with_global_draws(sample: dict[str, Any]) -> dict[str, Any]:
    return {"x": sample["x"], "draw": random.getrandbits(40), "other": int(np.random.randint(2**30))}


def with_process(sample: dict[str, Any]) -> dict[str, Any]:
    return {"x": sample["x"], "pid": os.getpid()}


def total(samples: list[dict[str, Any]]) -> int:
    return sum(sample["x"] for sample in samples)


def negated(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": -batch["x"]}


def refuses_13(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["x"] == 13:
        raise ZeroDivisionError("thirteen")
    return sample


class Deadly:
    """Kills its process at sample 13: the first time only, or every time.

    Args:
        mark: A file that says that it has done so; `None` does it again and again.
    """

    def __init__(self, mark: str | None) -> None:
        self.mark = mark

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        if sample["x"] == 13 and (self.mark is None or not Path(self.mark).exists()):
            if self.mark is not None:
                Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


def noted(folder: str, number: int) -> None:
    (Path(folder) / f"worker-{number}").touch()


def fails_to_begin(number: int) -> None:
    raise RuntimeError(f"worker {number} has no scratch disk")


def numbered(number: int) -> dict[str, int]:
    return {"x": number}


def fails_at_13(sample: Any) -> Any:
    if int(sample["x"]) == 13:
        raise ValueError("13")
    return sample


def same(samples: Any) -> Any:
    return samples


class Point(NamedTuple):
    x: int
    y: int


def point(number: int) -> Point:
    return Point(number, number + 1)
