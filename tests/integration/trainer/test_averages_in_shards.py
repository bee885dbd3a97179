"""A fit under FSDP on two ranks with an average: the same numbers as on one process, and a directory of shards that resumes exactly."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import EMAWeightAveraging, LambdaCallback
from tests.support.ranks import run_ranks


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1, bias=False))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.net(batch[0]).square().mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def fit(root: str, *callbacks: Callback, seed: int = 0, ckpt_path: str | None = None, **options: Any) -> dict[str, Tensor]:
    """Return the weights at the end, whole, and the last validation's value."""
    torch.manual_seed(seed)
    net = Net()
    data = DataLoader(TensorDataset(torch.randn(16, 4, generator=torch.Generator().manual_seed(1))), batch_size=options.pop("batch_size"))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    trainer = Trainer(default_root_dir=root, accelerator="cpu", max_epochs=2, callbacks=list(callbacks), **quiet, **options)
    trainer.fit(net, data, data, ckpt_path=ckpt_path)
    weights = {name: (value.full_tensor() if hasattr(value, "full_tensor") else value).clone() for name, value in net.state_dict().items()}
    return {**weights, "val": trainer.callback_metrics["val"].clone()}


def on_ranks(root: str) -> list[dict[str, Tensor]]:
    file = f"{root}/at.ckpt"

    def save(trainer: Any, *args: Any) -> None:
        if trainer.global_step in (3, 7):
            trainer.save_checkpoint(f"{root}/{trainer.global_step}.ckpt")

    options: dict[str, Any] = {"devices": 2, "strategy": "fsdp", "batch_size": 2}
    whole = fit(root, EMAWeightAveraging(decay=0.7), LambdaCallback(on_train_batch_end=save), **options)
    rest = [fit(root, EMAWeightAveraging(decay=0.7), seed=9, ckpt_path=f"{root}/{step}.ckpt", **options) for step in (3, 7)]
    in_validation = LambdaCallback(on_validation_batch_end=lambda trainer, *args: args[-1] == 1 and trainer.save_checkpoint(file))
    fit(root, EMAWeightAveraging(decay=0.7), in_validation, **options)
    inside = fit(root, EMAWeightAveraging(decay=0.7), seed=9, ckpt_path=file, **options)
    return [whole, *rest, {**inside, "val": whole["val"]}]  # weights alone: sums of metrics are not this callback's


def test_a_sharded_fit_averages_as_a_whole_one_and_resumes_exactly_from_shards(tmp_path: Path) -> None:
    expected = fit(str(tmp_path), EMAWeightAveraging(decay=0.7), batch_size=4)
    for whole, *rest in run_ranks(on_ranks, 2, args=[str(tmp_path)]):
        for name, value in expected.items():
            torch.testing.assert_close(whole[name], value, msg=lambda text, name=name: f"{name}: {text}")
            assert all(torch.equal(resumed[name], whole[name]) for resumed in rest), name
    assert (tmp_path / "3.ckpt").is_dir()
