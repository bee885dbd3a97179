"""The script launcher with real processes: ranks meet, and whoever dies takes the others along, with the right cause."""

import signal

import pytest

from tests.support.processes import running_script

# A script as a user has it: two ranks (the launcher's parent is rank 0), a group, and what each test adds in `work`.
_HEAD = """
import os, signal, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from leyden.fabric import collectives
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.launch.children import on_death
from leyden.fabric.launch.group import join_group
from leyden.fabric.launch.script import ScriptLauncher

environment = LightningEnvironment()
launcher = ScriptLauncher(environment, num_processes=int(os.environ.get("RANKS", "2")))
timeout = timedelta(seconds=float(os.environ.get("TIMEOUT", "60")))

def join():
    rank = environment.local_rank()
    return join_group(environment, backend="gloo", timeout=timeout, store=launcher.store, rank=rank, world_size=launcher.num_processes)

group = launcher.launch(join)
rank = group.rank
print(f"rank {rank} joined", flush=True)
on_death(lambda: print(f"rank {rank} flushed", flush=True))
def hang():
    dist.barrier()
dist.barrier()
"""


def _script(work: str) -> str:
    return _HEAD + work


def test_ranks_meet_and_leave_in_order() -> None:
    work = """
tensor = torch.tensor([rank + 1.0])
collectives.all_reduce(tensor, reduce_op="sum")
print(f"rank {rank} has {tensor.item()}", sys.argv[1:], flush=True)
group.close()
"""
    with running_script(_script(work), args=["--lr", "3"]) as script:
        finished = script.wait()
        script.wait_until_gone()

    assert finished.code == 0, finished.stderr
    assert "rank 0 has 3.0 ['--lr', '3']" in finished.stdout
    assert "rank 1 has 3.0 ['--lr', '3']" in finished.stdout
    assert "Traceback" not in finished.stderr


def test_a_raising_rank_ends_all_and_its_traceback_is_shown_once() -> None:
    work = """
if rank == 1:
    raise ValueError("rank one is unhappy")
hang()
"""
    with running_script(_script(work), env={"RANKS": "3"}) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert finished.stderr.count('raise ValueError("rank one is unhappy")') == 1
    assert "rank 1 (pid" in finished.stderr
    assert "RankFailedError: rank 1" in finished.stderr


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("sys.exit(3)", 3, "failed with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL (exit code 137)"),
    ],
)
def test_the_exit_status_is_that_of_the_rank_that_died(how: str, code: int, told: str) -> None:
    with running_script(_script(f"if rank == 1: {how}\nhang()")) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == code
    assert told in finished.stderr


def test_the_parents_own_error_is_its_own_and_ends_the_children() -> None:
    with running_script(_script('if rank == 0: raise KeyError("mine")\nhang()')) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert "KeyError: 'mine'" in finished.stderr
    assert "RankFailedError" not in finished.stderr
    assert "rank 1 flushed" in finished.stdout


def test_children_go_with_a_parent_that_is_killed() -> None:
    with running_script(_script("while True: time.sleep(1)")) as script:
        script.wait_for_output("joined", 2)
        script.send(signal.SIGKILL)
        script.wait()
        script.wait_until_gone(5.0)


def test_children_that_still_start_go_with_a_parent_that_is_killed() -> None:
    source = "print('starting', flush=True)\nimport time, os\nif 'LOCAL_RANK' in os.environ: time.sleep(60)\n"
    with running_script(source + _script("hang()")) as script:
        script.wait_for_output("starting", 2)
        script.send(signal.SIGKILL)
        script.wait()
        script.wait_until_gone(2.0)


def test_a_keyboard_interrupt_ends_the_children() -> None:
    with running_script(_script("print('ready', flush=True)\nwhile True: time.sleep(1)")) as script:
        script.wait_for_output("ready", 2)
        for pid in script.descendants():  # as a terminal does: the whole group
            script.send_to(pid, signal.SIGINT)
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code in (-signal.SIGINT, 130)
    assert finished.stderr.count("KeyboardInterrupt") == 1
    assert "rank 1 flushed" in finished.stdout


def test_a_rank_that_leaves_while_others_wait_is_reported_and_they_fail_at_the_timeout() -> None:
    work = """
from leyden.fabric.launch import children
children.REPORT_SECONDS = 0.5
if rank == 1:
    os._exit(0)
time.sleep(1.5)
collectives.barrier("the end", watch=group.watch)
"""
    with running_script(_script(work)) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert "left with exit code 0 0.5 s ago, but this process still run" in finished.stderr


def test_a_hang_names_the_missing_rank_and_ends_at_the_timeout() -> None:
    work = """
from leyden.fabric.launch.stall import StallWatch
short = timedelta(seconds=2)
quick = dist.new_group(timeout=short)
watch = StallWatch(group.store, rank, 2, short)
if rank == 1:
    time.sleep(600)
collectives.barrier("before evaluation", group=quick, watch=watch)
"""
    with running_script(_script(work)) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert "barrier 'before evaluation' has waited 1 s on rank 0. Missing: rank 1 (in none yet)." in finished.stderr
    assert "StateError: barrier 'before evaluation' timed out on rank 0" in finished.stderr


def test_a_stuck_main_thread_does_not_keep_the_run_alive() -> None:
    work = """
from leyden.fabric.launch import children
children.NOTICE_SECONDS = 0.5
if rank == 1:
    raise ValueError("rank one is unhappy")
while True:
    time.sleep(0.1)
"""
    with running_script(_script(work)) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert finished.stderr.count('raise ValueError("rank one is unhappy")') == 1
    assert "rank 0 flushed" in finished.stdout
