"""A learning rate on two real ranks: both see one curve, and weights in parts are put back too."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from leyden.core.errors import UnsupportedError
from leyden.trainer.callbacks import BatchSizeFinder, LearningRateFinder
from tests.support.ranks import run_ranks
from tests.support.training_state import assert_same_tree
from tests.support.tunable import fresh, trainer_for


def whole(tree: Any) -> dict[str, torch.Tensor]:
    return {name: (value.full_tensor() if hasattr(value, "full_tensor") else value).clone() for name, value in tree.items()}


def fitted(root: Path, strategy: str, *callbacks: Any, **options: Any) -> dict[str, torch.Tensor]:
    module = fresh(**options)
    trainer = trainer_for(root, *callbacks, strategy=strategy, devices=2)
    trainer.fit(module)
    return whole(module.state_dict())


def in_ranks(root: Path, strategy: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    rank = dist.get_rank()
    plain = fitted(root, strategy)
    looks = LearningRateFinder(update_attr=False, num_training_steps=15)
    assert_same_tree(fitted(root, strategy, looks), plain)
    sets = LearningRateFinder(num_training_steps=30)
    tuned = fitted(root, strategy, sets)
    assert sets.optimal_lr is not None
    rate = sets.optimal_lr.suggestion()
    assert_same_tree(fitted(root, strategy, lr=rate), tuned)
    with pytest.raises(UnsupportedError, match="not supported with distributed strategies"):
        fitted(root, strategy, BatchSizeFinder())
    return {"rank": rank, "results": sets.optimal_lr.results, "rate": rate}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ranks_agree_and_nothing_is_left_of_the_trial(tmp_path: Path, strategy: str) -> None:
    first, second = run_ranks(in_ranks, 2, args=[tmp_path, strategy], timeout=120)
    assert (first["rank"], second["rank"]) == (0, 1)
    assert first["results"] == second["results"]
    assert first["rate"] == second["rate"] is not None
