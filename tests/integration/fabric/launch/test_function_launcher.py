"""The function launcher: quick forks from a fresh rank, and spawned scripts as users write them."""

import os
import threading
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, RankFailedError, StateError
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.launch.function import FunctionLauncher
from leyden.fabric.launch.group import Group, join_group
from tests.support.processes import running_script
from tests.support.ranks import run_ranks


def _launcher(num_processes: int = 2, **kwargs: Any) -> FunctionLauncher:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):  # what run_ranks set: here nobody has launched anything yet
        os.environ.pop(name, None)
    return FunctionLauncher(LightningEnvironment(), num_processes=num_processes, start_method="fork", **kwargs)


def _join(launcher: FunctionLauncher) -> Group:
    rank = launcher.environment.local_rank()
    return join_group(launcher.environment, backend="gloo", timeout=timedelta(seconds=30), store=launcher.store, rank=rank, world_size=2)


def _gather(launcher: FunctionLauncher, base: float, *, factor: float) -> dict[str, Any]:
    group = _join(launcher)
    tensor = torch.tensor([base * factor + group.rank])
    dist.all_reduce(tensor)
    group.close()
    return {"sum": tensor, "rank": group.rank, "environment": {name: os.environ[name] for name in ("LOCAL_RANK", "WORLD_SIZE")}}


def _fork_and_return() -> dict[str, Any]:
    launcher = _launcher()
    result: dict[str, Any] = launcher.launch(_gather, launcher, 2.0, factor=3.0)
    assert "LOCAL_RANK" not in os.environ
    assert threading.active_count() == 1
    return result


def test_every_rank_is_a_child_and_rank_zeros_result_returns() -> None:
    result = run_ranks(_fork_and_return, 1, join=False)[0]

    assert result["sum"].tolist() == [13.0]
    assert result["rank"] == 0
    assert result["environment"] == {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}


def _fork_a_closure() -> int:
    kept = 41
    return _launcher().launch(lambda: kept + 1)


def test_a_fork_runs_any_function() -> None:
    assert run_ranks(_fork_a_closure, 1, join=False) == [42]


def _raise_on_one(launcher: FunctionLauncher) -> None:
    group = _join(launcher)
    if group.rank == 1:
        raise ValueError("rank one is unhappy")
    dist.barrier()


def _fail(function: Any) -> tuple[str, str, int, int | None]:
    launcher = _launcher()
    with pytest.raises(RankFailedError) as caught:
        launcher.launch(function, launcher)
    return str(caught.value), caught.value.remote_traceback, caught.value.exit_code, caught.value.rank


def test_a_raising_rank_is_raised_with_its_traceback() -> None:
    message, trace, code, rank = run_ranks(_fail, 1, args=(_raise_on_one,), join=False)[0]

    assert message.endswith("failed with exit code 1: ValueError: rank one is unhappy")
    assert 'raise ValueError("rank one is unhappy")' in trace
    assert (code, rank) == (1, 1)


def _die_on_zero(launcher: FunctionLauncher) -> None:
    group = _join(launcher)
    if group.rank == 0:
        os.kill(os.getpid(), 9)
    dist.barrier()


def test_a_killed_rank_zero_is_named() -> None:
    message, trace, code, rank = run_ranks(_fail, 1, args=(_die_on_zero,), join=False)[0]

    assert "rank 0 (pid" in message
    assert "was killed by SIGKILL" in message
    assert (trace, code, rank) == ("", 137, 0)


def _exit_early(launcher: FunctionLauncher) -> None:
    raise SystemExit(4)


def test_an_exit_status_is_kept() -> None:
    assert run_ranks(_fail, 1, args=(_exit_early,), join=False)[0][2] == 4


def _share_nothing(launcher: FunctionLauncher, model: nn.Module) -> list[bool]:
    return [parameter.is_shared() for parameter in model.parameters()]


def _share() -> list[bool]:
    launcher = _launcher()
    model = nn.Linear(2, 2).share_memory()
    return launcher.launch(_share_nothing, launcher, model)


def test_parameters_of_arguments_are_not_shared_between_ranks() -> None:
    assert run_ranks(_share, 1, join=False) == [[False, False]]


def _in_a_rank() -> int:
    launcher = _launcher()
    os.environ["LOCAL_RANK"] = "1"
    return launcher.launch(os.getpid) - os.getpid()


def test_where_ranks_exist_the_function_runs_here() -> None:
    assert run_ranks(_in_a_rank, 1, join=False) == [0]


def test_an_unknown_start_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start_method='threads' is not accepted: it takes 'spawn', 'fork', 'forkserver'\."):
        FunctionLauncher(LightningEnvironment(environ={}), num_processes=1, start_method="threads")


def test_a_fork_after_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(StateError, match="Restart the kernel"):
        FunctionLauncher(LightningEnvironment(environ={}), num_processes=1, start_method="fork").launch(print)


def test_a_local_function_cannot_be_spawned() -> None:
    launcher = FunctionLauncher(LightningEnvironment(environ={}), num_processes=2)
    with pytest.raises(ConfigTypeError, match=r"cannot be sent to a new process.*module level"):
        launcher.launch(lambda: None)


# -- spawned scripts -----------------------------------------------------------------------------------------------

_SPAWN = """
import os, random, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.launch.function import FunctionLauncher
from leyden.fabric.launch.group import join_group

print("imported", __name__, os.environ.get("LOCAL_RANK"), flush=True)

def work(launcher, model):
    rank = launcher.environment.local_rank()
    group = join_group(launcher.environment, backend="gloo", timeout=timedelta(seconds=60), store=launcher.store, rank=rank, world_size=2)
    with torch.no_grad():
        model.weight += rank
    dist.barrier()
    value = model.weight.item()
    drawn = torch.rand(1, dtype=torch.float32).item()
    group.close()
    return {"weight": value, "drawn": drawn, "dtype": str(torch.get_default_dtype()), "python": random.random()}

def main(method):
    torch.manual_seed(5)
    random.seed(5)
    torch.set_default_dtype(torch.float64)
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    torch.manual_seed(5)
    launcher = FunctionLauncher(LightningEnvironment(), num_processes=2, start_method=method)
    result = launcher.launch(work, launcher, model)
    torch.manual_seed(5)
    assert result["weight"] == 1.0, result
    assert result["drawn"] == torch.rand(1, dtype=torch.float32).item()
    assert result["python"] == random.random()
    assert result["dtype"] == "torch.float64"
    print("done", method, flush=True)
"""


def test_spawned_ranks_know_who_they_are_and_inherit_the_random_state() -> None:
    guard = '\nif __name__ == "__main__":\n    main("spawn")\n    main("forkserver")\n'
    with running_script(_SPAWN + guard) as script:
        finished = script.wait()
        script.wait_until_gone()

    assert finished.code == 0, finished.stderr
    for words in ("done spawn", "done forkserver", "imported __mp_main__ 0", "imported __mp_main__ 1"):
        assert words in finished.stdout


def test_a_missing_guard_is_detected_and_shown() -> None:
    with running_script(_SPAWN + "\nmain('spawn')\n") as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert 'if __name__ == "__main__":' in finished.stderr
    assert "RankFailedError" in finished.stderr
