"""Processes that die, by `kill -9` inside a save or by SIGTERM, and others that go on: all end where the unbroken one does."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Finished, running_script

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, signal, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
from leyden.trainer.callbacks import OnExceptionCheckpoint
from leyden.trainer.core.callback import Callback
from tests.support.resumed_fit import Attempt, Net, averaged, ending, plain, scramble


class Terminated(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 7:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    root, ckpt_path, seed, how, workers = Path(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    scramble(seed)
    extra = [OnExceptionCheckpoint(root)] if how == "term" else []
    attempt = Attempt(root, lambda: plain(workers), Net, lambda: [*averaged(), *extra])
    trainer = attempt.fit(*([Terminated()] if how == "term" and ckpt_path is None else []), ckpt_path=ckpt_path)
    end = ending(trainer, attempt)
    tensors = {name: value.tolist() for name, value in end["weights"].items()}
    metrics = {name: float(value) for name, value in end["metrics"].items()}
    print(json.dumps({"weights": tensors, "metrics": metrics, "random": [end["random"][0].tolist(), *end["random"][1:]],
                      "optimizers": repr(end["optimizers"]), "step": trainer.global_step}))
"""


def run(root: Path, *, ckpt_path: str = "", seed: int = 1, how: str = "", workers: int = 0, failpoint: str = "") -> Finished:
    root.mkdir(exist_ok=True)
    env = {"LEYDEN_FAILPOINT": failpoint} if failpoint else {}
    with running_script(SCRIPT, args=[str(root), ckpt_path, str(seed), how, str(workers)], env=env) as script:
        return script.wait()


def end_of(finished: Finished) -> dict[str, Any]:
    assert finished.code == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return end_of(run(tmp_path_factory.mktemp("unbroken") / "root"))


@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param("checkpoint.before_write:4", marks=pytest.mark.long),
        "publish.written:6",  # complete beside its place: the rename is next
        pytest.param("checkpoint.before_remove:1", marks=pytest.mark.long),
    ],
)
def test_a_killed_save_costs_nothing_but_time(tmp_path: Path, unbroken: dict[str, Any], failpoint: str) -> None:
    assert run(tmp_path, failpoint=f"{failpoint}=kill").code == -signal.SIGKILL
    assert end_of(run(tmp_path, ckpt_path="last", seed=2)) == unbroken


def test_a_terminated_run_goes_on_at_the_next_batch(tmp_path: Path, unbroken: dict[str, Any]) -> None:
    assert run(tmp_path, how="term").code == 128 + signal.SIGTERM
    assert (tmp_path / "on_exception.ckpt").exists()
    assert end_of(run(tmp_path, ckpt_path="last", seed=2, how="term")) == unbroken


def test_workers_of_another_process_go_on_too(tmp_path: Path) -> None:
    whole = end_of(run(tmp_path / "whole", workers=2))
    assert run(tmp_path / "cut", workers=2, failpoint="checkpoint.before_remove:1=kill").code == -signal.SIGKILL
    assert end_of(run(tmp_path / "cut", workers=2, ckpt_path="last", seed=2)) == whole
