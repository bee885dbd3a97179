"""Progress bars in real runs: what is on the screen, in a pipe, after a failure, on two ranks, after a resume."""

import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.trainer import Trainer
from leyden.trainer.callbacks import ModelCheckpoint, PlainProgressBar, ProgressBar, RichProgressBar, TQDMProgressBar
from leyden.trainer.demos.boring_classes import BoringModel

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SCRIPT = """
import sys
from leyden.trainer import Trainer
from leyden.trainer.demos.boring_classes import BoringModel

class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("train/loss", loss, prog_bar=True)
        if batch_idx == 2:
            self.print("[step] two")
        if batch_idx == 3 and "fail" in sys.argv:
            raise KeyboardInterrupt
        return loss
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.step(batch), prog_bar=True)

if __name__ == "__main__":
    ranks = {"devices": 2, "strategy": "ddp_spawn"} if "ranks" in sys.argv else {"devices": 1}
    trainer = Trainer(max_epochs=2, limit_train_batches=5, limit_val_batches=2, accelerator="cpu", enable_checkpointing=False, logger=False,
                      default_root_dir=sys.argv[1], **ranks)
    trainer.fit(Model())
"""


class Model(BoringModel):
    """The boring model, with a loss on the bar."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.step(batch)
        self.log("loss", loss, prog_bar=True)
        return loss


def trainer_with(root: Path, *callbacks: Any, **arguments: Any) -> Trainer:
    defaults = {
        "max_epochs": 2,
        "limit_train_batches": 5,
        "limit_val_batches": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
    }
    return Trainer(default_root_dir=root, callbacks=list(callbacks), **{**defaults, **arguments})


def script(root: Path) -> list[str]:
    file = root / "train.py"
    file.write_text(SCRIPT)
    return [sys.executable, str(file), str(root)]


def environment() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", "OMP_NUM_THREADS": "1"}


def on_terminal(command: list[str]) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit status and what it wrote."""
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment()) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the last one closed its side
                break
            if not part:
                break
            written += part
        os.close(master)
        return process.wait(timeout=60), written.decode(errors="replace")


@pytest.mark.slow
def test_a_terminal_shows_the_rows_and_gets_its_cursor_back(tmp_path: Path) -> None:
    status, written = on_terminal(script(tmp_path))
    visible = ESCAPE.sub("", written)
    assert status == 0, visible
    last = [line for line in re.split(r"[\r\n]+", visible) if line.startswith("Epoch")][-1]
    assert re.match(r"Epoch 1/1 ━+ 5/5 ", last)
    assert "train/loss=" in last
    assert "val/loss=" in last
    assert "[step] two" in visible
    assert "Trainable params" in visible
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0


@pytest.mark.slow
def test_ctrl_c_gives_the_terminal_back(tmp_path: Path) -> None:
    status, written = on_terminal([*script(tmp_path), "fail"])
    assert status == 130
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [[], ["ranks"]], ids=["one rank", "two ranks"])
def test_a_pipe_gets_a_line_an_epoch_from_rank_zero(tmp_path: Path, ranks: list[str]) -> None:
    result = subprocess.run([*script(tmp_path), *ranks], capture_output=True, text=True, env=environment(), timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout
    epochs = [line for line in result.stdout.splitlines() if line.startswith("Epoch")]
    assert [line.split(",")[0] for line in epochs] == ["Epoch 0/1: 100% 5/5", "Epoch 1/1: 100% 5/5"]


def test_tqdm_bars_end_where_the_loops_end(tmp_path: Path) -> None:
    bar = TQDMProgressBar()
    trainer = trainer_with(tmp_path, bar, limit_test_batches=4, limit_predict_batches=2)
    model = Model()
    trainer.fit(model)
    assert (bar.train_progress_bar.n, bar.train_progress_bar.total) == (5, 5)
    assert (bar.val_progress_bar.n, bar.val_progress_bar.total) == (3, 3)
    trainer.validate(model, verbose=False)
    trainer.test(model, verbose=False)
    trainer.predict(model)
    assert (bar.val_progress_bar.n, bar.test_progress_bar.n, bar.predict_progress_bar.n) == (3, 4, 2)


def test_the_last_line_holds_the_metrics_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trainer_with(tmp_path, PlainProgressBar(), logger=True, log_every_n_steps=1, max_epochs=1)
    trainer.fit(Model())
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Epoch 0/0: 100% 5/5, ")
    loss = trainer.progress_bar_metrics["loss"]
    assert f"v_num=0, loss={loss:.3f}" in line or f"loss={loss:.2e}" in line


def test_printing_goes_through_the_bar(tmp_path: Path) -> None:
    printed: list[Any] = []

    class Noted(ProgressBar):
        def print(self, *args: Any, **kwargs: Any) -> None:
            printed.append((args, kwargs))

    class Talking(BoringModel):
        def on_train_start(self) -> None:
            self.print("a", 1, sep="-")
            self.trainer.print("b")

    trainer_with(tmp_path, Noted(), max_epochs=1).fit(Talking())
    assert printed == [(("a", 1), {"sep": "-"}), (("b",), {})]


def test_without_a_bar_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with(tmp_path, enable_progress_bar=False).fit(Model())
    assert capsys.readouterr().out == ""


def test_the_default_is_rich_and_one_of_ones_own_replaces_it(tmp_path: Path) -> None:
    assert type(trainer_with(tmp_path).progress_bar_callback) is RichProgressBar
    own = TQDMProgressBar()
    assert trainer_with(tmp_path, own).progress_bar_callback is own


def test_a_run_resumed_inside_an_epoch_shows_its_place(tmp_path: Path) -> None:
    def saver() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "saved", every_n_train_steps=3, save_top_k=-1)

    trainer_with(tmp_path, saver(), enable_checkpointing=True, limit_val_batches=0, max_epochs=1).fit(Model())
    counts: list[int] = []

    class Counted(TQDMProgressBar):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            counts.append(self.train_progress_bar.n)

    resumed = trainer_with(tmp_path, saver(), Counted(), enable_checkpointing=True, limit_val_batches=0, max_epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        resumed.fit(Model(), ckpt_path=tmp_path / "saved" / "epoch=0-step=3.ckpt")
    assert counts[-2:] == [4, 5]


@pytest.mark.parametrize("bar", [PlainProgressBar, RichProgressBar, TQDMProgressBar])
def test_a_bar_changes_nothing_of_the_training(tmp_path: Path, bar: type[ProgressBar]) -> None:
    weights = []
    for callbacks in ([], [bar()]):
        torch.manual_seed(1)
        model = Model()
        trainer_with(tmp_path, *callbacks, enable_progress_bar=bool(callbacks)).fit(model)
        weights.append(model.layer.weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("bar", [PlainProgressBar, RichProgressBar, TQDMProgressBar])
def test_a_bar_serves_run_after_run(tmp_path: Path, bar: type[ProgressBar]) -> None:
    shown = bar()
    for _ in range(2):
        trainer_with(tmp_path, shown, max_epochs=1).fit(Model())
