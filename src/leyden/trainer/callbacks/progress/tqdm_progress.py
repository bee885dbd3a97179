"""`TQDMProgressBar`: one tqdm bar a stage, made by methods that can be overridden.

A bar's count moves every `refresh_rate` batches; the screen follows at most ten times a second.
"""

import sys
from collections.abc import Mapping
from typing import Any, final

from leyden.core.clock import Clock
from leyden.core.errors import ConfigTypeError
from leyden.core.optional import require
from leyden.trainer.callbacks.progress.staged_progress import Screen, Stage, StagedProgressBar

_PAD = 5  # so that 0.1 and 0.1234 take the same room, and the bar does not jump

_tqdm: Any = require("tqdm.auto", purpose="TQDMProgressBar", package="tqdm").tqdm


class Tqdm(_tqdm):
    """A tqdm bar whose numbers keep their width, and that draws itself only when it is told to.

    Args:
        args: What `tqdm` takes.
        is_held: Whether making it draws nothing.
        kwargs: What `tqdm` takes.
    """

    is_held: bool = False
    has_drawn: bool = False

    def __init__(self, *args: Any, is_held: bool = False, **kwargs: Any) -> None:
        self.is_held = is_held
        super().__init__(*args, **kwargs)
        self.is_held = False

    def display(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_held:
            return False
        self.has_drawn = True
        return super().display(*args, **kwargs)

    def close(self) -> None:
        self.is_held = not self.leave and not self.has_drawn  # nothing to wipe out
        super().close()

    @staticmethod
    def format_num(n: int | float | str) -> str:
        """Return `n` with zeros up to five characters, unless it is an integer, a word or has an exponent."""
        text = n if isinstance(n, str) else _tqdm.format_num(n)
        if isinstance(n, int) or "e" in text or not _is_number(text):
            return text
        if "." not in text and len(text) < _PAD:
            text += "."
        return text.ljust(_PAD, "0") if "." in text else text


class TQDMProgressBar(StagedProgressBar):
    """A progress bar drawn with tqdm.

    Args:
        refresh_rate: After how many batches the bar moves; 0 shows nothing. It never draws more than ten times a second.
        process_position: How many lines of the terminal to leave above, for several runs at once.
        leave: Whether the bar of each finished epoch stays.
        clock: What tells the time.

    Raises:
        MissingDependencyError: At the import of this module, if tqdm is not installed.

    Example:
        ```python
        class Bar(TQDMProgressBar):
            def init_validation_tqdm(self):
                bar = super().init_validation_tqdm()
                bar.set_description("running validation")
                return bar
        ```
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"

    def __init__(
        self,
        refresh_rate: int = 1,
        process_position: int = 0,
        leave: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(refresh_rate, clock=clock)
        self._process_position = process_position
        self._leave = leave
        self._bars: dict[str, Any] = {}

    @property
    def process_position(self) -> int:
        """How many lines of the terminal to leave above."""
        return self._process_position

    @property
    def train_progress_bar(self) -> Any:
        """The bar of training."""
        return self._bar("train")

    @train_progress_bar.setter
    def train_progress_bar(self, bar: Any) -> None:
        self._bars["train"] = bar

    @property
    def val_progress_bar(self) -> Any:
        """The bar of validation, and of the sanity check."""
        return self._bar("val")

    @val_progress_bar.setter
    def val_progress_bar(self, bar: Any) -> None:
        self._bars["val"] = bar

    @property
    def test_progress_bar(self) -> Any:
        """The bar of testing."""
        return self._bar("test")

    @test_progress_bar.setter
    def test_progress_bar(self, bar: Any) -> None:
        self._bars["test"] = bar

    @property
    def predict_progress_bar(self) -> Any:
        """The bar of prediction."""
        return self._bar("predict")

    @predict_progress_bar.setter
    def predict_progress_bar(self, bar: Any) -> None:
        self._bars["predict"] = bar

    def _bar(self, name: str) -> Any:
        if name not in self._bars:
            raise ConfigTypeError(
                f"The `{type(self).__name__}.{name}_progress_bar` reference has not been set yet: the bar is made when that loop starts."
            )
        return self._bars[name]

    # -- the bars, to override -----------------------------------------------------------------------------------

    def init_sanity_tqdm(self) -> Any:
        """Return the bar of the sanity check."""
        return self._new(self.sanity_check_description, leave=False)

    def init_train_tqdm(self) -> Any:
        """Return the bar of training."""
        return self._new(self.train_description, leave=True)

    def init_validation_tqdm(self) -> Any:
        """Return the bar of validation; inside of fit it stands below the one of training, and goes when it is done."""
        is_inside = self.trainer.state.fn == "fit"
        return self._new(self.validation_description, leave=not is_inside, below=is_inside)

    def init_test_tqdm(self) -> Any:
        """Return the bar of testing."""
        return self._new(self.test_description, leave=True)

    def init_predict_tqdm(self) -> Any:
        """Return the bar of prediction."""
        return self._new(self.predict_description, leave=True)

    def _new(self, description: str, *, leave: bool, below: bool = False) -> Any:
        return Tqdm(
            desc=description,
            position=2 * self._process_position + below,
            disable=self.is_disabled,
            leave=leave,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
            is_held=True,
        )

    def _description(self, stage: Stage) -> str:
        if stage == "train":
            return f"Epoch {self.trainer.current_epoch}"
        text = super()._description(stage)
        return text if " DataLoader " in text else f"{text} DataLoader {self._current_eval_dataloader_idx or 0}"

    def _make_screen(self) -> Screen:
        return TqdmScreen(self, leave=self._leave)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bars": {}, "_screen": None}  # bars hold files


@final
class TqdmScreen:
    """The bars of a `TQDMProgressBar`.

    Args:
        owner: The callback, which makes and holds them.
        leave: Whether the bar of each finished epoch stays.
    """

    def __init__(self, owner: TQDMProgressBar, *, leave: bool) -> None:
        self._owner = owner
        self._leave = leave
        self._bars: dict[Stage, Any] = {}
        self._finished: set[Stage] = set()

    def begin(self, stage: Stage) -> None:
        owner = self._owner
        if stage == "train":
            owner.train_progress_bar = bar = owner.init_train_tqdm()
        elif stage == "test":
            owner.test_progress_bar = bar = owner.init_test_tqdm()
        elif stage == "predict":
            owner.predict_progress_bar = bar = owner.init_predict_tqdm()
        else:
            owner.val_progress_bar = bar = owner.init_sanity_tqdm() if stage == "sanity" else owner.init_validation_tqdm()
        self._bars[stage] = bar

    def restart(self, stage: Stage, description: str, total: int | None) -> None:
        if self._leave and stage == "train" and stage in self._finished:
            self._bars[stage].close()
            self.begin(stage)
        self._finished.discard(stage)
        bar = self._bars[stage]
        bar.is_held = True  # `reset` draws
        bar.reset(total)
        bar.is_held = False
        bar.total = total  # `reset` takes None for "as before"
        bar.set_description(description, refresh=False)

    def move(self, stage: Stage, done: int) -> None:
        self._bars[stage].n = done

    def draw(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        self._show_metrics(metrics)
        self._bars[stage].refresh()

    def finish(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        self._bars[stage].n = done
        self._show_metrics(metrics)
        self._finished.add(stage)

    def end(self, stage: Stage) -> None:
        self._bars.pop(stage).close()  # draws a last time if it stays
        self._finished.discard(stage)

    def print(self, text: str) -> None:
        Tqdm.write(text, end="", file=sys.stdout)

    def stop(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()

    def _show_metrics(self, metrics: Mapping[str, Any]) -> None:
        main = self._bars["train" if "train" in self._bars else next(iter(self._bars))]
        main.set_postfix(metrics, refresh=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
