"""Write the golden checkpoints of Lightning 2.6.6 that the importer is tested against.

Run with an interpreter that has the original, on any machine; the files land beside this script:

    python -m venv peer && peer/bin/pip install torch==2.13.0 lightning==2.6.6
    peer/bin/python tests/golden/lightning_2_6/make.py

Written: `trainer.ckpt` (hyper-parameters of every sort), `fabric.ckpt`, `model_parallel/` (Fabric's ModelParallelStrategy,
two processes), `trainer_sharded/` (Trainer's), `fsdp/` (the layout of FSDPStrategy, which itself needs GPUs: FSDP2 and
torch.distributed.checkpoint in two processes, `meta.pt` beside), `dcp/` (the same without `meta.pt`), `seams/` (one training,
saved in different hooks), and `expected.json` (shapes and sums that a reader must find again, ends of trainings).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections import defaultdict
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.fabric.strategies import ModelParallelStrategy
from lightning.fabric.utilities.data import AttributeDict
from lightning.pytorch.strategies import ModelParallelStrategy as TrainerModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint import FileSystemWriter, save
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.fsdp import fully_shard

HERE = Path(__file__).parent
OUT = Path(tempfile.gettempdir(), "lightning_2_6")  # metadata holds the folder's path: a neutral one


class Mixup:
    """A class that no reader has."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha


def _pose_as_library() -> None:
    module = types.ModuleType("research_code.augment")
    Mixup.__module__ = module.__name__
    module.Mixup = Mixup
    sys.modules["research_code"] = types.ModuleType("research_code")
    sys.modules[module.__name__] = module


class Net(lightning.LightningModule):
    def __init__(self, width: int, schedule: argparse.Namespace, augment: Mixup, paths: dict, extra: dict) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.body(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


class Counts(lightning.Callback):
    def state_dict(self) -> dict:
        seen = defaultdict(int)
        seen["a"] = 3
        return {"seen": seen, "mean": np.arange(3, dtype=np.float32), "best": np.float64(0.5), "ids": {1, 2}}


def _loader() -> torch.utils.data.DataLoader:
    rng = torch.Generator().manual_seed(1)
    data = torch.utils.data.TensorDataset(torch.randn(16, 4, generator=rng), torch.randint(0, 2, (16,), generator=rng))
    return torch.utils.data.DataLoader(data, batch_size=8)


def _net() -> Net:
    torch.manual_seed(0)
    return Net(
        width=6,
        schedule=argparse.Namespace(lr=1e-2, inner=argparse.Namespace(steps=[1, 2])),
        augment=Mixup(0.2),
        paths={"root": Path("/data/digits"), "dtype": torch.bfloat16},
        extra=AttributeDict(depth=2, activation=nn.ReLU),
    )


def trainer() -> None:
    net = _net()
    fit = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Counts()],
    )
    fit.fit(net, _loader())
    fit.save_checkpoint(OUT / "trainer.ckpt")
    EXPECTED["trainer"] = _sums(net.state_dict())


def fabric() -> None:
    torch.manual_seed(0)
    runner = lightning.Fabric(accelerator="cpu", devices=1)
    model = nn.Linear(4, 3)
    model, optimizer = runner.setup(model, torch.optim.Adam(model.parameters(), lr=0.1))
    for _ in range(2):
        optimizer.zero_grad()
        runner.backward(model(torch.ones(2, 4)).sum())
        optimizer.step()
    runner.save(OUT / "fabric.ckpt", {"model": model, "optimizer": optimizer, "step": 2, "hparams": argparse.Namespace(lr=0.1)})
    EXPECTED["fabric"] = _sums(model.state_dict())


def _blocks() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def _sums(tensors: dict) -> dict:
    return {name: [list(t.shape), float(t.double().sum())] for name, t in tensors.items()}


def _train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 5)).sum().backward()
        optimizer.step()


def _shard(model: nn.Module, mesh: object) -> nn.Module:
    return fully_shard(model, mesh=mesh["data_parallel"])


def model_parallel() -> None:
    strategy = ModelParallelStrategy(parallelize_fn=_shard, data_parallel_size=2, tensor_parallel_size=1)
    runner = lightning.Fabric(accelerator="cpu", devices=2, strategy=strategy)
    runner.launch()
    model = runner.setup(_blocks())
    optimizer = runner.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=0.1))
    _train(model, optimizer)
    full = {k: v.full_tensor() for k, v in model.state_dict().items()}
    state = {"model": model, "optimizer": optimizer, "step": 2, "hparams": argparse.Namespace(lr=0.1, augment=Mixup(0.5))}
    runner.save(OUT / "model_parallel", state)
    _note(runner.global_rank, "model_parallel", full)


class ShardedNet(lightning.LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = _blocks()

    def configure_model(self) -> None:
        fully_shard(self.body, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        return self.body(torch.ones(2, 5)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def trainer_sharded() -> None:
    fit = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        devices=2,
        strategy=TrainerModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    net = ShardedNet(7)
    fit.fit(net, _loader())
    fit.save_checkpoint(OUT / "trainer_sharded")
    _note(fit.global_rank, "trainer_sharded", {k: v.full_tensor() for k, v in net.state_dict().items()})


def fsdp() -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = _blocks()
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    _train(model, optimizer)
    state = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}
    for folder in ("fsdp", "dcp"):
        save(state, storage_writer=FileSystemWriter(OUT / folder, single_file_per_rank=True))
    if rank == 0:
        torch.save({"step": 2, "hparams": argparse.Namespace(lr=0.1)}, OUT / "fsdp" / "meta.pt")
    full = {k: v.full_tensor() for k, v in state["model"].items()}
    _note(rank, "fsdp", full)
    _note(rank, "dcp", full)


def _note(rank: int, kind: str, tensors: dict) -> None:
    if rank == 0:
        EXPECTED[kind] = _sums(tensors)


class Seam(lightning.Callback):
    """Saves in one hook, at its n-th call."""

    def __init__(self, hook: str, nth: int, name: str) -> None:
        self.nth, self.name, self.calls = nth, name, 0
        setattr(self, hook, self._come)

    def _come(self, trainer: lightning.Trainer, *args: object) -> None:
        if trainer.sanity_checking:
            return
        self.calls += 1
        if self.calls == self.nth:
            trainer.save_checkpoint(OUT / "seams" / f"{self.name}.ckpt")


class Line(lightning.LightningModule):
    def __init__(self, manual: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.automatic_optimization = not manual

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def validation_step(self, batch: list, index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self) -> tuple:
        parameters = [self.parameters()] if self.automatic_optimization else [[self.layer.weight], [self.layer.bias]]
        optimizers = [torch.optim.SGD(part, lr=0.1, momentum=0.9) for part in parameters]
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 1, gamma=0.5)]


SEAMS = {
    "mid_epoch": ("on_train_batch_end", 6, {}),
    "last_batch": ("on_train_batch_end", 8, {}),
    "validation_end": ("on_validation_end", 2, {}),
    "validation_mid_epoch": ("on_validation_end", 3, {"val_check_interval": 2}),
    "epoch_end": ("on_train_epoch_end", 2, {}),
    "train_end": ("on_train_end", 1, {}),
    "accumulated": ("on_train_batch_end", 4, {"accumulate_grad_batches": 3}),
    "accumulated_epoch_end": ("on_train_epoch_end", 2, {"accumulate_grad_batches": 3}),
    "manual": ("on_train_epoch_end", 2, {}),
}


def seams() -> None:
    """Checkpoints of one training, four batches an epoch, at every kind of place; and where the training ends without a break."""
    (OUT / "seams").mkdir()
    rng = torch.Generator().manual_seed(1)
    data = torch.utils.data.TensorDataset(torch.randn(16, 4, generator=rng), torch.randint(0, 2, (16,), generator=rng))
    torch.save({"x": data.tensors[0], "y": data.tensors[1]}, OUT / "seams" / "data.pt")
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    ends = {}
    for name, (hook, nth, options) in SEAMS.items():
        torch.manual_seed(0)
        module = Line(manual=name == "manual")
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        fit = lightning.Trainer(max_epochs=3, accelerator="cpu", callbacks=[Seam(hook, nth, name)], **quiet, **options)
        fit.fit(module, loader, loader)
        fit_loop = fit.fit_loop.epoch_loop
        ends[name] = {
            "weight": module.layer.weight.tolist(),
            "global_step": fit.global_step,
            "log_step": fit_loop._batches_that_stepped,
            "batches": fit_loop.batch_progress.total.completed,
        }
    EXPECTED["seams"] = ends


EXPECTED: dict = {}
MAKERS = {
    "trainer": trainer,
    "fabric": fabric,
    "model_parallel": model_parallel,
    "trainer_sharded": trainer_sharded,
    "fsdp": fsdp,
    "seams": seams,
}


def make(name: str) -> None:
    _pose_as_library()
    file = OUT / "expected.json"
    EXPECTED.update(json.loads(file.read_text()) if file.exists() else {})
    MAKERS[name]()
    if os.environ.get("RANK", "0") == "0":
        file.write_text(json.dumps(EXPECTED, indent=1) + "\n")


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for name in MAKERS:
        single = name in ("trainer", "fabric", "seams")
        launcher = [] if single else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        subprocess.run([sys.executable, *launcher, __file__, name], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    shutil.copytree(OUT, HERE, dirs_exist_ok=True)
    shutil.rmtree(OUT)


if __name__ == "__main__":
    make(sys.argv[1]) if len(sys.argv) > 1 else main()
