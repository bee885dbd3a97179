import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.accelerators.cpu import CPUAccelerator
from leyden.fabric.accelerators.flops import _chips, chip_peak, has_tf32
from leyden.fabric.precision.precision import Precision
from leyden.fabric.rank_zero import rank_zero_only
from leyden.fabric.throughput import Throughput, ThroughputMonitor, get_available_flops, measure_flops


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return self.now


class LogFabric:
    """The part of Fabric that the monitor uses; keeps what is logged."""

    device = torch.device("cpu")
    accelerator = CPUAccelerator()
    strategy = SimpleNamespace(precision=Precision())

    def __init__(self, world_size: int = 1) -> None:
        self.world_size = world_size
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_dict(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


@pytest.fixture(autouse=True)
def _rank_restored() -> Iterator[None]:
    rank_zero_only.rank = 0
    yield
    rank_zero_only.rank = None


def test_rates_come_with_a_full_window() -> None:
    clock, throughput = FakeClock(), Throughput(available_flops=1000, window_size=3, using_sparse_model=False)
    for batch in range(1, 4):
        throughput.update(time=clock.advance(0.5), batches=batch, samples=batch * 4, lengths=batch * 40, flops=100)
        if batch < 3:
            assert throughput.compute() == {"time": batch * 0.5, "batches": batch, "samples": batch * 4, "lengths": batch * 40}
    assert throughput.compute() == {
        "time": 1.5,
        "batches": 3,
        "samples": 12,
        "lengths": 120,
        "device/batches_per_sec": 2.0,
        "device/samples_per_sec": 8.0,
        "device/items_per_sec": 80.0,
        "device/flops_per_sec": 200.0,
        "device/mfu": 0.2,
    }


def test_several_devices_have_a_sum() -> None:
    throughput = Throughput(available_flops=1000, world_size=2, window_size=2, separator="|", using_sparse_model=False)
    for batch in (1, 2):
        throughput.update(time=float(batch), batches=batch, samples=batch * 3, flops=10)
    metrics = throughput.compute()
    assert metrics["device|samples_per_sec"] == 3.0
    assert metrics["samples_per_sec"] == 6.0
    assert metrics["device|flops_per_sec"] == 10.0
    assert metrics["flops_per_sec"] == 20.0
    assert metrics["device|mfu"] == 0.01
    assert "mfu" not in metrics


def test_only_the_window_counts() -> None:
    throughput = Throughput(window_size=2)
    for time, batches in ((1.0, 1), (101.0, 2), (102.0, 12)):
        throughput.update(time=time, batches=batches, samples=batches)
    assert throughput.compute()["device/batches_per_sec"] == 10.0


def test_nothing_seen_is_nothing_computed_and_reset_forgets() -> None:
    throughput = Throughput(window_size=2)
    assert throughput.compute() == {}
    throughput.update(time=1.0, batches=1, samples=1, lengths=1)
    throughput.reset()
    assert throughput.compute() == {}
    throughput.update(time=0.5, batches=1, samples=1)


@pytest.mark.parametrize(
    "second",
    [
        {"time": 1.0, "batches": 2, "samples": 8, "lengths": 80},
        {"time": 0.5, "batches": 2, "samples": 8, "lengths": 80},
        {"time": 2.0, "batches": 1, "samples": 8, "lengths": 80},
        {"time": 2.0, "batches": 2, "samples": 4, "lengths": 80},
        {"time": 2.0, "batches": 2, "samples": 8, "lengths": 40},
    ],
)
def test_totals_increase_and_a_refused_update_leaves_no_trace(second: dict[str, Any]) -> None:
    throughput = Throughput(window_size=2)
    throughput.update(time=1.0, batches=1, samples=4, lengths=40)
    with pytest.raises(ConfigError, match="Expected the value to increase, last:"):
        throughput.update(**second)
    throughput.update(time=2.0, batches=2, samples=8, lengths=80)
    assert throughput.compute()["device/items_per_sec"] == 40.0


def test_counts_fit_each_other() -> None:
    with pytest.raises(ConfigError, match=r"samples \(1\) to be greater or equal than batches \(2\)"):
        Throughput().update(time=1.0, batches=2, samples=1)
    with pytest.raises(ConfigError, match=r"lengths \(1\) to be greater or equal than samples \(2\)"):
        Throughput().update(time=1.0, batches=2, samples=2, lengths=1)


@pytest.mark.parametrize(("first", "second"), [(None, 8), (4, None)])
def test_lengths_come_always_or_never(first: int | None, second: int | None) -> None:
    throughput = Throughput()
    throughput.update(time=1.0, batches=1, samples=4, lengths=first)
    with pytest.raises(StateError, match="in every update"):
        throughput.update(time=2.0, batches=2, samples=8, lengths=second)


@pytest.mark.parametrize(
    "arguments",
    [{"available_flops": 0}, {"world_size": 0}, {"window_size": 1}, {"sparse_cuda_acceleration_factor": 0.5}],
    ids=str,
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Throughput(**arguments)


def test_sparsity_raises_the_peak_and_an_open_question_warns() -> None:
    assert Throughput(available_flops=100.0, using_sparse_model=False).available_flops == 100.0
    assert Throughput(available_flops=100.0, using_sparse_model=True).available_flops == 200.0
    assert Throughput(available_flops=100.0, using_sparse_model=True, sparse_cuda_acceleration_factor=4.0).available_flops == 400.0
    assert Throughput(using_sparse_model=True).available_flops is None
    with pytest.warns(UserWarning, match="MFU assumes dense model FLOPs"):
        assert Throughput(available_flops=100.0).available_flops == 100.0


@given(
    steps=st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 5), st.integers(0, 50)), min_size=2, max_size=20),
    window=st.integers(2, 20),
)
def test_rates_are_differences_over_the_window(steps: list[tuple[float, int, int]], window: int) -> None:
    throughput, totals = Throughput(window_size=window), []
    time, batches, samples = 0.0, 0, 0
    for seconds, more_batches, extra in steps:
        time, batches, samples = time + seconds, batches + more_batches, samples + more_batches + extra
        totals.append((time, batches, samples))
        throughput.update(time=time, batches=batches, samples=samples)
    metrics = throughput.compute()
    if len(totals) < window:
        assert "device/samples_per_sec" not in metrics
    else:
        first, last = totals[-window], totals[-1]
        assert metrics["device/samples_per_sec"] == pytest.approx((last[2] - first[2]) / (last[0] - first[0]))


def test_the_monitor_logs_and_counts_steps() -> None:
    fabric = LogFabric()
    monitor = ThroughputMonitor(fabric, window_size=2)
    assert monitor.available_flops is None
    for batch in (1, 2):
        monitor.update(time=float(batch), batches=batch, samples=batch)
        monitor.compute_and_log()
    monitor.compute_and_log(step=7)
    assert [step for step, _ in fabric.rows] == [0, 1, 7]
    assert fabric.rows[1][1] == {
        "time": 2.0,
        "batches": 2,
        "samples": 2,
        "device/batches_per_sec": 1.0,
        "device/samples_per_sec": 1.0,
    }


def test_the_monitor_is_silent_on_other_ranks() -> None:
    rank_zero_only.rank = 1
    fabric = LogFabric(world_size=2)
    monitor = ThroughputMonitor(fabric, window_size=2)
    monitor.update(time=1.0, batches=1, samples=1)
    assert monitor.compute_and_log() == {}
    assert fabric.rows == []


def test_the_monitor_asks_the_accelerator_for_its_peak() -> None:
    class KnownAccelerator(CPUAccelerator):
        def peak_flops(self, device: torch.device, dtype: torch.dtype) -> float:
            return 50.0

    fabric = LogFabric()
    fabric.accelerator = KnownAccelerator()
    assert ThroughputMonitor(fabric, using_sparse_model=True).available_flops == 100.0


def test_flops_of_a_linear_layer_are_counted_forward_and_backward() -> None:
    with torch.device("meta"):
        model, x = nn.Linear(32, 64), torch.randn(2, 32)
    forward = measure_flops(model, lambda: model(x))
    assert forward == 2 * 2 * 32 * 64
    assert measure_flops(model, lambda: model(x), lambda y: y.sum()) == 2 * forward  # the input needs no gradient


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312),
        ("NVIDIA A100-PCIE-40GB", torch.float32, 19.5),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989.4),
        ("NVIDIA H100 PCIe", torch.float16, 756),
        ("NVIDIA H200", torch.bfloat16, 989.4),
        ("NVIDIA A10", torch.float16, 125),
        ("NVIDIA A10G", torch.float16, 70),
        ("NVIDIA L40S", torch.bfloat16, 362),
        ("NVIDIA GeForce RTX 3090 Ti", torch.float16, 80),
        ("NVIDIA GeForce RTX 4090", torch.float8_e4m3fn, 330.3),
        ("Tesla V100-SXM2-16GB", torch.float16, 125),
        ("Tesla T4", torch.float16, 65),
        ("AMD Instinct MI250X/MI250", torch.bfloat16, 191.5),
    ],
)
def test_chips_are_known_by_their_drivers_names(name: str, dtype: torch.dtype, tera: float) -> None:
    assert chip_peak(name, dtype) == pytest.approx(tera * 1e12)


def test_tf32_counts_for_float32_only() -> None:
    assert chip_peak("NVIDIA A100-SXM4-80GB", torch.float32, is_tf32=True) == 156e12
    assert chip_peak("NVIDIA A100-SXM4-80GB", torch.bfloat16, is_tf32=True) == 312e12
    assert chip_peak("Tesla V100-SXM2-16GB", torch.float32, is_tf32=True) == 15.7e12, "it has none"


@pytest.mark.parametrize(("name", "dtype"), [("NVIDIA Z9", torch.float16), ("Tesla T4", torch.bfloat16), ("NVIDIA T400", torch.float16)])
def test_an_unknown_chip_or_dtype_has_no_peak(name: str, dtype: torch.dtype) -> None:
    assert chip_peak(name, dtype) is None


def test_every_row_of_the_table_is_a_dtype_of_torch_and_a_plausible_number() -> None:
    for _, peaks in _chips():
        for key, peak in peaks.items():
            assert key == "tf32" or isinstance(getattr(torch, key), torch.dtype)
            assert 1e12 < peak < 1e16
        assert peaks["float32"] <= peaks["float16"]


def test_an_unknown_gpu_warns_and_a_cpu_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_available_flops(torch.device("cpu"), torch.float32) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Z9")
    with pytest.warns(UserWarning, match=r"The peak of 'NVIDIA Z9' for torch.float32 is not known"):
        assert get_available_flops(torch.device("cuda"), torch.float32) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A40")
    assert get_available_flops(torch.device("cuda"), torch.bfloat16) == pytest.approx(149.7e12)


def test_tf32_follows_the_matmul_precision() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert not has_tf32()
        torch.set_float32_matmul_precision("high")
        assert has_tf32()
    finally:
        torch.set_float32_matmul_precision(before)
