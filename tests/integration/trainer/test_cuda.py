"""`Trainer` on one GPU: parity with a raw loop, no waiting between rows, precisions, exact resume, one rank over NCCL."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric.loggers import CSVLogger
from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import ModelCheckpoint
from tests.support.gpu import DEVICE, REHEARSES, needs_gpu, needs_real_gpu

pytestmark = [
    needs_gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
]


class Net(LightningModule):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self(batch[0]).square().mean()
        self.log("loss", loss, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self(batch[0]).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class NoWaiting(Callback):
    """Makes every wait for the device an error between two batches, rows among them."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in (self.first, self.last) and not REHEARSES:
            torch.cuda.set_sync_debug_mode("error" if batch_idx == self.first else "default")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if not REHEARSES:
            torch.cuda.set_sync_debug_mode("default")


def loader(*, shuffle: bool = False, count: int = 64) -> DataLoader[Any]:
    data = TensorDataset(torch.randn(count, 8, generator=torch.Generator().manual_seed(1)))
    return DataLoader(data, batch_size=4, shuffle=shuffle, pin_memory=not REHEARSES)


def trainer(root: Path, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given = {"max_epochs": 2, "accelerator": DEVICE.type, "devices": 1, "default_root_dir": root, "num_sanity_val_steps": 0, **quiet}
    return Trainer(**{**given, **options})


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in net.state_dict().items()}


def test_a_fit_is_the_raw_loop_bit_for_bit(tmp_path: Path) -> None:
    raw = Net().to(DEVICE)
    optimizer = torch.optim.AdamW(raw.parameters(), lr=0.01)
    for _ in range(2):
        for (x,) in loader():
            loss = raw(x.to(DEVICE)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net = Net()
    trainer(tmp_path).fit(net, loader())
    for name, value in weights(raw).items():
        assert torch.equal(value, weights(net)[name]), name


def test_nothing_waits_for_the_device_between_rows(tmp_path: Path) -> None:
    fitted = trainer(tmp_path, callbacks=[NoWaiting(3, 14)], logger=CSVLogger(tmp_path), log_every_n_steps=2, max_epochs=1)
    fitted.fit(Net(), loader())
    rows = (Path(str(fitted.log_dir)) / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 8 + 1  # a header, a row every second step, and the epoch's


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", pytest.param("16-mixed", marks=needs_real_gpu), "64-true"])
def test_precisions_train(precision: Any, tmp_path: Path) -> None:
    fitted = trainer(tmp_path, precision=precision)
    net = Net()
    fitted.fit(net, loader(), loader())
    assert fitted.precision == precision
    assert float(fitted.callback_metrics["loss_epoch"]) < 0.1
    assert net.device.type == DEVICE.type


@needs_real_gpu
def test_a_skipped_step_of_the_scaler_is_counted_and_moves_no_schedule(tmp_path: Path) -> None:
    class Bad(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self(batch[0]).square().mean() * (float("inf") if batch_idx == 2 else 1.0)

    fitted = trainer(tmp_path, precision="16-mixed", max_epochs=1)
    fitted.fit(Bad(), loader())
    assert fitted.fit_state.skipped_steps >= 1
    assert fitted.global_step == 16 - fitted.fit_state.skipped_steps


@pytest.mark.filterwarnings("ignore:Be aware that")
def test_a_run_resumed_inside_an_epoch_ends_where_the_unbroken_one_does(tmp_path: Path) -> None:
    torch.manual_seed(3)
    saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=5, save_top_k=-1)
    whole = Net(dropout=0.5)
    first = trainer(tmp_path, callbacks=[saver], enable_checkpointing=True)
    first.fit(whole, loader(shuffle=True), loader())
    torch.manual_seed(99)
    again = Net(dropout=0.5)
    second = trainer(tmp_path / "again")
    second.fit(again, loader(shuffle=True), loader(), ckpt_path=tmp_path / "saved" / "epoch=0-step=10.ckpt")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    assert {name: float(value) for name, value in first.callback_metrics.items()} == {
        name: float(value) for name, value in second.callback_metrics.items()
    }


def test_predictions_come_home_to_the_cpu(tmp_path: Path) -> None:
    found = trainer(tmp_path).predict(Net(), loader(count=12))
    assert [output.device.type for output in found] == ["cpu"] * 3


@needs_real_gpu
def test_several_batches_fit_in_memory_again_after_running_out(tmp_path: Path) -> None:
    class Greedy(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            torch.empty(1 << 42, device=self.device)
            return super().training_step(batch, batch_idx)

    with pytest.raises(torch.OutOfMemoryError) as caught:
        trainer(tmp_path).fit(Greedy(), loader())
    assert "scale_batch_size" in "".join(caught.value.__notes__)
