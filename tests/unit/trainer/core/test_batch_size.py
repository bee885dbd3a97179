import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer.core.batch_size import batch_size_of, infer_batch_size

Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Sample:
    name: str
    x: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(5, 2), 5),
        (torch.tensor(1.0), 1),
        ((torch.zeros(5, 2), torch.zeros(5)), 5),
        ([torch.zeros(5, 2), torch.zeros(5)], 5),
        ({"ids": torch.zeros(5, 2), "name": ["a"] * 5}, 5),
        ([["a", "b"], {"x": torch.zeros(5)}], 5),
        (Pair(torch.zeros(5), None), 5),
        (Sample("a", torch.zeros(5, 1)), 5),
        ((torch.zeros(5, 2), 3), 5),
        (torch.nn.Parameter(torch.zeros(5, 2)), 5),
    ],
)
def test_the_size_is_that_of_the_first_tensor(batch: Any, size: int) -> None:
    assert batch_size_of(batch) == infer_batch_size(batch) == size


def test_tensors_that_disagree_are_warned_about_and_the_first_counts() -> None:
    for batch in ((torch.zeros(5), torch.zeros(3)), {"a": torch.zeros(5), "b": torch.tensor(1)}):
        with pytest.warns(UserWarning, match="ambiguous collection"):
            assert infer_batch_size(batch) == 5


@pytest.mark.parametrize("batch", ["text", ["a"], {}, [], None, 3, Sample])
def test_a_batch_without_tensors_has_no_size(batch: Any) -> None:
    assert batch_size_of(batch) is None
    with pytest.raises(ConfigError, match="could not infer the batch_size"):
        infer_batch_size(batch)


def test_an_empty_batch_weighs_nothing() -> None:
    with warnings.catch_warnings():
        assert infer_batch_size((torch.zeros(0, 2), torch.zeros(0))) == 0
