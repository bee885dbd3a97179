"""Runs that really stand still: the report in the log, and the end of a process that asked for it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.ranks import ROOT, run_ranks

SCRIPT = """
import logging, sys, threading
import torch
from leyden.core import log
from leyden.trainer import Trainer
from leyden.trainer.callbacks import HangWatchdog
from leyden.trainer.demos.boring_classes import BoringModel

class Hanging(BoringModel):
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            threading.Event().wait({seconds})
        return super().training_step(batch, batch_idx)

def main():
    log.configure("warning")
    quiet = dict(logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, **quiet).fit(BoringModel())  # so that all is imported
    dog = HangWatchdog(timeout_seconds=3.0, action={action!r})
    Trainer(max_epochs=1, limit_train_batches=4, limit_val_batches=0, callbacks=dog, **quiet).fit(Hanging())
    print("done")

if __name__ == "__main__":
    main()
"""


def run(folder: Path, action: str, seconds: float) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(action=action, seconds=seconds))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_abort_ends_the_process_with_its_status_and_every_stack(tmp_path: Path) -> None:
    ended = run(tmp_path, "abort", 90)
    assert ended.returncode == 70, ended.stderr
    assert "no batch began or ended for 3 s" in ended.stderr
    assert "last seen in on_train_batch_start of batch 2" in ended.stderr
    assert "in training_step" in ended.stderr


def test_dump_reports_and_lets_the_run_go_on(tmp_path: Path) -> None:
    ended = run(tmp_path, "dump", 7)
    assert ended.returncode == 0, ended.stderr
    assert "in training_step" in ended.stderr
    assert "done" in ended.stdout


def one_rank_is_late(marker: str) -> str:
    """Rank 1 does not come to the second batch until rank 0 has reported."""
    import logging
    import threading

    from torch import distributed as dist

    from leyden.trainer import Trainer
    from leyden.trainer.callbacks import HangWatchdog
    from leyden.trainer.demos.boring_classes import BoringModel

    reported, told = threading.Event(), []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            Path(marker).touch()
            reported.set()

    if dist.get_rank() == 0:
        logging.getLogger("leyden.fabric.launch.lifeline").addHandler(Told())

    class Late(BoringModel):
        def training_step(self, batch: object, batch_idx: int) -> object:
            if batch_idx == 1 and self.global_rank == 1:
                moment = threading.Event()
                for _ in range(300):
                    if Path(marker).exists():
                        break
                    moment.wait(0.1)
            return super().training_step(batch, batch_idx)

    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=3,
        limit_val_batches=0,
        callbacks=HangWatchdog(timeout_seconds=2.0),
        logger=False,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Late())
    return "\n".join(told)


def test_the_report_of_one_rank_names_where_the_others_are(tmp_path: Path) -> None:
    first, _ = run_ranks(one_rank_is_late, 2, args=[str(tmp_path / "reported")])
    assert "rank 0: last seen in on_train_batch" in first
    assert "rank 1: last seen in on_train_batch" in first
