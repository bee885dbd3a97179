"""The executed facts of `tests/golden/golden_logging_2.6.6.json`, replayed against the store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from tests.support.metric_loops import Hook, Loops, Module

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "golden_logging_2.6.6.json").read_text())["cases"]


def step(**options: Any) -> dict[str, Hook]:
    return {"training_step": lambda module, index: module.log("a", torch.tensor(index + 1.0), **options)}


def val(**options: Any) -> dict[str, Hook]:
    """Log 10, 11 from the first loader and 20, 21 from the second."""
    return {"validation_step": lambda module, index: module.log("v", 10.0 + 10 * (index // 100) + index % 100, **options)}


def reductions(module: Module, index: int) -> None:
    for name, reduce_fx in (("s", "sum"), ("M", max), ("m", torch.min)):
        module.log(name, torch.tensor(index + 1.0), on_step=False, on_epoch=True, reduce_fx=reduce_fx)


def step_key(module: Module, index: int) -> None:
    module.log("step", index + 1.0, on_step=False, on_epoch=True)
    module.log("a", index + 1.0, on_step=False, on_epoch=True)


BOTH: dict[str, Any] = {"on_step": True, "on_epoch": True}
FORKED: dict[str, Any] = {**BOTH, "prog_bar": True}
EPOCH_HOOKS: dict[str, Hook] = {
    "on_train_epoch_start": lambda module, epoch: module.log("in_epoch_start", 5.0),
    "on_train_epoch_end": lambda module, epoch: module.log("in_epoch_end", 7.0),
}
FIT: dict[str, Callable[[], Loops]] = {
    "train_default": lambda: Loops(step()).fit(),
    "train_on_epoch_only": lambda: Loops(step(on_step=False, on_epoch=True)).fit(),
    "train_forked": lambda: Loops(step(**FORKED)).fit(),
    "train_reduce_sum_max_min": lambda: Loops({"training_step": reductions}).fit(),
    "train_logger_false": lambda: Loops(step(logger=False, prog_bar=True)).fit(),
    "train_log_every_1": lambda: Loops(step(), log_every=1).fit(),
    "train_accumulate2_log1": lambda: Loops(step(), log_every=1, accumulate=2).fit(),
    "train_accumulate3_on5_log1": lambda: Loops(step(), log_every=1, accumulate=3, batches=5).fit(),
    "train_manual_log1": lambda: Loops(step(), log_every=1, is_manual=True).fit(),
    "train_step_key": lambda: Loops({"training_step": step_key}).fit(),
    "train_epoch_hooks": lambda: Loops({**step(), **EPOCH_HOOKS}).fit(),
    "val_default": lambda: Loops({**step(), **val()}, val_batches=[2]).fit(),
    "val_forked": lambda: Loops({**step(), **val(**FORKED)}, val_batches=[2]).fit(),
    "val_two_loaders": lambda: Loops(val(), val_batches=[2, 2]).fit(),
    "val_twice_per_epoch": lambda: Loops({**step(**BOTH), **val()}, val_batches=[2], val_every=2).fit(),
    "val_every_3_steps": lambda: Loops({**step(), **val()}, val_batches=[2], val_every=3).fit(epochs=3),
}


@pytest.mark.parametrize("case", FIT)
def test_rows_and_dictionaries_of_fit_are_the_documented_ones(case: str) -> None:
    outcome = FIT[case]().outcome()
    assert outcome == {name: GOLDEN[case]["fit"][name] for name in outcome}


def test_validate_returns_epoch_values_and_counts_its_own_steps() -> None:
    loops = Loops(val(**BOTH), val_batches=[2]).entry("validate")
    assert loops.returned == GOLDEN["validate_test_returned"]["validate"]["returned"]
    assert loops.outcome() == {name: GOLDEN["validate_test_returned"]["validate"][name] for name in loops.outcome()}


def test_test_returns_epoch_values_and_counts_its_own_steps() -> None:
    loops = Loops({"test_step": val(**BOTH)["validation_step"]}, val_batches=[2]).entry("test")
    assert loops.returned == GOLDEN["validate_test_returned"]["test"]["returned"]
    assert loops.outcome() == {name: GOLDEN["validate_test_returned"]["test"][name] for name in loops.outcome()}


def test_validate_returns_one_dictionary_per_loader() -> None:
    loops = Loops(val(), val_batches=[2, 2]).entry("validate")
    assert loops.returned == GOLDEN["validate_two"]["validate"]["returned"]
    assert loops.outcome() == {name: GOLDEN["validate_two"]["validate"][name] for name in loops.outcome()}


def test_one_name_from_two_loaders_without_their_number_is_refused() -> None:
    assert "twice in `validation_step` with different arguments" in GOLDEN["val_two_loaders_noidx"]["raised"]
    with pytest.raises(ConfigError, match="twice in `validation_step` with different arguments"):
        Loops(val(add_dataloader_idx=False), val_batches=[2, 2]).fit()
