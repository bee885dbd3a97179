"""Checkpoints of one GPU: what was on the device at the instant of the save comes back, generators included, here and on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric import CheckpointFolder, Fabric
from leyden.fabric.checkpoint.capture import capture
from leyden.fabric.checkpoint.staging import StagingBuffers
from leyden.fabric.checkpoint.tree import tensors_of
from tests.support.gpu import (
    DEVICE,
    REHEARSES,
    batches,
    busy,
    gpu_fabric,
    needs_gpu,
    needs_real_gpu,
    network,
    no_waiting,
    ready,
    step,
    train,
    weights,
)
from tests.support.training_state import assert_same_tree

pytestmark = needs_gpu

formats = pytest.mark.parametrize("format", ["file", "directory"])


@contextmanager
def stream(*, is_own: bool) -> Iterator[None]:
    with torch.cuda.stream(torch.cuda.Stream()) if is_own and not REHEARSES else nullcontext():
        yield


@formats
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("is_own", [False, True], ids=["default stream", "own stream"])
def test_what_changes_right_after_a_save_does_not_reach_it(tmp_path: Path, format: str, blocking: bool, is_own: bool) -> None:
    fabric = gpu_fabric()
    big = nn.Linear(2048, 2048)
    model, optimizer = fabric.setup(big, torch.optim.AdamW(big.parameters()))
    model(torch.ones(4, 2048, device=DEVICE)).sum().backward()
    with stream(is_own=is_own):
        if is_own and not REHEARSES:
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        busy()
        optimizer.step()
        for _ in range(2):  # the second one uses the buffers of the first
            fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer}, blocking=blocking, format=format)
        with torch.no_grad():
            expected = {name: value.clone() for name, value in model.state_dict().items()}
            moments = {name: value.clone() for name, value in optimizer.state[big.weight].items()}
            for tensor in (*model.parameters(), *optimizer.state[big.weight].values()):
                tensor.fill_(7.0)
    fabric.wait_for_saves()
    torch.accelerator.synchronize() if not REHEARSES else None
    other = nn.Linear(2048, 2048)
    other_model, other_optimizer = fabric.setup(other, torch.optim.AdamW(other.parameters()))
    fabric.load(tmp_path / "saved", {"model": other_model, "optimizer": other_optimizer})
    assert_same_tree(dict(other_model.state_dict()), expected)
    assert_same_tree(dict(other_optimizer.state[other.weight]), moments)
    assert {value.device for value in other_model.state_dict().values()} == {DEVICE}
    assert other_optimizer.state[other.weight]["exp_avg"].device == DEVICE
    assert other_optimizer.state[other.weight]["step"].device.type == "cpu", "where torch keeps it"


@needs_real_gpu
def test_buffers_are_pinned_and_kept() -> None:
    fabric = gpu_fabric()
    model, optimizer = ready(fabric)
    train(fabric, model, optimizer, batches(1))
    state = {"model": model.module, "optimizer": optimizer.optimizer}
    buffers = StagingBuffers()
    staged = buffers.stage(capture(state, strategy=fabric.strategy, layout="full"), {})
    copies = list(tensors_of([staged.modules]))
    assert copies
    assert all(copy.device.type == "cpu" and copy.is_pinned() for copy in copies)
    first = buffers.allocations
    buffers.stage(capture(state, strategy=fabric.strategy, layout="full"), {})
    assert buffers.allocations == first
    assert_same_tree(staged.modules["model"], {name: value.cpu() for name, value in model.state_dict().items()})


@formats
@pytest.mark.parametrize("blocking", [True, False])
def test_an_interrupted_run_with_dropout_is_the_unbroken_one(tmp_path: Path, format: str, blocking: bool) -> None:
    fabric, data = gpu_fabric(precision="bf16-mixed"), batches(8)
    model, optimizer = ready(fabric, network(dropout=0.5))
    train(fabric, model, optimizer, data[:4])
    fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer, "step": 4}, blocking=blocking, format=format)
    unbroken = train(fabric, model, optimizer, data[4:])
    fabric.wait_for_saves()
    torch.rand(100, device=DEVICE)
    other, other_optimizer = ready(fabric, network(dropout=0.5, seed=9))
    state = {"model": other, "optimizer": other_optimizer, "step": 0}
    fabric.load(tmp_path / "saved", state)
    assert state["step"] == 4
    assert train(fabric, other, other_optimizer, data[4:]) == unbroken
    assert_same_tree(weights(other), weights(model))


@formats
def test_a_gpus_checkpoint_opens_on_the_cpu_and_a_cpus_on_the_gpu(tmp_path: Path, format: str) -> None:
    fabric, data = gpu_fabric(), batches(2)
    model, optimizer = ready(fabric)
    train(fabric, model, optimizer, data)
    fabric.save(tmp_path / "gpu", {"model": model, "optimizer": optimizer}, format=format)
    everything = fabric.load(tmp_path / "gpu")
    assert {value.device.type for value in everything["model"].values()} == {"cpu"}
    cpu = Fabric(accelerator="cpu", devices=1)
    cpu_model, cpu_optimizer = ready(cpu, network(seed=1))
    cpu.load(tmp_path / "gpu", {"model": cpu_model, "optimizer": cpu_optimizer})
    assert {p.device.type for p in cpu_model.parameters()} == {"cpu"}
    assert_same_tree(weights(cpu_model), weights(model))
    cpu.save(tmp_path / "cpu", {"model": cpu_model, "optimizer": cpu_optimizer}, format=format)
    back, back_optimizer = ready(fabric, network(seed=2))
    fabric.load(tmp_path / "cpu", {"model": back, "optimizer": back_optimizer})
    assert train(fabric, back, back_optimizer, data) == train(fabric, model, optimizer, data)


def test_a_single_file_of_a_gpu_is_torchs_to_read(tmp_path: Path) -> None:
    fabric = gpu_fabric()
    model, optimizer = ready(fabric)
    train(fabric, model, optimizer, batches(1))
    fabric.save(tmp_path / "saved.ckpt", {"model": model, "optimizer": optimizer})
    read = torch.load(tmp_path / "saved.ckpt", weights_only=True, map_location="cpu")
    assert_same_tree(read["model"], weights(model))
    net = network(seed=4)
    other = fabric.setup(net)
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    fabric.load_raw(tmp_path / "bare.pt", other)
    assert_same_tree(weights(other), weights(model))
    assert other.enter.weight.device == DEVICE


@pytest.mark.parametrize(
    "options", [{"fused": True}, {"foreach": True}, {"amsgrad": True}, pytest.param({"capturable": True}, marks=needs_real_gpu)], ids=str
)
def test_every_kind_of_adam_goes_on_exactly(tmp_path: Path, options: dict[str, Any]) -> None:
    fabric, data = gpu_fabric(), batches(6)

    def build(seed: int) -> tuple[Any, Any]:
        net = network(seed=seed).to(DEVICE)
        model, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2, **options))
        return model, optimizer

    model, optimizer = build(0)
    train(fabric, model, optimizer, data[:3])
    fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer})
    other, other_optimizer = build(1)
    fabric.load(tmp_path / "saved", {"model": other, "optimizer": other_optimizer})
    assert train(fabric, other, other_optimizer, data[3:]) == train(fabric, model, optimizer, data[3:])
    kept = next(iter(other_optimizer.state.values()))["step"]
    assert kept.device == next(iter(optimizer.state.values()))["step"].device


def test_a_folder_resumes_inside_an_epoch(tmp_path: Path) -> None:
    dataset = TensorDataset(torch.randn(48, 16, generator=torch.Generator().manual_seed(0)))

    def start(seed: int) -> tuple[Fabric, dict[str, Any], CheckpointFolder]:
        fabric = gpu_fabric()
        fabric.seed_everything(11, verbose=False)
        model, optimizer = ready(fabric, network(dropout=0.2, seed=seed))
        loader = fabric.setup_dataloaders(DataLoader(dataset, batch_size=8, shuffle=True, pin_memory=not REHEARSES))
        return fabric, {"model": model, "optimizer": optimizer, "loader": loader, "step": 0}, CheckpointFolder(fabric, tmp_path / "run")

    fabric, state, folder = start(0)
    losses = []
    for (x,) in state["loader"]:
        losses.append(step(fabric, state["model"], state["optimizer"], x).item())
        state["step"] += 1
        if state["step"] == 3:
            folder.save(state, step=3)  # asynchronous
    fabric.wait_for_saves()
    fabric, state, folder = start(5)
    assert folder.resume(state)
    assert [step(fabric, state["model"], state["optimizer"], x).item() for (x,) in state["loader"]] == losses[3:]


def test_staging_waits_once_and_only_then() -> None:
    """The copies run at once: one wait at the end, none for each tensor."""
    fabric = gpu_fabric()
    model, _ = ready(fabric)
    buffers = StagingBuffers()
    tensors = [parameter.detach() for parameter in model.parameters()]
    for index, tensor in enumerate(tensors):
        buffers._copy(tensor, str(index))
    buffers._copies.clear()
    with no_waiting():
        copies = [buffers._copy(tensor, str(index)) for index, tensor in enumerate(tensors)]
    if not REHEARSES:
        torch.cuda.synchronize()
    assert all(torch.equal(copy, tensor.cpu()) for copy, tensor in zip(copies, tensors, strict=True))
