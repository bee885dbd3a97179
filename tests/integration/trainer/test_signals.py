"""Signals that are really sent: where they find a fit, what is kept, how it ends, and that nothing is left."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from leyden.fabric.checkpoint import read
from leyden.fabric.launch.agreement import Agreement, Operation
from leyden.trainer.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.stop import Interrupted, SIGTERMException
from tests.support.lines import Line, points, quiet_trainer
from tests.support.processes import running_script
from tests.support.ranks import run_ranks
from tests.support.training_script import written

PLACES = (
    "on_fit_start", "on_sanity_check_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_before_backward",
    "on_train_batch_end", "on_validation_start", "on_validation_batch_end", "on_validation_epoch_end", "on_train_epoch_end",
    "on_save_checkpoint", "on_train_end",
)  # fmt: skip
BEFORE_TRAINING = ("on_fit_start", "on_sanity_check_start", "on_train_start")


class Signalling(Callback):
    """Sends a signal to its own process in one hook, once, on one rank; and notes what callbacks hear of the end."""

    def __init__(self, place: str, number: int, rank: int = 0) -> None:
        self.number, self.rank = number, rank
        self.is_sent = False
        self.heard: list[str] = []
        setattr(self, place, self._send)

    def _send(self, trainer: Any, *args: Any) -> None:
        if not self.is_sent and trainer.global_rank == self.rank and trainer.global_step >= 1:
            self.is_sent = True
            os.kill(os.getpid(), self.number)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.heard.append(type(exception).__name__)


class Early(Signalling):
    """The same before the first step."""

    def _send(self, trainer: Any, *args: Any) -> None:
        if not self.is_sent:
            self.is_sent = True
            os.kill(os.getpid(), self.number)


def sent(place: str, number: int) -> Signalling:
    return (Early if place in BEFORE_TRAINING else Signalling)(place, number)


@pytest.mark.parametrize("place", [place for place in PLACES if place not in ("on_fit_start", "on_train_end")])
def test_sigterm_ends_a_fit_after_the_batch_in_which_it_came(tmp_path: Path, place: str) -> None:
    signalling = sent(place, signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    trainer = quiet_trainer(tmp_path, callbacks=[signalling, ModelCheckpoint(tmp_path / "c", every_n_train_steps=1, save_last=True)])
    with pytest.raises(SIGTERMException) as raised:
        trainer.fit(Line(), points(), points(4))
    assert raised.value.code == 143
    assert signalling.heard == ["SIGTERMException"]
    assert trainer.received_sigterm
    assert trainer.interrupted
    assert signal.getsignal(signal.SIGTERM) == before
    assert trainer.global_step <= 9  # of sixteen
    kept = [read(path)["global_step"] for path in (tmp_path / "c").glob("*.ckpt")]
    assert not kept or max(kept) == trainer.global_step
    assert not list((tmp_path / "c").glob("*.tmp-*"))


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_a_fit_at_once_wherever_it_is(tmp_path: Path, place: str) -> None:
    signalling = sent(place, signal.SIGINT)
    crash = OnExceptionCheckpoint(tmp_path / "crash")
    trainer = quiet_trainer(tmp_path, callbacks=[signalling, crash, ModelCheckpoint(tmp_path / "c")])
    with pytest.raises(KeyboardInterrupt) as raised:
        trainer.fit(Line(), points(), points(4))
    assert isinstance(raised.value, Interrupted)
    assert isinstance(raised.value, SystemExit)
    assert raised.value.code == 130
    assert signalling.heard == ["Interrupted"]
    assert trainer.interrupted
    assert (tmp_path / "crash" / "on_exception.ckpt").exists() == (place not in BEFORE_TRAINING)


def test_ctrl_c_ends_validation_and_prediction_too(tmp_path: Path) -> None:
    for name in ("validate", "predict"):
        callback = Early(f"on_{'validation' if name == 'validate' else name}_batch_end", signal.SIGINT)
        trainer = quiet_trainer(tmp_path, callbacks=[callback])
        with pytest.raises(Interrupted):
            getattr(trainer, name)(Line(), points())
        assert callback.heard == ["Interrupted"]


def test_sigterm_ends_an_evaluation_after_its_batch(tmp_path: Path) -> None:
    for name in ("validate", "test", "predict"):
        callback = Early(f"on_{'validation' if name == 'validate' else name}_batch_start", signal.SIGTERM)
        module = Line()
        with pytest.raises(SIGTERMException):
            getattr(quiet_trainer(tmp_path, callbacks=[callback]), name)(module, points())
        assert len(next(iter(module.samples.values()), [0, 1])) == 2


# -- two ranks ----------------------------------------------------------------------------------------------------


def terminated(root: Path) -> list[Any]:
    """On one of two ranks a signal comes, in the step, in validation, in a save; both end after the same batch."""
    found = []
    for number, place in enumerate(("on_before_backward", "on_validation_batch_end", "on_save_checkpoint", "on_train_epoch_end")):
        for rank in (0, 1):
            folder = root / f"{number}-{rank}"
            signalling = Signalling(place, signal.SIGTERM, rank)
            callbacks = [signalling, ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)]
            trainer = quiet_trainer(root, strategy="ddp", devices=2, max_epochs=-1, callbacks=callbacks)
            with pytest.raises(SIGTERMException):
                trainer.fit(Line(), points(), points(4))
            found.append((trainer.global_step, signalling.heard, len(list(folder.glob("*.ckpt")))))
    return found


def test_sigterm_to_one_of_two_ranks_ends_both_after_the_same_batch(tmp_path: Path) -> None:
    first, second = run_ranks(terminated, 2, args=(tmp_path,), timeout=100)
    assert first == second
    for step, heard, kept in first:
        assert heard == ["SIGTERMException"]
        assert kept == step


def told_late(root: Path) -> int:
    """Rank 0 learns at once at which batch all stop; rank 1 only when rank 0 would be long gone."""
    if dist.get_rank() == 1:
        perform = Agreement._perform

        def late(agreement: Agreement, operation: Operation) -> Any:
            if operation.name == "check" and operation.keys[-1].startswith("p/"):
                time.sleep(4)
            return perform(agreement, operation)

        Agreement._perform = late
    trainer = quiet_trainer(root, strategy="ddp", devices=2, max_epochs=-1, callbacks=[Signalling("on_train_batch_end", signal.SIGTERM)])
    with pytest.raises(SIGTERMException):
        trainer.fit(Line(), points())
    return trainer.global_step


def test_rank_0_does_not_leave_before_the_others_know_at_which_batch_they_stop(tmp_path: Path) -> None:
    first, second = run_ranks(told_late, 2, args=(tmp_path,))
    assert first == second


# Every rank says that it runs; then the test does something to one of them.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from leyden.trainer import Callback
from tests.support.lines import Line, points, quiet_trainer

class Telling(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 20:
            Path(f"pid-{trainer.global_rank}").write_text(str(os.getpid()))
            print("running", flush=True)
        if trainer.global_step == 40 and trainer.global_rank == int(os.environ.get("RAISES", -1)):
            raise RuntimeError("this rank fails")

    def on_exception(self, trainer, module, exception):
        Path(f"ended-{trainer.global_rank}").write_text(json.dumps([trainer.global_step, type(exception).__name__]))

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    trainer = quiet_trainer(Path.cwd(), max_epochs=-1, callbacks=[Telling()], enable_checkpointing=False, **options)
    trainer.fit(Line(), points(num_workers=int(os.environ.get("WORKERS", 0)), persistent_workers="WORKERS" in os.environ), points(4))
"""


def two(strategy: str) -> list[str]:
    return [json.dumps({"strategy": strategy, "devices": 2})]


def pid_of(script: Any, rank: int) -> int:
    return int((script.folder / f"pid-{rank}").read_text())


@pytest.mark.parametrize(
    ("strategy", "told"), [("ddp", "other"), pytest.param("ddp_fork", "main", marks=pytest.mark.long), ("ddp_spawn", "main")]
)
def test_after_sigterm_all_ranks_end_with_143_and_nothing_is_left(strategy: str, told: str) -> None:
    with running_script(SCRIPT, args=two(strategy)) as script:
        script.wait_for_output("running", 2)
        script.send_to(script.process.pid if told == "main" else pid_of(script, 1), signal.SIGTERM)
        finished = script.wait()
        script.wait_until_gone()
        ended = [json.loads(text) for text in written(script.folder, "ended")]
    assert finished.code == 143, finished.stderr
    assert ended[0] == ended[1]
    assert ended[0][1] == "SIGTERMException"
    assert "Traceback" not in finished.stderr


def test_sigterm_to_all_processes_ends_a_fit_whose_workers_die_of_it() -> None:
    with running_script(SCRIPT, args=[json.dumps({})], env={"WORKERS": "1"}) as script:
        script.wait_for_output("running")
        for pid in script.descendants():
            script.send_to(pid, signal.SIGTERM)
        finished = script.wait()
        script.wait_until_gone()
        assert json.loads((script.folder / "ended-0").read_text())[1] == "SIGTERMException"
    assert finished.code == 143, finished.stderr


def test_ctrl_c_ends_all_ranks_with_130() -> None:
    with running_script(SCRIPT, args=two("ddp_fork")) as script:
        script.wait_for_output("running", 2)
        for pid in script.descendants():  # as a terminal does: the whole group
            script.send_to(pid, signal.SIGINT)
        finished = script.wait()
        script.wait_until_gone()
    assert finished.code in (130, -signal.SIGINT), finished.stderr
    assert "RankFailedError" not in finished.stderr


def test_a_second_sigterm_ends_a_process_that_does_not_come_to_its_next_batch() -> None:
    source = SCRIPT.replace('print("running", flush=True)', 'print("running", flush=True); [os.sched_yield() for _ in iter(int, 1)]')
    with running_script(source, args=[json.dumps({})]) as script:
        script.wait_for_output("running")
        script.send(signal.SIGTERM)
        script.send(signal.SIGTERM)
        while script.process.poll() is None:
            script.send(signal.SIGTERM)
        assert script.wait().code == 143


@pytest.mark.parametrize(("strategy", "rank"), [("ddp", 0), ("ddp_fork", 1)])
def test_a_rank_that_raises_ends_the_others_and_shows_its_error(strategy: str, rank: int) -> None:
    with running_script(SCRIPT, args=two(strategy), env={"RAISES": str(rank)}) as script:
        finished = script.wait()
        script.wait_until_gone()
    assert finished.code == 1
    assert finished.stderr.count("RuntimeError: this rank fails") >= 1


def test_a_killed_rank_takes_the_others_with_it() -> None:
    with running_script(SCRIPT, args=two("ddp_fork")) as script:
        script.wait_for_output("running", 2)
        script.send_to(pid_of(script, 0), signal.SIGKILL)
        finished = script.wait()
        script.wait_until_gone()
    assert finished.code not in (0, 143)
    assert "rank 0" in finished.stderr
