"""Operators of the recorded steps, the trace, and arguments that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerAction, schedule

from leyden.core.errors import ConfigError, UnavailableError
from leyden.trainer.profilers.pytorch import PyTorchProfiler

ALWAYS = schedule(wait=0, warmup=1, active=1)


def run(profiler: PyTorchProfiler, root: Path, steps: int = 6, *, stage: str = "fit", before: str | None = None) -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    profiler.setup(stage, None, root)
    profiler.attach(net)
    for action in ([before] * 2 if before else []) + ["run_training_batch"] * steps:
        with profiler.profile(action):
            net(torch.zeros(2, 4))
    return net


def test_the_default_schedule_records_three_steps_once(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path, "report")
    run(profiler, tmp_path, steps=20)
    profiler.describe()
    profiler.teardown("fit")
    report = (tmp_path / "fit-report.txt").read_text()
    assert report.startswith("FIT Profiler Report\n\nProfile stats for: records")
    line = next(line for line in report.splitlines() if "run_training_batch" in line)
    assert line.split()[-1] == "3"


def test_the_trace_holds_actions_and_modules(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path)
    run(profiler, tmp_path)
    profiler.describe()
    trace = json.loads(next(tmp_path.glob("*.pt.trace.json")).read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "[pl][profile]run_training_batch" in names
    assert "[pl][module]torch.nn.modules.linear.Linear: 0" in names


def test_hooks_on_modules_are_gone_after_the_run(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path)
    net = run(profiler, tmp_path, steps=3)
    assert net[0]._forward_hooks
    profiler.teardown("fit")
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks


def test_the_sanity_check_does_not_count(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path, schedule=schedule(wait=0, warmup=1, active=1, repeat=1))
    run(profiler, tmp_path, steps=2, before="[Strategy]SingleDeviceStrategy.validation_step")
    assert "validation_step" not in profiler.summary()
    profiler.teardown("fit")


def test_a_run_too_short_for_the_schedule_warns(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path)
    run(profiler, tmp_path, steps=1)
    with pytest.warns(UserWarning, match="recorded nothing"):
        assert profiler.summary() == ""


def test_a_trace_without_a_place_warns() -> None:
    profiler = PyTorchProfiler()
    profiler.setup("fit")
    for _ in range(3):
        with profiler.profile("run_training_batch"):
            torch.zeros(1) + 1
    with pytest.warns(UserWarning, match="failed to export trace as `dirpath` is None"):
        profiler.summary()
    profiler.teardown("fit")


def test_no_trace_is_written_if_none_is_wanted(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path, export_to_chrome=False, group_by_input_shapes=True, row_limit=2, sort_by_key="count")
    run(profiler, tmp_path)
    assert "Input Shapes" in profiler.summary()
    assert not list(tmp_path.iterdir())
    profiler.teardown("fit")


def test_the_users_handler_gets_the_traces(tmp_path: Path) -> None:
    seen: list[Any] = []
    profiler = PyTorchProfiler(tmp_path, on_trace_ready=seen.append, schedule=schedule(wait=0, warmup=1, active=2, repeat=1))
    run(profiler, tmp_path)
    assert profiler.summary() == ""
    assert len(seen) == 1
    profiler.teardown("fit")


def test_a_failed_run_stops_recording(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path, schedule=ALWAYS)
    profiler.setup("fit", None, tmp_path)
    profiler.start("run_training_epoch")
    profiler.teardown("fit")
    assert not torch.autograd._profiler_enabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sort_by_key": "cpu_tim"}, "Found sort_by_key: cpu_tim. Should be within .*Did you mean 'cpu_time'"),
        ({"schedul": ALWAYS}, "does not take.*Did you mean 'schedule'"),
        ({"schedule": 3}, "Schedule should be a callable. Found: 3"),
        ({"schedule": lambda step: step}, "Schedule should return a `torch.profiler.ProfilerAction`. Found: 0"),
    ],
    ids=["sort key", "unknown", "no schedule", "schedule of numbers"],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PyTorchProfiler(**arguments)


def test_a_schedule_of_ones_own_is_taken() -> None:
    PyTorchProfiler(schedule=lambda step: ProfilerAction.NONE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_nvtx_needs_a_device(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(emit_nvtx=True)
    profiler.setup("fit", None, tmp_path)
    with pytest.raises(UnavailableError, match="emit_nvtx=True needs a CUDA device"):
        profiler.start("a")
