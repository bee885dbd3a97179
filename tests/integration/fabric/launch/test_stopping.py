"""Stopping two real ranks: the signal reaches one of them, both leave at the same step with the signal's exit status."""

import re
import signal

import pytest

from tests.support.processes import running_script

_SCRIPT = """
import os, sys, time
from datetime import timedelta
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.launch.group import join_group
from leyden.fabric.launch.script import ScriptLauncher
from leyden.fabric.launch.signals import StopRequests

environment = LightningEnvironment()
launcher = ScriptLauncher(environment, num_processes=2)

def join():
    rank = environment.local_rank()
    return join_group(environment, backend="gloo", timeout=timedelta(seconds=60), store=launcher.store, rank=rank, world_size=2)

group = launcher.launch(join)
stops = StopRequests(group.store, group.rank, 2)
group.own(stops)
print("ready", os.getpid(), "rank", group.rank, flush=True)
step = 0
while True:
    time.sleep(0.002 * (1 + group.rank))  # the ranks are not at the same step when the signal comes
    step += 1
    if stop := stops.boundary():
        print(f"rank {group.rank} stops at step {step}: {stop.reason}", flush=True)
        raise SystemExit(stop.exit_code)
"""


@pytest.mark.parametrize("who", [0, 1])
def test_both_ranks_stop_at_one_step(who: int) -> None:
    with running_script(_SCRIPT) as script:
        script.wait_for_output("ready", 2)
        pids = {int(rank): int(pid) for pid, rank in re.findall(r"ready (\d+) rank (\d)", script.stdout)}
        script.send_to(pids[who], signal.SIGTERM)
        finished = script.wait()
        script.wait_until_gone()

    steps = dict(re.findall(r"rank (\d) stops at step (\d+): SIGTERM", finished.stdout))
    assert finished.code == 128 + signal.SIGTERM, finished.stderr
    assert set(steps) == {"0", "1"}
    assert steps["0"] == steps["1"]
    assert finished.stderr == ""
