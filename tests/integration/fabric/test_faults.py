"""What goes wrong in a run of two real ranks: the cause is shown once, the exit code is its own, and nothing is left behind."""

import os
import re
import signal

import pytest

from tests.support.processes import running_script
from tests.support.training_script import TRAINING

# `FAULT` happens on rank 1 (rank 0 is the process that was started).
BROKEN = (
    TRAINING
    + """
fabric = Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(timeout=timedelta(seconds=float(os.environ.get("TIMEOUT", "60")))))
if os.environ["FAULT"] == "before launch" and os.environ.get("LOCAL_RANK") == "1":
    raise ValueError("rank one cannot read its data")
fabric.launch()
model, loader = parts(fabric)
fabric.barrier("start")
print(f"pid {fabric.global_rank} {os.getpid()}", flush=True)
number = 0
while True:
    for batch in loader:
        number += 1
        if number == 5 and fabric.global_rank == 1:
            if os.environ["FAULT"] == "raise":
                raise ValueError("rank one is unhappy")
            if os.environ["FAULT"] == "hang":
                threading.Event().wait()
        if number == 5 and os.environ["FAULT"] == "hang":
            fabric.barrier("before evaluation")
        step(fabric, model, batch)
"""
)


@pytest.mark.parametrize(("fault", "text"), [("raise", "rank one is unhappy"), ("before launch", "rank one cannot read its data")])
def test_a_rank_that_raises_ends_the_run_and_its_traceback_is_shown_once(fault, text):
    with running_script(BROKEN, env={"FAULT": fault}) as script:
        finished = script.wait()
        script.wait_until_gone(5.0)
    assert finished.code == 1
    assert finished.stderr.count(f'raise ValueError("{text}")') == 1, finished.stderr
    assert re.search(rf"rank 1 \(pid \d+\) failed with exit code 1: ValueError: {text}", finished.stderr)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_rank_takes_the_others_along(victim):
    with running_script(BROKEN, env={"FAULT": "none"}) as script:
        script.wait_for_output("pid", 2)
        os.kill(int(re.findall(rf"pid {victim} (\d+)", script.stdout)[0]), signal.SIGKILL)
        finished = script.wait()
        script.wait_until_gone(5.0)
    if victim == 0:
        assert finished.code == -signal.SIGKILL
    else:
        assert finished.code == 137
        assert "was killed by SIGKILL (exit code 137)" in finished.stderr


def test_a_hang_names_the_barrier_and_the_missing_rank():
    with running_script(BROKEN, env={"FAULT": "hang", "TIMEOUT": "20"}) as script:
        finished = script.wait()
        script.wait_until_gone(5.0)
    assert finished.code == 1
    assert re.search(r"barrier 'before evaluation' has waited 10 s on rank 0. Missing: rank 1", finished.stderr), finished.stderr
    assert "StateError: barrier 'before evaluation' timed out on rank 0" in finished.stderr
