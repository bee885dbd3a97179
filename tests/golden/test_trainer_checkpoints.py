"""Checkpoints of PyTorch Lightning 2.6.6 resume, from every place in a training, and ours have the documented layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer.core.callback import Callback
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer

HERE = Path(__file__).parent
SEAMS = HERE / "lightning_2_6" / "seams"
ENDS: dict[str, Any] = json.loads((HERE / "lightning_2_6" / "expected.json").read_text())["seams"]
STRUCTURE: dict[str, Any] = json.loads((HERE / "golden_2.6.6.json").read_text())["traces"]["checkpoint_structure"]
OPTIONS = {
    "accumulated": {"accumulate_grad_batches": 3},
    "accumulated_epoch_end": {"accumulate_grad_batches": 3},
    "validation_mid_epoch": {"val_check_interval": 2},
}
MID_EPOCH = ("mid_epoch", "validation_mid_epoch")
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*optimizer steps happened in one batch")


class Line(LightningModule):
    """The training that the stored files are of."""

    def __init__(self, *, manual: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.automatic_optimization = not manual
        self.trace: list[tuple[str, int, int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.trace.append(("train", self.current_epoch, batch_idx))
        loss = nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def on_validation_start(self) -> None:
        self.trace.append(("validate", self.current_epoch, self.global_step))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        parameters = [self.parameters()] if self.automatic_optimization else [[self.layer.weight], [self.layer.bias]]
        optimizers = [torch.optim.SGD(part, lr=0.1, momentum=0.9) for part in parameters]
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 1, gamma=0.5)]


def loader() -> DataLoader[Any]:
    data = torch.load(SEAMS / "data.pt", weights_only=True)
    return DataLoader(TensorDataset(data["x"], data["y"]), batch_size=4)


def trainer(**options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", **{**quiet, "max_epochs": 3, **options})


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_stored_checkpoint_resumes(name: str) -> None:
    module, run = Line(manual=name == "manual"), trainer(**OPTIONS.get(name, {}))
    run.fit(module, loader(), loader(), ckpt_path=SEAMS / f"{name}.ckpt")
    clock, end = run.run.clock, ENDS[name]
    assert (clock.log_step, clock.batches, clock.epoch) == (end["log_step"], end["batches"], 3)
    assert run.global_step == end["log_step"]  # by hand, each batch counts once
    if name not in MID_EPOCH:  # there the order of the epoch begins anew
        torch.testing.assert_close(module.layer.weight.tolist(), end["weight"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mid_epoch", ("train", 1, 2)),
        ("last_batch", ("validate", 1, 8)),
        ("validation_end", ("train", 2, 0)),
        ("validation_mid_epoch", ("train", 1, 2)),
        ("epoch_end", ("train", 2, 0)),
        ("accumulated", ("validate", 0, 2)),
    ],
)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_it_goes_on_where_it_stood(name: str, first: tuple[str, int, int]) -> None:
    module = Line()
    trainer(**OPTIONS.get(name, {})).fit(module, loader(), loader(), ckpt_path=SEAMS / f"{name}.ckpt")
    assert module.trace[0] == first
    per_epoch = [epoch for kind, epoch, _ in module.trace if kind == "train"]
    assert per_epoch.count(2) == 4


def test_a_finished_run_trains_no_more_unless_it_is_told_to() -> None:
    module = Line()
    trainer().fit(module, loader(), loader(), ckpt_path=SEAMS / "train_end.ckpt")
    assert not module.trace
    run = trainer(max_epochs=4)
    run.fit(module, loader(), loader(), ckpt_path=SEAMS / "train_end.ckpt")
    assert run.global_step == 16


def test_an_epoch_that_begins_anew_is_told_of() -> None:
    with pytest.warns(UserWarning, match="ended before the epoch ended"):
        trainer().fit(Line(), loader(), loader(), ckpt_path=SEAMS / "mid_epoch.ckpt")


class Saver(Callback):
    """Saves in every hook that is a place of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for hook in ("on_train_start", "on_train_batch_end", "on_validation_batch_end", "on_train_epoch_end", "on_train_end"):
            setattr(self, hook, self._save(hook))

    def _save(self, hook: str) -> Any:
        return lambda trainer, *_: trainer.save_checkpoint(self.directory / f"{hook}.ckpt")


def structure_of(tree: Any) -> Any:
    return {key: structure_of(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def structure_like(tree: Any, model: Any) -> Any:
    """Return the keys of a tree as deep as the stored structure goes."""
    is_deeper = isinstance(model, dict) and isinstance(tree, dict)
    return {key: structure_like(tree[key], value) for key, value in model.items()} if is_deeper else None


@pytest.mark.parametrize("manual", [False, True])
def test_ours_have_the_documented_layout_and_hold_no_code(tmp_path: Path, manual: bool) -> None:
    trainer(callbacks=[Saver(tmp_path)], num_sanity_val_steps=0).fit(Line(manual=manual), loader(), loader())
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for file in files:
        tree = torch.load(file, weights_only=True)
        assert set(STRUCTURE) - {"callbacks"} <= set(tree)
        assert structure_of(tree["loops"]) == structure_of(torch.load(SEAMS / "manual.ckpt", weights_only=True)["loops"])
        assert structure_like(tree["loops"], STRUCTURE["loops"]) == structure_of(
            json.loads(json.dumps(STRUCTURE["loops"]).replace('"dict"', "null"))
        )
