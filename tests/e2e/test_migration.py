"""A training script as Lightning Fabric's public documentation teaches it, after changing nothing but its imports."""

import csv
import importlib

import pytest

from tests.support.event_files import read_scalars
from tests.support.processes import running_script

SCRIPT = """
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric import Fabric
from leyden.fabric.loggers import CSVLogger, TensorBoardLogger


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 4))

    def forward(self, x):
        return self.layers(x)


class PrintCallback:
    def on_train_epoch_end(self, fabric, epoch, loss):
        fabric.print(f"epoch {epoch} loss {loss:.4f}")


def make_data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(512, 16, generator=g)
    return TensorDataset(x, (x @ torch.randn(16, 4, generator=g)).argmax(1))


def main(args):
    loggers = [CSVLogger(args.out, name="csv"), TensorBoardLogger(args.out, name="tb")]
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="bf16-mixed", loggers=loggers, callbacks=[PrintCallback()])
    fabric.launch()
    fabric.seed_everything(42)

    with fabric.rank_zero_first():
        dataset = make_data()
    train_loader = DataLoader(dataset, batch_size=32, shuffle=True)
    train_loader = fabric.setup_dataloaders(train_loader)

    with fabric.init_module():
        model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
    model, optimizer = fabric.setup(model, optimizer)

    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "epoch": 0, "step": 0}
    if args.resume:
        remainder = fabric.load(args.resume, state)
        fabric.print("resumed", state["epoch"], state["step"], remainder)

    for epoch in range(state["epoch"], args.epochs):
        model.train()
        total, batches = torch.zeros(()), 0
        for i, (x, y) in enumerate(train_loader):
            is_accumulating = (i + 1) % 2 != 0
            with fabric.no_backward_sync(model, enabled=is_accumulating):
                loss = F.cross_entropy(model(x), y)
                fabric.backward(loss / 2)
            if not is_accumulating:
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
                state["step"] += 1
                fabric.log_dict({"train_loss": loss, "lr": scheduler.get_last_lr()[0]}, step=state["step"])
            total, batches = total + loss.detach(), batches + 1
        scheduler.step()
        mean = fabric.all_reduce(total / batches, reduce_op="mean")
        fabric.call("on_train_epoch_end", fabric=fabric, epoch=epoch, loss=mean.item())
        state["epoch"] = epoch + 1
        fabric.save(args.out + "/checkpoint.ckpt", state)
    fabric.barrier()
    if fabric.is_global_zero:
        for logger in fabric.loggers:
            logger.finalize("success")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--resume", default=None)
    parser.add_argument("--out", default=".")
    main(parser.parse_args())
"""


def losses(text):
    return {int(words[1]): float(words[3]) for words in map(str.split, text.splitlines()) if words[:1] == ["epoch"]}


def logged(folder, version):
    """Return the rows of the CSV file, and the scalars of the event file as the same kind of rows."""
    rows = list(csv.DictReader((folder / f"csv/version_{version}/metrics.csv").read_text().splitlines()))
    written = [(int(row["step"]), float(row["train_loss"]), float(row["lr"])) for row in rows]
    points = {(tag, step): value for tag, step, value in read_scalars(folder / f"tb/version_{version}")}
    steps = sorted({step for tag, step in points if tag == "train_loss"})
    return written, [(step, points["train_loss", step], points["lr", step]) for step in steps]


def run(folder, *arguments):
    with running_script(SCRIPT, args=["--out", str(folder), *arguments]) as script:
        finished = script.wait()
        script.wait_until_gone(5.0)
    assert finished.code == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_script_written_for_lightning_fabric_trains_resumes_and_logs(tmp_path):
    first = losses(run(tmp_path, "--epochs", "2"))
    assert list(first) == [0, 1], "printed once for each epoch, by one rank"
    assert first[1] < 0.9 * first[0]

    output = run(tmp_path, "--epochs", "4", "--resume", str(tmp_path / "checkpoint.ckpt"))
    assert "resumed 2 8 {}" in output
    second = losses(output)
    assert list(second) == [2, 3]
    assert second[3] < second[2] < first[1]

    for version, steps, rates in ((0, range(1, 9), (5e-3, 4.5e-3)), (1, range(9, 17), (4.05e-3, 3.645e-3))):
        rows, scalars = logged(tmp_path, version)
        assert [row[0] for row in rows] == list(steps)
        assert [row[2] for row in rows] == pytest.approx([rates[0]] * 4 + [rates[1]] * 4), "the scheduler did not resume"
        for row, scalar in zip(rows, scalars, strict=True):
            assert row == pytest.approx(scalar, rel=1e-5)


PATHS = {
    "leyden.fabric": "Fabric seed_everything is_wrapped isolate_rng CheckpointFolder CompilePolicy MeshSpec Stop",
    "leyden.fabric.strategies": "Strategy ParallelStrategy SingleDeviceStrategy DDPStrategy FSDPStrategy ModelParallelStrategy "
    "DeepSpeedStrategy STRATEGY_REGISTRY",
    "leyden.fabric.accelerators": "Accelerator CPUAccelerator CUDAAccelerator MPSAccelerator XPUAccelerator ACCELERATOR_REGISTRY "
    "find_usable_cuda_devices",
    "leyden.fabric.plugins": "Precision MixedPrecision HalfPrecision DoublePrecision FSDPPrecision DeepSpeedPrecision Float8Precision "
    "BitsandbytesPrecision TransformerEnginePrecision ClusterEnvironment CheckpointIO TorchCheckpointIO AsyncCheckpointIO LayerSync "
    "TorchSyncBatchNorm",
    "leyden.fabric.plugins.environments": "LightningEnvironment TorchElasticEnvironment SLURMEnvironment LSFEnvironment MPIEnvironment "
    "KubeflowEnvironment JobEnvironment ClusterEnvironment",
    "leyden.fabric.loggers": "Logger CSVLogger TensorBoardLogger WandbLogger MLFlowLogger",
    "leyden.fabric.utilities": "move_data_to_device AttributeDict suggested_max_num_workers is_shared_filesystem measure_flops Throughput "
    "ThroughputMonitor rank_zero_only rank_zero_info rank_zero_warn rank_zero_deprecation disable_possible_user_warnings",
    "leyden.fabric.utilities.seed": "seed_everything reset_seed pl_worker_init_function",
    "leyden.fabric.utilities.rank_zero": "rank_zero_only rank_zero_info rank_zero_warn rank_zero_deprecation",
    "leyden.fabric.utilities.throughput": "Throughput ThroughputMonitor measure_flops",
    "leyden.fabric.utilities.exceptions": "MisconfigurationException",
    "leyden.fabric.utilities.warnings": "disable_possible_user_warnings",
    "leyden.fabric.utilities.types": "",
    "leyden.fabric.utilities.spike": "SpikeDetection",
    "leyden.fabric.utilities.data": "AttributeDict suggested_max_num_workers",
}


@pytest.mark.parametrize("module", PATHS)
def test_documented_names_are_where_users_import_them_from(module):
    found = importlib.import_module(module)
    for name in PATHS[module].split():
        assert getattr(found, name) is not None
