"""Exact resume: what comes after any checkpoint, in any hook, is what would have come without the interruption."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from leyden.core.failpoints import InjectedError, armed
from leyden.fabric.precision.mixed import MixedPrecision
from leyden.trainer.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from leyden.trainer.data.combined import CombinedLoader
from tests.support.resumed_fit import (
    Attempt,
    Failing,
    Manual,
    Net,
    PlateauOfSteps,
    Samples,
    Several,
    Stateful,
    Stream,
    Unsized,
    assert_same_events,
    ending,
    plain,
    prove,
    resumed,
    scramble,
    without_start,
)
from tests.support.training_state import assert_same_tree

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Checkpoint directory",
    "ignore:The number of training batches",
    "ignore:.*keeps no state",
    "ignore:2 optimizer steps happened",
    "ignore:.*in eval mode at the start of training",
    "ignore:'set_vital' is deprecated",
    "ignore:.*re-reads",
    "ignore:.*fork.*:DeprecationWarning",
)

SEAMS = {
    "mid-epoch": ("on_train_batch_end", 8),
    "last batch, validation pending": ("on_train_batch_end", 10),
    "epoch end": ("on_train_epoch_end", 2),
    "during validation": ("on_validation_batch_end", 5),
}


def again(*values: Any) -> Any:
    """Return a case whose rule another case shows as well."""
    return pytest.param(*values, marks=pytest.mark.long)


def crossed(cases: dict[str, Any], seams: list[tuple[str, int]]) -> list[Any]:
    """Return each case at each seam; not long are each case at one of them, the seams in turn."""
    return [
        pytest.param(case, *seam, id=f"{name}-{seam[0]}", marks=() if number % len(seams) == place else pytest.mark.long)
        for number, (name, case) in enumerate(cases.items())
        for place, seam in enumerate(seams)
    ]


def stateful() -> tuple[Any, Any]:
    return Stateful(10), Stateful(6)


def torchdata() -> tuple[Any, Any]:
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is no dependency, not even of tests")
    return tuple(loaders.StatefulDataLoader(Samples(length), batch_size=2, shuffle=length > 6) for length in (10, 6))  # type: ignore[return-value]


LOADERS = {"plain": plain, "two workers": partial(plain, 2), "stateful": stateful, "torchdata": torchdata}


@pytest.mark.parametrize(
    ("loaders", "seam"),
    [
        pytest.param(loaders, seam, marks=pytest.mark.long if loaders == "two workers" and seam != "mid-epoch" else ())
        for loaders in LOADERS
        for seam in SEAMS
    ],
)
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, loaders: str, seam: str) -> None:
    hook, nth = SEAMS[seam]
    prove(tmp_path, hook, nth, loaders=LOADERS[loaders], val_check_interval=1.0 if seam.startswith("last") else 2)


@pytest.mark.parametrize(
    ("hook", "nth"),
    [
        ("on_train_start", 1),
        again("on_train_epoch_start", 1),
        ("on_train_epoch_start", 2),
        ("on_train_batch_end", 1),
        again("on_train_batch_end", 2),
        ("on_train_batch_end", 5),
        ("on_validation_start", 3),
        ("on_validation_epoch_start", 2),
        again("on_validation_batch_end", 1),
        ("on_validation_batch_end", 6),
        ("on_validation_epoch_end", 2),
        again("on_validation_end", 1),
        ("on_validation_end", 4),
        again("on_train_epoch_end", 1),
        ("on_train_epoch_end", 3),
    ],
)
def test_every_hook_is_a_seam(tmp_path: Path, hook: str, nth: int) -> None:
    prove(tmp_path, hook, nth)


def test_the_end_of_training_is_a_seam(tmp_path: Path) -> None:
    prove(tmp_path, "on_train_end", 1, callbacks=list)  # an average that was in the module goes there again in `on_fit_end`


@pytest.mark.parametrize("hook", ["lr_scheduler_step", "on_validation_model_eval", "on_validation_model_zero_grad"])
def test_between_hooks_is_a_seam(tmp_path: Path, hook: str) -> None:
    prove(tmp_path, hook, 4 if hook == "lr_scheduler_step" else 3, module=PlateauOfSteps)


@pytest.mark.parametrize(("hook", "nth"), [("on_train_batch_end", 1), ("on_train_batch_end", 7), ("on_validation_end", 2)])
def test_gradients_of_an_unfinished_step_are_kept(tmp_path: Path, hook: str, nth: int) -> None:
    prove(tmp_path, hook, nth, accumulate_grad_batches=3)


@pytest.mark.parametrize(("hook", "nth"), [("on_train_batch_end", 8), ("on_train_epoch_end", 1), ("on_validation_batch_end", 4)])
def test_two_optimizers_by_hand(tmp_path: Path, hook: str, nth: int) -> None:
    prove(tmp_path, hook, nth, module=Manual)


KINDS = {
    "unsized": lambda: (Unsized(10), Unsized(6)),
    "iterable": lambda: (DataLoader(Stream(), batch_size=2), DataLoader(Stream(), batch_size=2)),
    "cycle": lambda: ({"a": plain()[0], "b": plain(length=6)[0]}, plain()[1]),
    "longest": lambda: (CombinedLoader([plain()[0], plain(length=6)[0]], "max_size"), [plain()[1], plain(length=4)[1]]),
    "shortest": lambda: (CombinedLoader([plain()[0], Unsized(6)], "min_size"), [plain()[1], Unsized(4)]),
}
OF_KINDS = [("on_train_batch_end", 3), ("on_validation_batch_end", 4), ("on_train_epoch_end", 1)]


@pytest.mark.parametrize(("loaders", "hook", "nth"), crossed(KINDS, OF_KINDS))
def test_loaders_of_every_kind(tmp_path: Path, loaders: Any, hook: str, nth: int) -> None:
    prove(tmp_path, hook, nth, loaders=loaders, module=Several, val_check_interval=1.0)


CADENCES: list[dict[str, Any]] = [
    {"limit_train_batches": 3, "limit_val_batches": 2},
    {"val_check_interval": 4, "check_val_every_n_epoch": None},
    {"check_val_every_n_epoch": 2, "val_check_interval": 1.0, "num_sanity_val_steps": 0},
    {"reload_dataloaders_every_n_epochs": 2, "max_epochs": 5},
    {"max_steps": 12, "max_epochs": -1},
    {"val_check_interval": "3step"},
]
OF_CADENCES = [("on_train_batch_end", 4), ("on_validation_batch_end", 2), ("on_train_epoch_end", 2)]


@pytest.mark.parametrize(("options", "hook", "nth"), crossed({str(options): options for options in CADENCES}, OF_CADENCES))
def test_cadences(tmp_path: Path, options: dict[str, Any], hook: str, nth: int) -> None:
    prove(tmp_path, hook, nth, **options)


@pytest.mark.parametrize(("hook", "nth"), [("on_train_batch_end", 7), ("on_train_epoch_end", 1)])
def test_the_loss_scale_goes_on(tmp_path: Path, hook: str, nth: int) -> None:
    scalers: list[Any] = []

    def plugin() -> Any:
        scalers.append(torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3))
        return MixedPrecision("16-mixed", "cpu", scaler=scalers[-1])

    prove(tmp_path, hook, nth, plugins=plugin)
    assert scalers[0].state_dict() == scalers[1].state_dict()
    assert scalers[0].get_scale() > 2.0**10


def names_of(events: list[Any]) -> list[Any]:
    return [event[:2] if event[0] in ("early", "late") else event[0] for event in events]


BEFORE_THE_STEP = [
    "on_before_batch_transfer", "on_after_batch_transfer", "on_train_batch_start", "training_step", "optimizer_step",
    "on_validation_batch_start", "validation_step",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*was written inside a batch")
@pytest.mark.parametrize("hook", [*BEFORE_THE_STEP, "on_after_backward", "on_before_optimizer_step"])
@pytest.mark.parametrize("loaders", [again("plain"), "stateful"])  # a loader with a state has more that must be put back
def test_a_batch_that_was_not_finished_begins_again(tmp_path: Path, hook: str, loaders: str) -> None:
    after, _, begun, _ = resumed(tmp_path, hook, 7, loaders=LOADERS[loaders], callbacks=list)
    start = "on_validation_batch_start" if "validation" in hook else "on_train_batch_start"
    assert begun[0][:2] == ("early", start)
    following = next(number for number, event in enumerate(after) if event[:2] == ("early", start) and number)
    again = next(number for number, event in enumerate(begun) if event[:2] == ("early", start) and number)
    assert names_of(begun[again:]) == names_of(after[following:])
    if hook in BEFORE_THE_STEP:
        one, two = ([event[1] for event in events if event[0] == "samples"] for events in (after[:following], begun[:again]))
        assert one[:1] == two[:1]


def test_a_checkpoint_from_inside_a_batch_says_that_it_is_not_exact(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="was written inside a batch, which is run again"):
        resumed(tmp_path, "on_before_backward", 3)


FAILING = [
    ("on_train_epoch_start", 2),
    again("on_train_batch_end", 8),
    ("on_train_batch_end", 10),
    again("on_validation_start", 2),
    ("on_validation_batch_end", 5),
    again("on_validation_epoch_end", 3),
    ("on_validation_end", 2),
    ("on_train_epoch_end", 2),
]


@pytest.mark.parametrize(("hook", "nth"), FAILING)
def test_a_run_that_failed_in_a_hook_goes_on_with_that_hook(tmp_path: Path, hook: str, nth: int) -> None:
    scramble(1)
    (tmp_path / "whole").mkdir()
    whole = Attempt(tmp_path / "whole", plain, Net, list)
    end = ending(whole.fit(Failing(hook, 0, RuntimeError())), whole)
    scramble(1)
    broken = Attempt(tmp_path, plain, Net, lambda: [OnExceptionCheckpoint(tmp_path)])
    with pytest.raises(RuntimeError, match="the disk is on fire"):
        broken.fit(Failing(hook, nth, RuntimeError("the disk is on fire")))
    scramble(2)
    rest = Attempt(tmp_path, plain, Net, list)
    other = rest.fit(Failing(hook, 0, RuntimeError()), ckpt_path=tmp_path / "on_exception.ckpt")
    assert_same_events(whole.events, broken.events + without_start(rest.events))
    found = ending(other, rest)
    for key in ("random", "weights", "optimizers", "schedulers", "metrics", "files"):
        assert_same_tree(end[key], found[key], key)


def test_of_two_savers_at_one_seam_the_second_comes_yet(tmp_path: Path) -> None:
    def attempt(root: Path, seed: int) -> Attempt:
        root.mkdir(exist_ok=True)
        scramble(seed)
        made = Attempt(root, plain, Net, list)
        options = {"save_top_k": -1, "save_on_train_epoch_end": True, "filename": "{epoch}"}
        made.late = [
            ModelCheckpoint(made.directory / "a", **options),
            ModelCheckpoint(made.directory / "b", monitor="loss_epoch", **options),
        ]
        return made

    whole = attempt(tmp_path / "whole", 1)
    end = ending(whole.fit(), whole)
    broken = attempt(tmp_path, 1)
    with armed("checkpoint.before_write:4=raise"), pytest.raises(InjectedError):
        broken.fit()
    assert [path.name for path in sorted((tmp_path / "run").rglob("epoch=1*"))] == ["epoch=1.ckpt"]
    rest = attempt(tmp_path, 2)
    found = ending(rest.fit(ckpt_path=tmp_path / "run" / "a" / "epoch=1.ckpt"), rest)
    assert_same_events(whole.events, broken.events + without_start(rest.events))
    assert_same_tree(end, found, "the end")
