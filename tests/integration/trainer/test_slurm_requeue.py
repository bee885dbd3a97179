"""A fit that Slurm tells to make room: it saves, asks to be queued again, and the next start finds the file by itself."""

import json
import signal
import stat
from pathlib import Path

from leyden.fabric.checkpoint import read
from tests.support.launchers import slurm
from tests.support.processes import running_script

SCRIPT = """
import json, os, sys
from pathlib import Path
from leyden.trainer import Callback
from tests.support.lines import Line, points, quiet_trainer, weights_of

class Telling(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 20:
            print("running", flush=True)

if __name__ == "__main__":
    root, total = Path(sys.argv[1]), int(sys.argv[2])
    trainer = quiet_trainer(root, max_epochs=-1, max_steps=total, callbacks=[Telling()], enable_checkpointing=False)
    module = Line()
    trainer.fit(module, points(shuffle=True), points(4))
    print(json.dumps([trainer.ckpt_path, trainer.global_step, weights_of(module)]))
"""


def environ(folder: Path, code: int = 0) -> dict[str, str]:
    """Return the variables of a job with one task, and a `scontrol` that writes down what it is asked."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    scontrol = tools / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexit {code}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    return slurm(0, world_size=1, per_node=1, SLURM_JOB_ID="4321", SLURM_NODELIST="127.0.0.1", PATH=f"{tools}:/usr/bin:/bin")


def requests(folder: Path) -> int:
    """Return how often `scontrol` was asked to queue the job again: a request is written after the checkpoint it follows."""
    asked = folder / "asked"
    return asked.read_text().count("requeue") if asked.exists() else 0


def test_sigusr1_saves_and_queues_the_job_again_which_then_goes_on(tmp_path: Path) -> None:
    with running_script(SCRIPT, args=[str(tmp_path), "-1"], env=environ(tmp_path)) as script:
        script.wait_for_output("running")
        script.send(signal.SIGTERM)  # Slurm may send it first: it is bypassed where the job will be queued again
        script.send(signal.SIGUSR1)
        script.wait_for(lambda: requests(tmp_path) == 1, "the job is queued again")
        kept = read(tmp_path / "hpc_ckpt_1.ckpt")["global_step"]
        script.send(signal.SIGKILL)
        script.wait()
    assert (tmp_path / "asked").read_text() == "requeue 4321\n"
    assert kept >= 20
    ends = []
    for folder in (tmp_path, tmp_path / "unbroken"):
        folder.mkdir(exist_ok=True)
        with running_script(SCRIPT, args=[str(folder), str(kept + 5)], env=environ(folder)) as script:
            finished = script.wait()
        assert finished.code == 0, finished.stderr
        ends.append(json.loads(finished.stdout.splitlines()[-1]))
    assert ends[0][0].endswith("hpc_ckpt_1.ckpt")
    assert ends[1][0] is None
    assert ends[0][1:] == ends[1][1:]


def test_a_job_that_cannot_be_queued_again_trains_on(tmp_path: Path) -> None:
    with running_script(SCRIPT, args=[str(tmp_path), "100000"], env=environ(tmp_path, code=1)) as script:
        script.wait_for_output("running")
        for number in (1, 2):
            script.send(signal.SIGUSR1)
            script.wait_for((tmp_path / f"hpc_ckpt_{number}.ckpt").exists, "a checkpoint")
            script.wait_for(lambda number=number: requests(tmp_path) == number, "Slurm is asked")
        assert script.process.poll() is None
