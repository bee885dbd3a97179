"""What every callback keeps, whatever it does: it runs in every entry point, carries its state, stands a second one, leaves nothing.

```python
class TestMine(CallbackSuite):
    def make(self, root): return MyCallback(folder=root)
```
"""

import io
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric.loggers import CSVLogger
from leyden.trainer import LightningModule, Trainer
from leyden.trainer.callbacks import LambdaCallback
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.hparams import decode, encode
from tests.support.training_state import assert_same_tree


class Classifier(LightningModule):
    """A backbone with a batch norm, a head, two metrics."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.2))
        self.head = nn.Linear(4, 2)
        self.flops_per_batch = 100

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))

    def _loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == self.fails_at:
            raise RuntimeError("the step fails")
        loss = self._loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self._loss(batch))

    def predict_step(self, batch: Any) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


REFUSALS = ("Found more than one stateful callback of type", "multiple progress bar callbacks")


def loader(shuffle: bool = False) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4, shuffle=shuffle)


def fresh(fails_at: int = -1) -> Classifier:
    torch.manual_seed(3)
    return Classifier(fails_at)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The dirpath has changed")
class CallbackSuite:
    """Override `make`; `options` are arguments that the Trainer needs for it."""

    options: ClassVar[dict[str, Any]] = {}

    def make(self, root: Path) -> Callback:
        """Return a new callback whose files lie below `root`."""
        raise NotImplementedError

    def kept(self, state: Any) -> Any:
        """Return the part of a state that another process goes on from: all of it, unless overridden."""
        return state

    def trainer(self, root: Path, *callbacks: Callback, **options: Any) -> Trainer:
        """Return a quiet trainer."""
        defaults = {
            "default_root_dir": root,
            "logger": CSVLogger(root),
            "max_epochs": 2,
            "log_every_n_steps": 2,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": None if any("Summary" in type(c).__name__ for c in callbacks) else False,
            "enable_checkpointing": None if any("Checkpoint" in type(c).__name__ for c in callbacks) else False,
            "num_sanity_val_steps": 0,
        }
        return Trainer(**{**defaults, **self.options, **options}, callbacks=list(callbacks))

    def fitted(self, root: Path, **options: Any) -> tuple[Callback, Classifier, Trainer]:
        """Return a callback that has seen a fit."""
        callback, module = self.make(root), fresh()
        trainer = self.trainer(root, callback, **options)
        trainer.fit(module, loader(shuffle=True), loader())
        return callback, module, trainer

    def test_every_entry_point_runs_with_it(self, tmp_path: Path) -> None:
        _, module, trainer = self.fitted(tmp_path)
        trainer.validate(module, loader(), verbose=False)
        trainer.test(module, loader(), verbose=False)
        trainer.predict(module, loader())
        assert trainer.global_step == 12 or trainer.should_stop

    def test_its_state_survives_a_file_that_holds_plain_data(self, tmp_path: Path) -> None:
        callback, _, _ = self.fitted(tmp_path)
        file = io.BytesIO()
        torch.save(encode(callback.state_dict()), file)
        file.seek(0)
        state = decode(torch.load(file, weights_only=True))
        other = self.make(tmp_path)
        if state:
            other.load_state_dict(state)
            assert_same_tree(self.kept(other.state_dict()), self.kept(state))

    def test_its_key_is_the_same_in_every_process(self, tmp_path: Path) -> None:
        key = self.make(tmp_path).state_key
        assert key == self.make(tmp_path).state_key
        assert " at 0x" not in key

    def test_a_second_one_runs_beside_it_or_is_refused(self, tmp_path: Path) -> None:
        first, second = self.make(tmp_path / "1"), self.make(tmp_path / "2")
        try:
            self.trainer(tmp_path, first, second).fit(fresh(), loader(), loader())
        except (RuntimeError, ValueError) as error:
            if not any(words in str(error) for words in REFUSALS):
                raise

    def test_runs_without_batches_are_no_trouble(self, tmp_path: Path) -> None:
        trainer = self.trainer(tmp_path, self.make(tmp_path), limit_train_batches=0, limit_val_batches=0)
        trainer.fit(fresh(), loader(), loader())
        assert trainer.global_step == 0

    def test_a_run_of_one_batch_is_no_trouble(self, tmp_path: Path) -> None:
        trainer = self.trainer(tmp_path, self.make(tmp_path), fast_dev_run=True)
        trainer.fit(fresh(), loader(), loader())
        assert trainer.global_step == 1

    def test_an_exception_goes_through_and_nothing_is_left_running(self, tmp_path: Path) -> None:
        before = {thread.name for thread in threading.enumerate()}
        trainer = self.trainer(tmp_path, self.make(tmp_path))
        with pytest.raises(RuntimeError, match="the step fails"):
            trainer.fit(fresh(fails_at=3), loader(), loader())
        assert {thread.name for thread in threading.enumerate()} - before <= {"leyden-logger"}

    @pytest.mark.parametrize("step", [4, 6, 7])
    def test_a_resumed_run_ends_where_the_unbroken_one_does(self, tmp_path: Path, step: int) -> None:
        whole, file = fresh(), tmp_path / "at.ckpt"
        saver = LambdaCallback(on_train_batch_end=lambda trainer, *args: trainer.global_step == step and trainer.save_checkpoint(file))
        unbroken = self.trainer(tmp_path / "whole", self.make(tmp_path / "whole"), saver)
        unbroken.fit(whole, loader(shuffle=True), loader())
        torch.manual_seed(99)
        module = Classifier()
        resumed = self.trainer(tmp_path / "rest", self.make(tmp_path / "rest"))
        resumed.fit(module, loader(shuffle=True), loader(), ckpt_path=file)
        assert resumed.global_step == unbroken.global_step == 12
        assert_same_tree(dict(module.state_dict()), dict(whole.state_dict()))
