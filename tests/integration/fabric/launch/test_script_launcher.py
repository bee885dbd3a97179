"""What only the script launcher shows, with real processes. Ranks that raise, hang, are killed or interrupted: test_faults, test_stop."""

import signal

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


def test_the_exit_status_is_that_of_the_rank_that_left() -> None:
    with running_script(_script("if rank == 1: sys.exit(3)\nhang()"), env={"RANKS": "3"}) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 3
    assert "RankFailedError: rank 1" in finished.stderr
    assert "failed with exit code 3" in finished.stderr


def test_the_parents_own_error_is_its_own_and_ends_the_children() -> None:
    with running_script(_script('if rank == 0: raise KeyError("mine")\nhang()')) as script:
        finished = script.wait()
        script.wait_until_gone(1.0)

    assert finished.code == 1
    assert "KeyError: 'mine'" in finished.stderr
    assert "RankFailedError" not in finished.stderr
    assert "rank 1 flushed" in finished.stdout


def test_children_that_still_start_go_with_a_parent_that_is_killed() -> None:
    source = "print('starting', flush=True)\nimport time, os\nif 'LOCAL_RANK' in os.environ: time.sleep(60)\n"
    with running_script(source + _script("hang()")) as script:
        script.wait_for_output("starting", 2)
        script.send(signal.SIGKILL)
        script.wait()
        script.wait_until_gone(2.0)


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
