"""Fits of two real ranks whose weights lie in parts: numbers as on one, checkpoints that go on, also elsewhere, weights to load."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from leyden.fabric.checkpoint.convert import convert
from leyden.fabric.strategies import ModelParallelStrategy
from leyden.trainer.callbacks import ModelCheckpoint
from tests.support.lines import Line, points, quiet_trainer, weights_of
from tests.support.ranks import run_ranks

STRATEGIES = ["fsdp", "model_parallel", "deepspeed_stage_1", "deepspeed_stage_2"]
OPTIONS: dict[str, Any] = {"gradient_clip_val": 0.05, "accumulate_grad_batches": 3, "max_epochs": 2, "num_sanity_val_steps": 0}


class Sharding(Line):
    """Shards itself, as `ModelParallelStrategy` wants it."""

    def configure_model(self) -> None:
        if self.trainer.world_size > 1 and not hasattr(self.net, "unshard"):
            from torch.distributed.fsdp import fully_shard

            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.net[0], mesh=mesh)
            fully_shard(self.net, mesh=mesh)


def parts(name: str) -> tuple[Any, Line]:
    """Return strategy and module."""
    if name == "model_parallel":
        return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1), Sharding()
    return name, Line()


def numbers(metrics: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def whole_weights(trainer: Any, module: Line) -> list[float]:
    whole = [value.full_tensor() for value in trainer.strategy.get_module_state_dict(module).values()]
    return [number for value in whole for number in value.flatten().tolist()]


def in_ranks(root: Path, name: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    strategy, module = parts(name)
    saver = ModelCheckpoint(root, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = quiet_trainer(root, strategy=strategy, devices=2, callbacks=[saver], **OPTIONS)
    trainer.fit(module, points(), points(8))
    trainer.save_checkpoint(root / "end.ckpt")
    trainer.save_checkpoint(root / "weights.ckpt", weights_only=True)
    found = {"unbroken": (trainer.global_step, numbers(trainer.callback_metrics))}
    found["weights"] = weights_of(module) if name.startswith("deepspeed") else whole_weights(trainer, module)
    strategy, module = parts(name)
    trainer = quiet_trainer(root, strategy=strategy, devices=2, **OPTIONS)
    trainer.fit(module, points(), points(8), ckpt_path=root / "step=1.ckpt")
    found["resumed"] = (trainer.global_step, numbers(trainer.callback_metrics))
    strategy, module = parts(name)
    found["validated"] = quiet_trainer(root, strategy=strategy, devices=2).validate(
        module, points(8), ckpt_path=root / "end.ckpt", verbose=False
    )
    return found


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.filterwarnings("ignore")
def test_a_sharded_fit_is_the_fit_of_one_process_and_goes_on(tmp_path: Path, name: str) -> None:
    if name.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    first, second = run_ranks(in_ranks, 2, args=(tmp_path, name), timeout=150)
    assert first == second
    assert first["resumed"] == first["unbroken"]
    assert weights_of(Line.load_from_checkpoint(tmp_path / "weights.ckpt")) == pytest.approx(first["weights"])
    assert first["validated"][0]["val_loss"] == pytest.approx(first["unbroken"][1]["val_loss"], rel=1e-6)
    module = Line()
    alone = quiet_trainer(tmp_path, **OPTIONS)
    alone.fit(module, points(batch_size=4), points(8, batch_size=4))
    assert first["unbroken"][0] == alone.global_step
    assert first["unbroken"][1] == pytest.approx(numbers(alone.callback_metrics), rel=1e-3)
    place = tmp_path / "end.ckpt"
    if name.startswith("deepspeed"):  # its engine's files are merged first
        convert(place, tmp_path / "merged.ckpt")
        place = tmp_path / "merged.ckpt"
    assert weights_of(Line.load_from_checkpoint(place)) == pytest.approx(weights_of(module), rel=1e-3, abs=1e-5)


# -- another number of ranks --------------------------------------------------------------------------------------


def on_two(root: Path, strategy: str, checkpoint: Path | None) -> tuple[int, dict[str, float]]:
    warnings.simplefilter("ignore")
    trainer = quiet_trainer(root, strategy=strategy, devices=2, max_epochs=2)
    if checkpoint is None:
        saver = ModelCheckpoint(root, filename=strategy + "-{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = quiet_trainer(root, strategy=strategy, devices=2, max_epochs=2, callbacks=[saver])
    trainer.fit(Line(), points(32), points(8), ckpt_path=checkpoint)
    return trainer.global_step, numbers(trainer.callback_metrics)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.filterwarnings("ignore")
def test_a_fit_goes_on_with_another_number_of_ranks(tmp_path: Path, strategy: str) -> None:
    unbroken = run_ranks(on_two, 2, args=(tmp_path, strategy, None))[0]
    steps = sorted(tmp_path.glob(f"{strategy}-step=*.ckpt"))
    assert len(steps) == 16
    module = Line()
    trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[ModelCheckpoint(tmp_path / "one", every_n_train_steps=1, save_top_k=-1)])
    trainer.fit(module, points(32, batch_size=4), points(8, batch_size=4), ckpt_path=tmp_path / f"{strategy}-step=4.ckpt")
    assert sorted(module.samples["train"]) == sorted([*range(16, 32), *range(32)])
    assert numbers(trainer.callback_metrics) == pytest.approx(unbroken[1], rel=1e-3)
    again = run_ranks(on_two, 2, args=(tmp_path, strategy, tmp_path / "one" / "epoch=0-step=6.ckpt"))
    assert again[0] == again[1]
    assert again[0][0] == unbroken[0]
    assert again[0][1] == pytest.approx(unbroken[1], rel=1e-3)
