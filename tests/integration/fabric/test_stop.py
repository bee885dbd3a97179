"""Stopping a run of two real ranks: one agreed step, a checkpoint, the exit code, and nothing left."""

import json
import os
import signal

import pytest

from tests.support.processes import running_script
from tests.support.training_script import TRAINING, written

# Each rank signals itself now and then, so that the two are at different places when the signal reaches them.
STOPPED = (
    TRAINING
    + """
from leyden.fabric.launch.lifeline import on_death

def work(fabric):
    model, loader = parts(fabric)
    folder = CheckpointFolder(fabric, "checkpoints")
    state, stop = {"model": model, "loader": loader, "step": 0}, None
    on_death(lambda: print("flushed", flush=True))
    while stop is None:
        for batch in loader:
            step(fabric, model, batch)
            state["step"] += 1
            if state["step"] == 20:
                print("running", flush=True)
            if stop := fabric.stop_requested():
                folder.save(state, state["step"], blocking=True)
                break
    Path(f"stopped-{fabric.global_rank}").write_text(json.dumps([state["step"], stop.reason, stop.exit_code, str(folder.latest())]))
    raise SystemExit(stop.exit_code)

if __name__ == "__main__":
    Fabric(accelerator="cpu", devices=2, strategy="ddp").launch(work)
"""
)


@pytest.mark.parametrize("told", ["first", *(pytest.param(told, marks=pytest.mark.long) for told in ("other", "all"))])
def test_sigterm_stops_all_ranks_at_one_step_with_a_checkpoint(told):
    with running_script(STOPPED) as script:
        script.wait_for_output("running", 2)
        first = script.process.pid
        others = [pid for pid in script.descendants() if pid != first]
        for pid in {"first": [first], "other": others, "all": [first, *others]}[told]:
            os.kill(pid, signal.SIGTERM)
        finished = script.wait()
        script.wait_until_gone(5.0)
        ranks = [json.loads(text) for text in written(script.folder, "stopped")]
        assert [path.name for path in (script.folder / "checkpoints").glob("*.tmp-*")] == []
    assert finished.code == 143, finished.stderr
    assert len(ranks) == 2
    assert ranks[0] == ranks[1]
    step, reason, code, latest = ranks[0]
    assert (reason, code) == ("SIGTERM", 143)
    assert latest.endswith(f"step-{step:08d}")
    assert step >= 20
    assert "Traceback" not in finished.stderr


def test_an_interrupt_ends_all_ranks():
    with running_script(STOPPED) as script:
        script.wait_for_output("running", 2)
        for pid in script.descendants():  # as a terminal does: the whole group
            os.kill(pid, signal.SIGINT)
        finished = script.wait()
        script.wait_until_gone(5.0)
    assert finished.code in (-signal.SIGINT, 130)
    assert finished.stderr.count("KeyboardInterrupt") == 1
    assert "flushed" in finished.stdout
    assert "RankFailedError" not in finished.stderr


# Rank 1 has fewer steps and leaves; a signal after that can no longer be agreed on, and nobody may wait for the answer.
LEAVING = (
    TRAINING
    + """
def work(fabric):
    fabric.stop_requested()
    if fabric.global_rank == 1:
        fabric.store.set("pid", str(os.getpid()))
        return
    pid = int(fabric.store.get("pid"))
    deadline = time.monotonic() + 60
    while fabric.store.check(["done/1"]) is False and time.monotonic() < deadline:
        os.sched_yield()
    os.kill(os.getpid(), signal.SIGTERM)
    start = time.monotonic()
    while time.monotonic() - start < 1.0:  # five polls
        assert fabric.stop_requested() is None
    print("went on", flush=True)

if __name__ == "__main__":
    Fabric(accelerator="cpu", devices=2, strategy=os.environ["STRATEGY"]).launch(work)
"""
)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("ddp_fork", marks=pytest.mark.long)])
def test_nobody_waits_for_the_answer_of_a_rank_that_has_left(strategy):
    with running_script(LEAVING, env={"STRATEGY": strategy}) as script:
        finished = script.wait()
        script.wait_until_gone(5.0)
    assert "went on" in finished.stdout, finished.stderr
    assert finished.code == 0, finished.stderr
