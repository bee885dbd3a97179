"""Ranks that a real Slurm starts, signals and queues again: munged, slurmctld and slurmd of this test, on this computer."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT
from tests.support.slurm import SlurmCluster, SlurmError, slurm_cluster
from tests.support.training_script import TRAINING, written

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Trains until it is told to stop; started again, thirty steps more than where it stopped. With TOTAL: as many, unbroken.
SCRIPT = (
    TRAINING
    + """
def work(fabric):
    model, loader = parts(fabric)
    checkpoints = CheckpointFolder(fabric, "checkpoints")
    state = {"model": model, "loader": loader, "step": 0}
    is_again = checkpoints.resume(state)
    total = int(os.environ.get("TOTAL", state["step"] + 30 if is_again else 10**9))
    stop = None
    while stop is None and state["step"] < total:
        for batch in loader:
            step(fabric, model, batch)
            state["step"] += 1
            if state["step"] == 20 and fabric.is_global_zero:
                Path("running").touch()
            stop = fabric.stop_requested()
            if stop is not None or state["step"] == total:
                break
    said = [state["step"], stop.reason if stop else None, fabric.world_size, os.environ.get("SLURM_RESTART_COUNT", "0")]
    weights = [parameter.tolist() for parameter in model.parameters()]
    Path(f"{'stopped' if stop else 'ended'}-{fabric.global_rank}").write_text(json.dumps([said, weights]))
    if stop is not None:
        checkpoints.save(state, state["step"], blocking=True)
        fabric.barrier("before the job is queued again")
        fabric.strategy.cluster_environment.requeue()
        raise SystemExit(stop.exit_code)

if __name__ == "__main__":
    fabric = Fabric(accelerator="cpu", strategy="ddp")
    fabric.launch()
    work(fabric)
"""
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def python(script: Path) -> list[str]:
    return ["env", "OMP_NUM_THREADS=1", f"PYTHONPATH={ROOT}", sys.executable, str(script)]


def results(folder: Path, name: str) -> list[Any]:
    return [json.loads(text) for text in written(folder, name)]


def test_tasks_that_slurm_may_place_in_any_way_are_refused(slurm: SlurmCluster, script: Path) -> None:
    with pytest.raises(SlurmError, match="Use --ntasks-per-node and --nodes instead"):
        slurm.run("srun", "-n", "2", *python(script), cwd=script.parent, env={"TOTAL": "5"})


def test_devices_that_slurm_does_not_run_are_refused(slurm: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("from leyden.fabric import Fabric\nFabric(accelerator='cpu', devices=4)\n")
    with pytest.raises(SlurmError, match="devices=4, but Slurm runs --ntasks-per-node=1"):
        slurm.run("srun", "--ntasks-per-node=1", *python(tmp_path / "script.py"), cwd=tmp_path)


def test_a_job_that_is_signalled_saves_is_queued_again_and_ends_where_the_unbroken_one_does(slurm: SlurmCluster, script: Path) -> None:
    folder = script.parent
    command = " ".join(["srun", *python(script)])
    number = slurm.submit(f"#!/bin/bash\n{command}\n", "--ntasks-per-node=2", "--requeue", "--output=output", cwd=folder)
    slurm.wait_until((folder / "running").exists, "both ranks train")
    slurm.run("scancel", "--signal=USR1", number)
    slurm.wait_until(lambda: slurm.job(number).get("Restarts") == "1", "the job is queued again")
    slurm.wait_until(lambda: slurm.job(number).get("JobState") == "PENDING", "the first attempt has ended")
    slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now")  # Slurm lets two minutes pass
    slurm.wait_until(lambda: slurm.job(number).get("JobState") == "COMPLETED", "the second attempt ends", 100.0)

    stopped, ended = results(folder, "stopped"), results(folder, "ended")
    (step, *_), _ = stopped[0]
    assert [said for said, _ in stopped] == [[step, "SIGUSR1", 2, "0"]] * 2
    assert [said for said, _ in ended] == [[step + 30, None, 2, "1"]] * 2

    whole = folder / "whole"
    whole.mkdir()
    slurm.run("srun", "--ntasks=2", "--ntasks-per-node=2", *python(script), cwd=whole, env={"TOTAL": str(step + 30)})
    assert [said for said, _ in results(whole, "ended")] == [[step + 30, None, 2, "0"]] * 2
    assert [weights for _, weights in results(whole, "ended")] == [weights for _, weights in ended]


def test_nothing_of_the_jobs_is_left(slurm: SlurmCluster) -> None:
    assert slurm.ask("squeue", "--noheader") == ""
