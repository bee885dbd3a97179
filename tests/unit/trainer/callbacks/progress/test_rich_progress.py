"""What `RichProgressBar` draws on a terminal, and that it writes lines where there is none."""

import io
import pickle
import re
from typing import Any

import pytest
from rich.progress import TextColumn

from leyden.trainer.callbacks.progress.rich_progress import RichProgressBar
from leyden.trainer.callbacks.progress.rich_theme import RichProgressBarTheme
from tests.support.fake_clock import FakeClock
from tests.support.shown_run import ShownRun

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(bar_class: type[RichProgressBar] = RichProgressBar, width: int = 120, **arguments: Any) -> tuple[ShownRun, io.StringIO]:
    clock, stream = FakeClock(), io.StringIO()
    console = {"file": stream, "force_terminal": True, "width": width, "legacy_windows": False, "_environ": {"TERM": "xterm-256color"}}
    bar = bar_class(console_kwargs=console, clock=clock, **arguments)
    return ShownRun(bar, clock), stream


def last_drawing(stream: io.StringIO) -> list[str]:
    """Return the visible lines of everything that was drawn, the last first."""
    lines = [CONTROL.sub("", line).strip() for line in re.split(r"[\r\n]+", stream.getvalue())]
    return [line for line in reversed(lines) if line]


def test_an_epoch_shows_count_speed_and_metrics() -> None:
    run, stream = on_terminal()
    run.fit(epochs=1)
    assert re.fullmatch(r"Epoch 0/1 ━+ 10/10 0:00:10 • 0:00:00 1.0 it/s v_num=3 loss=0.100", last_drawing(stream)[0])


def test_validation_stands_below_training_and_goes() -> None:
    run, stream = on_terminal()
    run.fit(epochs=1)
    assert any(line.startswith("Validation ") for line in last_drawing(stream))
    assert "Validation" not in last_drawing(stream)[0]


def test_finished_epochs_stay_if_asked() -> None:
    run, stream = on_terminal(leave=True)
    run.fit(epochs=2)
    printed = CONTROL.sub("", stream.getvalue())
    assert re.search(r"Epoch 0/1 ━+ 10/10[^\n]*loss=0.100 *\n", printed)


def test_each_loader_of_a_test_stays() -> None:
    run, stream = on_terminal()
    run.trainer.num_test_batches = [2, 3]
    run.entry("test", "test")
    printed = CONTROL.sub("", stream.getvalue())
    assert re.search(r"Testing DataLoader 0 ━+ 2/2", printed)
    assert "Testing DataLoader 1" in last_drawing(stream)[0]


def test_printed_brackets_are_no_markup() -> None:
    run, stream = on_terminal()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.bar.print("[rank 0] loss", [1, 2])
    assert "[rank 0] loss [1, 2]" in CONTROL.sub("", stream.getvalue())


def test_the_cursor_comes_back_after_a_failure() -> None:
    run, stream = on_terminal()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(last=3)
    run.hook("on_exception", KeyboardInterrupt())
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_the_theme_sets_format_and_delimiter() -> None:
    run, stream = on_terminal(theme=RichProgressBarTheme(metrics_format=".1e", metrics_text_delimiter=" | "))
    run.fit(epochs=1)
    assert "v_num=3 | loss=1.0e-01" in last_drawing(stream)[0]


def test_columns_can_be_overridden() -> None:
    class Short(RichProgressBar):
        def configure_columns(self, trainer: Any) -> list[Any]:
            return [TextColumn("{task.completed} done")]

    run, stream = on_terminal(Short)
    run.fit(epochs=1)
    assert last_drawing(stream)[0] == "10 done"


def test_metrics_can_be_overridden() -> None:
    class Quiet(RichProgressBar):
        def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
            items = super().get_metrics(trainer, pl_module)
            items.pop("v_num", None)
            return items

    run, stream = on_terminal(Quiet)
    run.fit(epochs=1)
    assert last_drawing(stream)[0].endswith("it/s loss=0.100")


def test_a_pipe_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    ShownRun(RichProgressBar(clock=clock), clock).fit()
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "Epoch 1/1: 100% 10/10, 1.4 s/it, v_num=3, loss=0.100"
    assert "\x1b" not in out


def test_a_notebook_draws() -> None:
    clock, stream = FakeClock(), io.StringIO()
    bar = RichProgressBar(console_kwargs={"force_jupyter": True, "file": stream}, clock=clock)
    bar._trainer = ShownRun(bar).trainer
    assert type(bar._make_screen()).__name__ == "RichScreen"


def test_a_dumb_terminal_gets_lines() -> None:
    bar = RichProgressBar(console_kwargs={"force_terminal": True, "_environ": {"TERM": "dumb"}})
    assert type(bar._make_screen()).__name__ == "PlainScreen"


def test_a_bar_that_has_run_is_pickled() -> None:
    run, _ = on_terminal()
    run.fit(epochs=1)
    run.bar._console_kwargs = {}
    run.bar._trainer = None
    assert pickle.loads(pickle.dumps(run.bar)).theme == RichProgressBarTheme()
