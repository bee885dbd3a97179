"""Parallel strategies on one GPU: one rank over NCCL does what the raw loop does; launchers; gloo beside it."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from leyden.core.errors import StateError
from leyden.core.optional import installed
from leyden.fabric import Fabric
from leyden.fabric.plugins import TorchSyncBatchNorm
from leyden.fabric.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from tests.support.gpu import (
    DEVICE,
    EPSILON,
    REHEARSES,
    Block,
    batches,
    gpu_fabric,
    launched,
    needs_gpu,
    needs_real_gpu,
    network,
    raw_train,
    ready,
    scaled,
    train,
    weights,
    where,
)
from tests.support.processes import running_script
from tests.support.ranks import run_ranks
from tests.support.training_state import assert_same_tree

pytestmark = needs_gpu

BACKEND = "gloo" if REHEARSES else "nccl"


def raw(count: int) -> list[float]:
    return raw_train(batches(count), lambda net, x: net(x), torch.float32)


def test_one_rank_has_nccl_for_the_device_and_gloo_for_the_rest() -> None:
    with launched("ddp") as fabric:
        assert fabric.device == DEVICE
        assert BACKEND in str(dist.get_backend_config())
        assert "cpu:gloo" in str(dist.get_backend_config())
        assert dist.get_backend(fabric.strategy.saving_group) == "gloo"
        for device in (DEVICE, torch.device("cpu")):
            tensor = torch.ones(3, device=device)
            dist.all_reduce(tensor)
            gathered: list[Any] = [None]
            dist.all_gather_object(gathered, "here")
            assert (tensor.tolist(), gathered) == ([1.0] * 3, ["here"])
        assert fabric.all_reduce(2.0).device == DEVICE
        assert fabric.broadcast({"x": torch.ones(1, device=DEVICE)})["x"].device == DEVICE
        assert fabric.strategy.reduce_boolean_decision(True)
        fabric.barrier("here")


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp", "fsdp_cpu_offload"])
def test_one_rank_trains_as_the_raw_loop(strategy: str) -> None:
    with launched(strategy) as fabric:
        model, optimizer = ready(fabric)
        losses = train(fabric, model, optimizer, batches(10))
        assert losses == (pytest.approx(raw(10), rel=1e-5) if "fsdp" in strategy else raw(10))
        assert {p.device.type for p in model.parameters()} == {"cpu" if "offload" in strategy else DEVICE.type}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp_cpu_offload"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_sixteen_bits_train_on_one_rank(strategy: str, precision: str) -> None:
    with launched(strategy, precision=precision) as fabric:
        model, optimizer = ready(fabric)
        losses = train(fabric, model, optimizer, batches(10))
        assert losses == pytest.approx(raw(10), rel=0.1)
        assert model.blocks[0].seen == {torch.bfloat16}
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16 if precision == "bf16-true" else torch.float32}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp_cpu_offload"])
def test_a_scaler_skips_an_overflow_and_clips_what_is_unscaled(strategy: str) -> None:
    with launched(strategy, **scaled(strategy, init_scale=16.0)) as fabric:
        model, optimizer = ready(fabric)
        data = batches(3)
        before = weights(model)
        fabric.backward(model(data[0]).sum())
        gradient: Any = next(model.parameters()).grad
        (gradient.to_local() if hasattr(gradient, "to_local") else gradient).view(-1)[0] = math.inf
        optimizer.step()
        assert optimizer.last_step_skipped
        assert_same_tree(weights(model), before)
        optimizer.zero_grad()
        plain = network().to(DEVICE)
        nn.functional.mse_loss(plain(data[1]), data[1]).backward()
        expected = nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
        fabric.backward(nn.functional.mse_loss(model(data[1]), data[1]))
        reported = fabric.clip_gradients(model, optimizer, max_norm=0.1)
        assert type(reported) is torch.Tensor
        assert reported.item() == pytest.approx(expected.item(), rel=0.02)
        optimizer.step()
        assert not optimizer.last_step_skipped
        assert fabric.strategy.precision.state_dict()["scale"] == 8.0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp_cpu_offload"])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_rank_saves_and_goes_on_exactly_and_any_device_reads_it(tmp_path: Path, strategy: str, blocking: bool) -> None:
    with launched(strategy) as fabric:
        model, optimizer = ready(fabric, network(dropout=0.3))
        data = batches(6)
        train(fabric, model, optimizer, data[:3])
        kept = weights(model)
        fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer}, blocking=blocking)
        unbroken = train(fabric, model, optimizer, data[3:])
        fabric.wait_for_saves()
        other, other_optimizer = ready(fabric, network(dropout=0.3, seed=3))
        fabric.load(tmp_path / "saved", {"model": other, "optimizer": other_optimizer})
        assert_same_tree(weights(other), kept)
        assert train(fabric, other, other_optimizer, data[3:]) == unbroken
    for accelerator in {"cpu", DEVICE.type}:
        single = Fabric(accelerator=accelerator, devices=1)
        again, again_optimizer = ready(single, network(seed=5))
        single.load(tmp_path / "saved", {"model": again, "optimizer": again_optimizer})
        assert_same_tree(weights(again), kept)
        assert {p.device.type for p in again.parameters()} == {accelerator}


def test_an_empty_model_is_filled_on_the_device() -> None:
    with launched("fsdp") as fabric:
        with fabric.init_module(empty_init=True):
            net = network()
        assert net.enter.weight.is_meta
        model = fabric.setup_module(net)
        optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-2, eps=EPSILON))
        assert {p.device for p in model.parameters()} == {DEVICE}
        losses = train(fabric, model, optimizer, batches(10))
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputed_activations_change_no_digit(dropout: float) -> None:
    losses = []
    for options in ({}, {"activation_checkpointing": {Block}}):
        with launched(FSDPStrategy(**options)) as fabric:
            model, optimizer = ready(fabric, network(dropout))
            torch.manual_seed(2)
            losses.append(train(fabric, model, optimizer, batches(4)))
    assert losses[0] == losses[1]


def test_gradients_are_not_reduced_where_they_accumulate() -> None:
    for strategy in ("ddp", "fsdp"):
        with launched(strategy) as fabric:
            model, optimizer = ready(fabric)
            first, second = batches(2)
            with fabric.no_backward_sync(model):
                fabric.backward(nn.functional.mse_loss(model(first), first) / 2)
            fabric.backward(nn.functional.mse_loss(model(second), second) / 2)
            norm = fabric.clip_gradients(model, optimizer, max_norm=1e9)
            plain = network().to(DEVICE)
            both = torch.cat([first, second])
            nn.functional.mse_loss(plain(both), both).backward()
            expected = nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
            assert norm is not None
            assert norm.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("hook", ["fp16_compress", pytest.param("bf16_compress", marks=needs_real_gpu), "powersgd"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gradients_are_compressed_on_their_way(hook: str) -> None:
    with launched(DDPStrategy(ddp_comm_hook=hook)) as fabric:
        model, optimizer = ready(fabric)
        assert train(fabric, model, optimizer, batches(5)) == pytest.approx(raw(5), rel=0.1)


@needs_real_gpu
def test_batch_norm_is_synchronised() -> None:
    with launched("ddp") as fabric:
        net = TorchSyncBatchNorm().apply(nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16)))
        model, optimizer = ready(fabric, net)
        losses = train(fabric, model, optimizer, batches(1) * 5)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("format", ["file", "directory"])
def test_a_fused_optimizer_of_shards_goes_on_exactly(tmp_path: Path, format: str) -> None:
    with launched("fsdp") as fabric:
        data, kept = batches(6), list[Any]()
        for seed in (0, 1):
            net = network(seed=seed)
            kept += fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True))
        model, optimizer, other, other_optimizer = kept
        train(fabric, model, optimizer, data[:3])
        fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer}, format=format)
        fabric.load(tmp_path / "saved", {"model": other, "optimizer": other_optimizer})
        assert train(fabric, other, other_optimizer, data[3:]) == train(fabric, model, optimizer, data[3:])


def _parallel(module: Any, mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for block in module.blocks:
        parallelize_module(block, mesh["tensor_parallel"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        fully_shard(block, mesh=mesh["data_parallel"])
    return fully_shard(module, mesh=mesh["data_parallel"])


def test_model_parallel_runs_on_one_device(tmp_path: Path) -> None:
    with launched(ModelParallelStrategy(_parallel)) as fabric:
        model, optimizer = ready(fabric)
        for block in model.blocks:
            block.drop = nn.Identity()  # dropout has no rule for a sharded activation of one rank that is worth a test
        assert train(fabric, model, optimizer, batches(5)) == pytest.approx(raw(5), rel=1e-5)
        fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer}, blocking=False)
        fabric.wait_for_saves()
        other, other_optimizer = ready(fabric, network(seed=2))
        fabric.load(tmp_path / "saved", {"model": other, "optimizer": other_optimizer})
        assert_same_tree(weights(other), weights(model))


@pytest.mark.slow
@needs_real_gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's
@pytest.mark.parametrize(("strategy", "scope"), [("ddp", "model"), ("fsdp", "blocks")])
def test_compiled_ranks_agree(strategy: str, scope: str) -> None:
    with launched(strategy, compile=scope) as fabric:
        model, optimizer = ready(fabric)
        assert train(fabric, model, optimizer, batches(5)) == pytest.approx(raw(5), rel=1e-4)


@pytest.mark.skipif(not installed("torchao"), reason='torchao is not installed: pip install "leyden[float8]"')
@pytest.mark.filterwarnings("ignore:float8 is emulated", "ignore::DeprecationWarning")
def test_float8_trains_sharded() -> None:
    with launched("fsdp", precision="float8") as fabric:
        model, optimizer = ready(fabric)
        losses = train(fabric, model, optimizer, batches(10))
        assert losses == pytest.approx(raw(10), rel=0.2)


@pytest.mark.skipif(not installed("deepspeed"), reason="deepspeed is not installed: docs/howto/deepspeed.md has the command")
@pytest.mark.filterwarnings("ignore")  # DeepSpeed's own
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_trains_and_goes_on_exactly(tmp_path: Path, stage: int) -> None:
    with launched(f"deepspeed_stage_{stage}") as fabric:
        model, optimizer = ready(fabric)
        data = batches(6)
        assert train(fabric, model, optimizer, data[:3]) == pytest.approx(raw(3), rel=1e-4)
        fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer})
        unbroken = train(fabric, model, optimizer, data[3:])
        fabric.load(tmp_path / "saved", {"model": model, "optimizer": optimizer})
        assert train(fabric, model, optimizer, data[3:]) == unbroken


# -- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_spawned_rank_has_the_device_and_returns_tensors_of_the_cpu() -> None:
    said = where("ddp_spawn")
    assert said["pid"] != os.getpid()
    assert said["device"] == str(DEVICE)
    assert said["loss"].device.type == "cpu"
    assert said["loss"].item() == raw(1)[0]


@needs_real_gpu
def test_a_fork_after_the_gpu_was_used_is_refused() -> None:
    torch.ones(1, device=DEVICE)
    with pytest.raises(StateError, match="restart the kernel"):
        gpu_fabric(strategy="ddp_fork").launch(lambda fabric: None)


SCRIPT = """
import torch
from leyden.fabric import Fabric

if __name__ == "__main__":
    fabric = Fabric(accelerator=ACCELERATOR, devices=1, strategy=STRATEGY)
    fabric.launch()
    net = torch.nn.Linear(4, 4)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
    fabric.backward(model(torch.ones(1, 4, device=fabric.device)).sum())
    optimizer.step()
    print("device", fabric.device, next(model.parameters()).device)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_script_ends_by_itself_without_a_word(tmp_path: Path, strategy: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("ACCELERATOR", repr(DEVICE.type)).replace("STRATEGY", repr(strategy)))
    with running_script(path) as script:
        done = script.wait(60)
    assert (done.code, done.stdout.split()) == (0, ["device", str(DEVICE), str(DEVICE)]), done.stderr
    assert "Warning" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.slow
def test_the_command_line_starts_a_rank_on_the_device(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    script = SCRIPT.replace("accelerator=ACCELERATOR, devices=1, strategy=STRATEGY", "").replace("    fabric.launch()\n", "")
    path.write_text(script)
    options = ["--accelerator", DEVICE.type, "--devices", "1", "--strategy", "ddp"]
    command = [sys.executable, "-m", "leyden.cli.main", "fabric", "run", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["device", str(DEVICE), str(DEVICE)]), done.stderr


def two_ranks() -> list[float]:
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    net = nn.Linear(2, 1)
    nn.init.ones_(net.weight)
    model = fabric.setup(net)
    fabric.backward(model(torch.full((1, 2), float(fabric.global_rank))).sum())
    return [fabric.all_reduce(float(fabric.global_rank)).item(), model.weight.grad.mean().item(), fabric.device.type == "cpu"]


def test_two_ranks_on_the_cpu_stay_on_the_cpu_beside_a_gpu() -> None:
    assert run_ranks(two_ranks, 2) == [[0.5, 0.5, True]] * 2
