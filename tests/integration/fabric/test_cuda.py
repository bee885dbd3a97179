"""One GPU, one process: which device a Fabric takes, that its loop is the raw loop, precisions, loaders, and that nothing waits."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.core.errors import ConfigError, StateError, UnavailableError
from leyden.core.optional import installed
from leyden.fabric import Fabric
from leyden.fabric.accelerators import find_usable_cuda_devices
from leyden.fabric.loggers import CSVLogger, TensorBoardLogger
from leyden.fabric.loggers.writer_thread import process_writer
from leyden.fabric.rng import isolate_rng
from leyden.fabric.spike import SpikeDetection, TrainingSpikeException
from leyden.fabric.throughput import ThroughputMonitor
from tests.support.event_files import read_events, read_scalars
from tests.support.gpu import (
    DEVICE,
    EPSILON,
    REHEARSES,
    WIDTH,
    batches,
    busy,
    gpu_fabric,
    needs_gpu,
    needs_real_gpu,
    network,
    no_waiting,
    raw_train,
    ready,
    scaled,
    step,
    train,
    weights,
)

pytestmark = needs_gpu


# -- which device ----------------------------------------------------------------------------------------------------


@needs_real_gpu
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda", "GPU"])
def test_one_device_is_the_first_gpu(accelerator: str) -> None:
    fabric = Fabric(accelerator=accelerator, devices=1)
    fabric.launch()
    assert fabric.device == torch.device("cuda", 0)
    assert fabric.accelerator.name == "cuda"
    assert torch.cuda.current_device() == 0
    assert fabric.to_device({"x": [torch.ones(1)]})["x"][0].device == fabric.device


@needs_real_gpu
@pytest.mark.parametrize("accelerator", ["mps", "xpu"])
def test_other_gpus_are_absent_and_the_error_says_what_is_there(accelerator: str) -> None:
    with pytest.raises(UnavailableError, match="'cuda'"):
        Fabric(accelerator=accelerator, devices=1)


@needs_real_gpu
def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="cuda"):
        Fabric(accelerator="gpu", devices=torch.cuda.device_count() + 1)


@needs_real_gpu
def test_building_a_fabric_touches_no_gpu() -> None:
    code = (
        "import os, torch; from leyden.fabric import Fabric; fabric = Fabric(accelerator='gpu', devices=1);"
        "print(torch.cuda.is_initialized(), flush=True); pid = os.fork();"
        "pid or (fabric.launch(), print(torch.ones(1, device=fabric.device).item(), flush=True), os._exit(0)); os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == ["False", "1.0"], "the device works in a fork, so it was not initialised before"


@needs_real_gpu
def test_a_gpu_is_measured() -> None:
    fabric = gpu_fabric()
    held = fabric.to_device(torch.ones(2**20))
    stats = fabric.accelerator.device_stats(fabric.device)
    assert stats["allocated_bytes"] >= held.nbytes
    assert stats["peak_allocated_bytes"] >= stats["allocated_bytes"]
    assert find_usable_cuda_devices(1) == [0]
    assert find_usable_cuda_devices() == list(range(torch.cuda.device_count()))
    fabric.strategy.teardown()
    assert held.sum().item() == 2**20, "giving back caches leaves tensors alone"


@needs_real_gpu
@pytest.mark.skipif("H100" not in (torch.cuda.get_device_name() if torch.cuda.is_available() else ""), reason="needs an H100")
def test_the_peak_of_this_chip_is_known() -> None:
    monitor = ThroughputMonitor(gpu_fabric(precision="bf16-mixed"), window_size=2, using_sparse_model=False)
    for index in range(1, 4):
        monitor.update(time=float(index), batches=index, samples=index, flops=10**12)
    assert monitor.compute()["device/mfu"] == pytest.approx(1e12 / 989.4e12, rel=1e-3)


@needs_real_gpu
def test_doctor_names_the_gpu() -> None:
    command = [sys.executable, "-m", "leyden.cli.main", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert f"cuda:0 {torch.cuda.get_device_name(0)}" in json.loads(done.stdout)["torch"]["devices"]


# -- the loop --------------------------------------------------------------------------------------------------------


def _autocast(dtype: torch.dtype) -> Any:
    def compute(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(DEVICE.type, dtype=dtype):
            return net(x).float()

    return compute


def _cast(dtype: torch.dtype) -> Any:
    return lambda net, x: net(x.to(dtype)).float()


@pytest.mark.parametrize(
    ("precision", "compute", "weight", "activation"),
    [
        ("32-true", _cast(torch.float32), torch.float32, torch.float32),
        ("bf16-mixed", _autocast(torch.bfloat16), torch.float32, torch.bfloat16),
        ("bf16-true", _cast(torch.bfloat16), torch.bfloat16, torch.bfloat16),
        ("16-true", _cast(torch.float16), torch.float16, torch.float16),
        ("64-true", _cast(torch.float64), torch.float64, torch.float64),
    ],
)
def test_training_is_the_raw_loop_bit_for_bit(precision: str, compute: Any, weight: torch.dtype, activation: torch.dtype) -> None:
    data = batches(20)
    expected = raw_train(data, compute, weight)
    fabric = gpu_fabric(precision=precision)
    model, optimizer = ready(fabric)
    assert train(fabric, model, optimizer, data) == expected
    assert {p.dtype for p in model.parameters()} == {weight}
    assert model.blocks[0].seen == {activation}
    assert model(data[0]).dtype is torch.float32
    assert {p.device for p in model.parameters()} == {DEVICE}
    assert torch.get_default_dtype() is torch.float32


def test_float16_with_a_scaler_is_the_raw_loop_bit_for_bit() -> None:
    data = batches(20)
    net = network().to(DEVICE)
    raw_optimizer, scaler = torch.optim.AdamW(net.parameters(), lr=1e-2, eps=EPSILON), torch.amp.GradScaler(DEVICE.type)
    expected = []
    for x in data:
        raw_optimizer.zero_grad()
        loss = nn.functional.mse_loss(_autocast(torch.float16)(net, x), x)
        scaler.scale(loss).backward()
        scaler.step(raw_optimizer)
        scaler.update()
        expected.append(loss.item())
    fabric = gpu_fabric(**(scaled() if REHEARSES else {"precision": "16-mixed"}))
    model, optimizer = ready(fabric)
    assert train(fabric, model, optimizer, data) == expected
    assert fabric.strategy.precision.state_dict()["scale"] == scaler.get_scale()


def test_an_overflow_skips_the_step_and_the_scale_survives_a_checkpoint(tmp_path: Path) -> None:
    fabric, data = gpu_fabric(**scaled(init_scale=16.0)), batches(2)
    model, optimizer = ready(fabric)
    before = weights(model)
    fabric.backward(model(data[0]).sum())
    next(model.parameters()).grad.view(-1)[0] = math.inf
    optimizer.step()
    assert optimizer.last_step_skipped
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer})
    other = gpu_fabric(**scaled(init_scale=16.0))
    other_model, other_optimizer = ready(other)
    other.load(tmp_path / "saved", {"model": other_model, "optimizer": other_optimizer})
    assert other.strategy.precision.state_dict() == fabric.strategy.precision.state_dict()
    assert other.strategy.precision.state_dict()["scale"] == 8.0
    assert train(other, other_model, other_optimizer, data) == train(fabric, model, optimizer, data)
    assert not optimizer.last_step_skipped


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_modules_and_tensors_are_born_on_the_device_in_the_dtype(precision: str, dtype: torch.dtype) -> None:
    fabric = gpu_fabric(precision=precision)
    with fabric.init_module():
        net = nn.Linear(4, 4)
    with fabric.init_module(empty_init=True):
        empty = nn.Linear(4, 4)
    with fabric.init_tensor():
        tensor = torch.ones(2)
    for made in (net.weight, empty.weight, tensor):
        assert (made.device, made.dtype) == (DEVICE, dtype)


def test_clipping_is_torchs() -> None:
    fabric, data = gpu_fabric(), batches(1)
    model, optimizer = ready(fabric)
    plain = network().to(DEVICE)
    for net in (model, plain):
        nn.functional.mse_loss(net(data[0]), data[0]).backward()
    expected = nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    reported = fabric.clip_gradients(model, optimizer, max_norm=0.1)
    assert reported is not None
    assert torch.equal(reported, expected)
    assert all(torch.equal(ours.grad, theirs.grad) for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True))
    fabric.clip_gradients(model, optimizer, clip_val=1e-4)
    assert max(p.grad.abs().max().item() for p in model.parameters()) == pytest.approx(1e-4)
    model.leave.bias.grad[0] = math.nan
    with pytest.raises(StateError, match=r"leave\.bias"):
        fabric.clip_gradients(model, optimizer, max_norm=0.1)


def test_seeds_and_isolated_generators_reach_the_device() -> None:
    Fabric.seed_everything(7, verbose=False)
    first = torch.rand(4, device=DEVICE)
    with isolate_rng():
        torch.rand(4, device=DEVICE)
    second = torch.rand(4, device=DEVICE)
    Fabric.seed_everything(7, verbose=False)
    assert torch.equal(first, torch.rand(4, device=DEVICE))
    assert torch.equal(second, torch.rand(4, device=DEVICE))


@pytest.mark.skipif(not installed("torchao"), reason='torchao is not installed: pip install "leyden[float8]"')
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_float8_trains_without_emulation_where_the_chip_can() -> None:
    fabric, data = gpu_fabric(precision="float8"), batches(20)
    if REHEARSES:
        with pytest.warns(UserWarning, match="emulated"):
            model, optimizer = ready(fabric)
    else:
        model, optimizer = ready(fabric)
    assert "Float8" in type(model.blocks[0].up).__name__
    losses = train(fabric, model, optimizer, data)
    assert losses == pytest.approx(raw_train(data, _cast(torch.float32), torch.float32), rel=0.2)


@pytest.mark.skipif(not installed("transformer_engine"), reason="transformer-engine is not installed")
@needs_real_gpu
def test_transformer_engine_trains() -> None:
    fabric, data = gpu_fabric(precision="transformer-engine"), batches(5)
    model = fabric.setup_module(network())
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-2, eps=EPSILON))
    losses = train(fabric, model, optimizer, data)
    assert losses[-1] < losses[0]


# -- data ------------------------------------------------------------------------------------------------------------


def _loader(num_workers: int = 0) -> DataLoader[Any]:
    data = TensorDataset(torch.arange(40.0).reshape(40, 1), torch.arange(40))
    return DataLoader(data, batch_size=4, shuffle=True, num_workers=num_workers, pin_memory=not REHEARSES)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # workers are forked beside the device's threads
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_arrive_and_resume_on_the_device(num_workers: int) -> None:
    fabric = gpu_fabric()
    fabric.seed_everything(3, verbose=False)
    loader = fabric.setup_dataloaders(_loader(num_workers))
    iterator = iter(loader)
    first = [next(iterator) for _ in range(4)]
    assert {tensor.device for batch in first for tensor in batch} == {DEVICE}
    state = loader.state_dict()
    rest = [ids.tolist() for _, ids in iterator]
    assert sorted(number for ids in [*(ids.tolist() for _, ids in first), *rest] for number in ids) == list(range(40))
    again = fabric.setup_dataloaders(_loader(num_workers))
    again.load_state_dict(state)
    assert [ids.tolist() for _, ids in again] == rest
    stays = fabric.setup_dataloaders(_loader(), move_to_device=False)
    assert next(iter(stays))[0].device.type == "cpu"


def test_moving_a_pinned_batch_does_not_wait() -> None:
    fabric = gpu_fabric()
    batch = {"x": torch.ones(2**20, pin_memory=not REHEARSES), "rest": [torch.ones(3, pin_memory=not REHEARSES)]}
    fabric.to_device(batch)  # from here on the device has memory for it
    with no_waiting():
        busy()
        moved = fabric.to_device(batch)
    if not REHEARSES:
        assert not torch.cuda.current_stream().query(), "the device is still busy with what came before"
    assert moved["x"].sum().item() == 2**20


# -- nothing waits for the device ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loop_that_logs_never_waits_for_the_device(tmp_path: Path, precision: str) -> None:
    fabric = gpu_fabric(precision=precision, loggers=CSVLogger(tmp_path, name="run"))
    model, optimizer = ready(fabric)
    data = TensorDataset(torch.randn(21 * 8, 16))
    loader = iter(fabric.setup_dataloaders(DataLoader(data, batch_size=8, pin_memory=not REHEARSES)))
    losses = []

    def one_step(number: int) -> None:
        (x,) = next(loader)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), x)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)
        optimizer.step()
        fabric.log("loss", loss, step=number)
        fabric.stop_requested()
        losses.append(loss.detach())

    one_step(0)
    channel = process_writer().channels[-1]  # its thread may wait, and would be caught too
    assert channel.hold(10.0)
    try:
        with no_waiting():
            for number in range(1, 21):
                one_step(number)
    finally:
        channel.let_go()
    fabric.logger.save()
    with (Path(fabric.logger.log_dir or "") / "metrics.csv").open() as file:
        logged = [float(row["loss"]) for row in csv.DictReader(file)]
    assert logged == torch.stack(losses).tolist()
    fabric.strategy.teardown()


@needs_real_gpu
def test_a_value_logged_on_a_stream_of_its_own_is_the_one_it_had(tmp_path: Path) -> None:
    fabric = gpu_fabric(loggers=CSVLogger(tmp_path, name="run"))
    value = torch.zeros((), device=DEVICE)
    with torch.cuda.stream(torch.cuda.Stream()):
        for number in range(5):
            busy()
            value.add_(1.0)
            fabric.log("value", value, step=number)
    fabric.logger.save()
    with (Path(fabric.logger.log_dir or "") / "metrics.csv").open() as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_pictures_and_histograms_take_tensors_of_the_device(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="run")
    logger.log_metrics({"loss": torch.tensor(0.5, device=DEVICE)}, step=3)
    logger.experiment.add_histogram("weights", torch.randn(100, device=DEVICE), 3)
    logger.experiment.add_image("picture", torch.rand(3, 4, 4, device=DEVICE), 3)
    logger.experiment.add_scalar("rate", torch.tensor(0.25, device=DEVICE), 3)
    logger.finalize("success")
    (events,) = tmp_path.rglob("events.*")
    assert [row for row in read_scalars(events.parent) if row[0] in ("loss", "rate")] == [("loss", 3, 0.5), ("rate", 3, 0.25)]
    assert len(read_events(events)) >= 5


def test_a_spike_on_the_device_is_seen(tmp_path: Path) -> None:
    fabric = gpu_fabric(callbacks=SpikeDetection(exclude_batches_path=tmp_path, window=3))
    for index, value in enumerate([1.0, 0.9, 0.8, 0.8, 0.7]):
        fabric.call("on_train_batch_end", fabric=fabric, loss=torch.tensor(value, device=DEVICE), batch=None, batch_idx=index)
    with pytest.raises(TrainingSpikeException, match="batch 5"):
        fabric.call("on_train_batch_end", fabric=fabric, loss=torch.tensor(100.0, device=DEVICE), batch=None, batch_idx=5)


# -- compiled --------------------------------------------------------------------------------------------------------


@needs_real_gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's
@pytest.mark.parametrize("scope", ["blocks", "model"])
def test_compiled_training_agrees(scope: str) -> None:
    data = batches(5)
    fabric = gpu_fabric(compile=scope)
    model, optimizer = ready(fabric)
    losses = train(fabric, model, optimizer, data)
    assert losses == pytest.approx(raw_train(data, _cast(torch.float32), torch.float32), rel=1e-4)
    assert set(model.state_dict()) == set(network().state_dict())


def test_two_optimizers_on_one_device_step_as_one_would() -> None:
    fabric, data = gpu_fabric(), batches(3)
    net = network()
    halves = list(net.parameters())[:4], list(net.parameters())[4:]
    model, *optimizers = fabric.setup(net, *(torch.optim.AdamW(half, lr=1e-2, eps=EPSILON) for half in halves))
    losses = []
    for x in data:
        model.zero_grad()
        loss = nn.functional.mse_loss(model(x), x)
        fabric.backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses == raw_train(data, _cast(torch.float32), torch.float32)
    assert model.enter.weight.shape == (WIDTH, 16)
    assert step(fabric, model, optimizers[0], data[0]).isfinite()
