"""Fits of two real ranks: samples are shared out, weights agree, metrics are reduced, and no more is said between them than need be."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from leyden.core.errors import StateError
from leyden.fabric import collectives
from leyden.fabric.layer_sync import LayerSync
from leyden.fabric.rank_zero import rank_zero_only
from leyden.trainer.core.callback import Callback
from tests.support.lines import Line, points, quiet_trainer, weights_of
from tests.support.ranks import run_ranks

Answers = dict[str, Any]


def ddp(root: Path, module: Any = None, *, loaders: tuple[Any, ...] | None = None, **options: Any) -> Any:
    """Fit on two ranks, and return the trainer."""
    trainer = quiet_trainer(root, strategy="ddp", devices=2, **options)
    trainer.fit(module or Line(), *(loaders or (points(), points(8))))
    return trainer


# -- what the ranks do, all of it in one pair of processes --------------------------------------------------------


def in_ranks(root: Path) -> Answers:
    warnings.simplefilter("ignore")
    parts = (
        trained,
        prepared,
        unshared,
        evaluated,
        predicted,
        uneven,
        empty,
        differing,
        skipped,
        stopped,
        validated_by_time,
        counted,
        accumulated,
        synchronised,
    )
    answers: Answers = {}
    for part in parts:
        answers |= part(root)
    return answers


def trained(root: Path) -> Answers:
    module = Line()
    trainer = ddp(root, module, gradient_clip_val=0.5)
    said: list[str] = []
    rank_zero_only(said.append)("once")
    return {
        "weights": weights_of(module),
        "samples": module.samples,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "place": (trainer.global_rank, trainer.world_size, trainer.num_devices, trainer.is_global_zero, trainer.global_step),
        "log_dir": trainer.log_dir,
        "kwargs": trainer.distributed_sampler_kwargs,
        "said": said,
    }


class Prepared(Line):
    """Prepares data, once on each node or once."""

    prepared = 0

    def prepare_data(self) -> None:
        self.prepared += 1


def prepared(root: Path) -> Answers:
    counts = []
    for per_node in (True, False):
        module = Prepared()
        module.prepare_data_per_node = per_node
        ddp(root, module, max_epochs=1)
        counts.append(module.prepared)

    class Failing(Line):
        def prepare_data(self) -> None:
            raise OSError("no space left")

    return {"prepared": counts, "unprepared": message_of(OSError, lambda: ddp(root, Failing()))}


def unshared(root: Path) -> Answers:
    module = Line()
    ddp(root, module, use_distributed_sampler=False, max_epochs=1, num_sanity_val_steps=0)
    return {"unshared": module.samples}


def evaluated(root: Path) -> Answers:
    module = Line()
    trainer = quiet_trainer(root, strategy="ddp", devices=2)
    validated = trainer.validate(module, points(8), verbose=False)
    tested = trainer.test(module, points(7), verbose=False)
    return {"validated": validated, "tested": tested, "tested_on": module.samples["test"]}


def predicted(root: Path) -> Answers:
    trainer = quiet_trainer(root, strategy="ddp", devices=2)
    outputs = trainer.predict(Line(), points(8))
    stream = [prediction.indices for prediction in trainer.predict(Line(), points(8), stream=True)]
    return {"predicted": [list(output.shape) for output in outputs], "stream": stream}


def message_of(error: type[Exception], function: Any) -> str:
    with pytest.raises(error) as raised:
        function()
    return str(raised.value)


def uneven(root: Path) -> Answers:
    loader = points(8 + 4 * dist.get_rank())
    return {"uneven": message_of(StateError, lambda: ddp(root, loaders=(loader,), use_distributed_sampler=False))}


def empty(root: Path) -> Answers:
    """One of the ranks has no batch of validation."""
    validation = points(4 * dist.get_rank())
    message = message_of(StateError, lambda: ddp(root, loaders=(points(), validation), use_distributed_sampler=False))

    class Unreduced(Line):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.loss("val", batch)

    module = Unreduced()
    module.allow_zero_length_dataloader_with_multiple_devices = True
    quiet_trainer(root, strategy="ddp", devices=2, use_distributed_sampler=False).validate(module, validation, verbose=False)
    return {"empty": message, "allowed": module.samples}


def differing(root: Path) -> Answers:
    class Differing(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.global_rank == 1:
                self.log("alone", 1.0, sync_dist=True)
            return super().training_step(batch, batch_idx)

    return {"differing": message_of(StateError, lambda: ddp(root, Differing()))}


def skipped(root: Path) -> Answers:
    class Skipping(Line):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return

    return {"skipped": message_of(RuntimeError, lambda: ddp(root, Skipping()))}


class Asking(Callback):
    """One rank asks to stop."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 3:
            trainer.request_stop("enough")


def stopped(root: Path) -> Answers:
    trainer = ddp(root, callbacks=[Asking(1)], max_epochs=-1, enable_checkpointing=False)
    return {"stopped": (trainer.global_step, trainer.current_epoch)}


class Counting(Callback):
    """Notes the steps after which validation ran; rank 0's clock jumps once."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_global_zero and trainer.global_step == 5:
            trainer.run.clock._seconds += 3600.0
        if self.steps:
            trainer.request_stop("seen")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.steps.append(trainer.global_step)


def validated_by_time(root: Path) -> Answers:
    counting = Counting()
    options = {
        "val_check_interval": "00:01:00:00",
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
    }
    ddp(root, callbacks=[counting], max_epochs=-1, **options)
    return {"validated_by_time": counting.steps}


COLLECTIVES = ("all_gather", "all_gather_object", "all_reduce", "broadcast", "broadcast_object_list", "barrier")


@contextmanager
def counted_collectives() -> Iterator[Counter[str]]:
    """Count calls of torch.distributed's functions; DDP's own reduction does not go through them."""
    counts: Counter[str] = Counter()
    functions = [(dist, name) for name in COLLECTIVES] + [(collectives, "_gather_flat")]
    originals = [getattr(owner, name) for owner, name in functions]

    def counting(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    for (owner, name), function in zip(functions, originals, strict=True):
        setattr(owner, name, counting(name, function))
    try:
        yield counts
    finally:
        for (owner, name), function in zip(functions, originals, strict=True):
            setattr(owner, name, function)


def counted(root: Path) -> Answers:
    """Six quiet steps, and six that log three values of which two are reduced, with a row every second step."""

    class Quiet(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss("train", batch)

    class Logging(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = self.loss("train", batch)
            self.log("one", loss, sync_dist=True)
            self.log("two", loss, sync_dist=True, reduce_fx="max")
            self.log("own", loss)
            return loss

    found: Answers = {}
    for name, module, row in (("quiet", Quiet, 2), ("logging", Logging, 2), ("logging rarely", Logging, 4)):
        totals = []
        for batches in (4, 12):
            with counted_collectives() as counts:
                ddp(root, module(), loaders=(points(64),), max_epochs=1, limit_train_batches=batches, log_every_n_steps=row)
            totals.append(sum(counts.values()))
        found[name] = totals[1] - totals[0]
    return {"collectives of eight steps": found}


class Hooked(Callback):
    """Counts how often gradients are reduced."""

    def __init__(self) -> None:
        self.reductions = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.model.register_comm_hook(None, self.reduce)

    def reduce(self, state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self.reductions += 1
        return dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future().then(lambda future: future.value()[0])


def accumulated(root: Path) -> Answers:
    hooked = Hooked()
    module = Line()
    trainer = ddp(root, module, callbacks=[hooked], accumulate_grad_batches=3, max_epochs=1, enable_checkpointing=False)
    return {"reductions": hooked.reductions, "steps": trainer.global_step, "accumulated": weights_of(module)}


class Tracking(LayerSync):
    """Stands for batch norms that share statistics, which torch has for GPUs alone."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    def apply(self, model: Any) -> Any:
        self.applied.append("apply")
        return model

    def revert(self, model: Any) -> Any:
        self.applied.append("revert")
        return model


def synchronised(root: Path) -> Answers:
    tracking = Tracking()
    ddp(root, Line(batch_norm=True), plugins=[tracking], sync_batchnorm=True, max_epochs=1, loaders=(points(), None))
    return {"applied": tracking.applied}


# -- what is expected of them -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Answers]:
    return run_ranks(in_ranks, 2, args=(tmp_path_factory.mktemp("ranks"),), timeout=100)


def alone(root: Path, module: Line, **options: Any) -> list[float]:
    """Fit on one process with batches of twice the size, and return the weights."""
    quiet_trainer(root, **options).fit(module, points(batch_size=4), points(8, batch_size=4))
    return weights_of(module)


def test_two_ranks_end_with_the_weights_of_one_with_twice_the_batch(answers: list[Answers], tmp_path: Path) -> None:
    assert answers[0]["weights"] == answers[1]["weights"]
    assert answers[0]["weights"] == pytest.approx(alone(tmp_path, Line(), gradient_clip_val=0.5), rel=1e-4, abs=1e-6)


def test_data_are_prepared_once_and_everybody_hears_of_a_failure(answers: list[Answers]) -> None:
    assert [answer["prepared"] for answer in answers] == [[1, 1], [0, 0]]
    assert [answer["unprepared"] for answer in answers] == ["no space left"] * 2


def test_samples_are_shared_out_over_ranks(answers: list[Answers]) -> None:
    first, second = (answer["samples"] for answer in answers)
    assert first == {"val": [0, 2, 4, 6] * 3, "train": [0, 2, 4, 6, 8, 10, 12, 14] * 2}  # the sanity check's are among them
    assert second == {"val": [1, 3, 5, 7] * 3, "train": [1, 3, 5, 7, 9, 11, 13, 15] * 2}
    assert [answer["kwargs"] for answer in answers] == [{"num_replicas": 2, "rank": 0}, {"num_replicas": 2, "rank": 1}]


def test_without_distributed_samplers_every_rank_sees_all(answers: list[Answers]) -> None:
    assert [answer["unshared"] for answer in answers] == [{"train": list(range(16)), "val": list(range(8))}] * 2


def test_ranks_know_their_place_and_share_metrics_and_a_directory(answers: list[Answers], tmp_path: Path) -> None:
    assert [answer["place"] for answer in answers] == [(0, 2, 2, True, 8), (1, 2, 2, False, 8)]
    assert [answer["said"] for answer in answers] == [["once"], []]
    assert answers[0]["log_dir"] == answers[1]["log_dir"]
    assert {name: answers[0]["metrics"][name] for name in ("val_loss", "loss_epoch")} == {
        name: answers[1]["metrics"][name] for name in ("val_loss", "loss_epoch")
    }
    trainer = quiet_trainer(tmp_path, gradient_clip_val=0.5)
    trainer.fit(Line(), points(batch_size=4), points(8, batch_size=4))
    assert answers[0]["metrics"]["val_loss"] == pytest.approx(trainer.callback_metrics["val_loss"].item(), rel=1e-4)


def test_results_are_reduced_and_the_last_samples_are_repeated(answers: list[Answers]) -> None:
    for name in ("validated", "tested"):
        assert answers[0][name] == answers[1][name]
    assert [answer["tested_on"] for answer in answers] == [[0, 2, 4, 6], [1, 3, 5, 0]]


def test_each_rank_predicts_its_own_part(answers: list[Answers]) -> None:
    assert [answer["predicted"] for answer in answers] == [[[2, 1], [2, 1]]] * 2
    assert [answer["stream"] for answer in answers] == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


@pytest.mark.parametrize("rank", [0, 1])
def test_uneven_ranks_are_refused_with_each_ones_length(answers: list[Answers], rank: int) -> None:
    assert "(rank 0: 4, rank 1: 6)" in answers[rank]["uneven"]
    assert "(rank 0: 0, rank 1: 2)" in answers[rank]["empty"]
    assert "within local rank has zero length" in answers[0]["empty"]


def test_a_rank_without_batches_is_allowed_if_the_module_says_so(answers: list[Answers]) -> None:
    assert [answer["allowed"] for answer in answers] == [{}, {"val": [0, 1, 2, 3]}]


def test_metrics_of_one_rank_alone_and_skipped_steps_are_refused_on_all(answers: list[Answers]) -> None:
    for answer in answers:
        assert "'alone' (training_step) only by ranks [1]" in answer["differing"]
        assert "Skipping the `training_step`" in answer["skipped"]


def test_one_ranks_request_stops_all_after_the_same_batch(answers: list[Answers]) -> None:
    assert answers[0]["stopped"] == answers[1]["stopped"]
    assert answers[0]["stopped"][0] >= 3


def test_validation_by_time_comes_after_the_same_batch_on_all_ranks(answers: list[Answers]) -> None:
    assert answers[0]["validated_by_time"] == answers[1]["validated_by_time"]
    assert answers[0]["validated_by_time"][0] > 5


def test_a_step_costs_no_collective_and_a_row_costs_one(answers: list[Answers]) -> None:
    assert answers[0]["collectives of eight steps"] == {"quiet": 0, "logging": 4, "logging rarely": 2}


def test_gradients_are_reduced_only_in_stepping_batches(answers: list[Answers], tmp_path: Path) -> None:
    assert [answer["reductions"] for answer in answers] == [2, 2]  # four batches, accumulated by three
    assert answers[0]["steps"] == 2
    assert answers[0]["accumulated"] == answers[1]["accumulated"]
    expected = alone(tmp_path, Line(), accumulate_grad_batches=3, max_epochs=1)
    assert answers[0]["accumulated"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_layer_sync_is_applied_for_the_run_and_taken_back(answers: list[Answers]) -> None:
    assert answers[0]["applied"] == ["apply", "revert"]
