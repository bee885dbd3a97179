"""`TensorBoardLogger`: curves, text, histograms, pictures and hyper-parameters for TensorBoard, which need not be installed here.

`experiment` is ours but has the methods of torch's `SummaryWriter`. The common ones are encoded by `event_file`; the rest
goes through `summary_adapter`, which needs the package `tensorboard`.
"""

import io
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.errors import ConfigTypeError, closest, listed
from leyden.core.optional import require
from leyden.fabric.loggers import event_file, pictures
from leyden.fabric.loggers.channel import Channel
from leyden.fabric.loggers.event_file import EventFile
from leyden.fabric.loggers.hyperparameters import as_mapping, flatten
from leyden.fabric.loggers.logger import rank_zero_experiment
from leyden.fabric.loggers.values import Snapshot, number_or_refuse, readable
from leyden.fabric.loggers.versioned import VersionedLogger, local_directory
from leyden.fabric.loggers.writer_thread import process_writer
from leyden.fabric.rank_zero import rank_zero_only, rank_zero_warn

_WITHOUT_EFFECT = ("max_queue", "flush_secs", "comment")
_OPTIONS = ("purge_step", "filename_suffix", "log_graph", *_WITHOUT_EFFECT)


class TensorBoardLogger(VersionedLogger):
    """Logs event files to `<root_dir>/<name>/version_<n>[/<sub_dir>]`, and `hparams.yaml`.

    Args:
        root_dir: The directory below which all experiments lie; `~` and `$VARIABLES` are expanded.
        name: The experiment's directory below it; `""` for none.
        version: A number, a string that is taken as it is, or `None` for the next free number.
        default_hp_metric: Whether hyper-parameters without a metric get `hp_metric: -1`, which makes TensorBoard show them.
        prefix: Put before each metric's name, joined by `-`.
        sub_dir: A directory below the version, for the event files.
        kwargs: `purge_step` and `filename_suffix` of `SummaryWriter`; `log_graph=False` makes `log_graph()` do nothing.

    Raises:
        ConfigTypeError: An unknown keyword.

    Example:
        ```python
        logger = TensorBoardLogger("logs")
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.experiment.add_text("note", "a *first* try")
        logger.save()                                  # tensorboard --logdir logs
        ```
    """

    def __init__(
        self,
        root_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        default_hp_metric: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        prefix: str = "",
        sub_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root_dir, name, version, prefix=prefix)
        if unknown := [option for option in kwargs if option not in _OPTIONS]:
            raise ConfigTypeError(
                f"TensorBoardLogger does not take {unknown[0]!r}.{closest(unknown[0], _OPTIONS)} It takes {listed(_OPTIONS)}."
            )
        if idle := [option for option in kwargs if option in _WITHOUT_EFFECT]:
            rank_zero_warn(
                f"TensorBoardLogger: {listed(idle)} have no effect: rows are written once a second, into the version's directory."
            )
        self._sub_dir = None if sub_dir is None else local_directory(sub_dir)
        self._has_default_metric = default_hp_metric
        self._has_graph = bool(kwargs.get("log_graph", True))
        self._suffix = kwargs.get("filename_suffix", "")
        self._purge_step: int | None = kwargs.get("purge_step")
        self._files: dict[str, EventFile] = {}  # by run, "" is the logger's own
        self._run_channels: dict[str, Channel] = {}
        self._pid = os.getpid()

    @property
    def sub_dir(self) -> str | None:
        """The directory below the version."""
        return None if self._sub_dir is None else str(self._sub_dir)

    @property
    def log_dir(self) -> str:
        """The directory of the event files."""
        directory = self._directory()
        return str(directory if self._sub_dir is None else directory / self._sub_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> "EventExperiment":
        """What takes text, histograms, pictures, …: `SummaryWriter`'s methods."""
        return EventExperiment(self)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queue a row; as `ThreadedLogger.log_metrics`, and a dictionary of numbers becomes curves in one diagram.

        Raises:
            ConfigError: A tensor has several elements.
            ConfigTypeError: A value is neither a number, nor a tensor, nor a function, nor a dictionary of them.
        """
        nested = [name for name, value in metrics.items() if type(value) is dict]
        if not nested or rank_zero_only.rank != 0:
            super().log_metrics(metrics, step)
            return
        super().log_metrics({name: value for name, value in metrics.items() if name not in nested}, step)
        for name in nested:
            self.experiment.add_scalars(self._prefix + name, metrics[name], self._next_step - 1)

    def log_hyperparams(  # pyrefly: ignore[bad-override] - results are TensorBoard's own second argument
        self,
        params: Mapping[str, Any] | Namespace | None = None,
        metrics: Mapping[str, Any] | float | None = None,
        step: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Record hyper-parameters, also for TensorBoard's HPARAMS page.

        Args:
            params: A mapping, namespace or dataclass; nested ones are flattened with `/`.
            metrics: The results that the page compares runs by; a number becomes `hp_metric`.
            step: Where these results are drawn.
            kwargs: More hyper-parameters.

        Raises:
            ConfigTypeError: `params` are no mapping, namespace or dataclass.
            StorageError: `hparams.yaml` cannot be written.
        """
        if rank_zero_only.rank != 0:
            return
        given = {**as_mapping(params), **kwargs}
        self._store_hyperparameters(given)
        if metrics is None:
            metrics = {"hp_metric": -1} if self._has_default_metric else {}
        elif not isinstance(metrics, Mapping):
            metrics = {"hp_metric": metrics}
        if metrics:
            last = self._next_step
            self.log_metrics(metrics, 0 if step is None else step)
            self._next_step = last  # results are no step of the training
            self._add_hparams(flatten(given), [self._prefix + name for name in metrics])

    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Record the model's graph, traced with `input_array` or the model's `example_input_array`; needs `tensorboard`.

        Raises:
            MissingDependencyError: The package `tensorboard` is not installed.
        """
        if rank_zero_only.rank != 0 or not self._has_graph:
            return
        example = input_array if input_array is not None else getattr(model, "example_input_array", None)
        if example is None:
            rank_zero_warn(
                "Could not log computational graph to TensorBoard: neither `input_array` nor the model's `example_input_array` is given."
            )
            return
        self.experiment.add_graph(model, example)

    def save(self) -> None:
        """Write every row logged so far."""
        super().save()
        for channel in self._run_channels.values():
            channel.drain()

    def finalize(self, status: str) -> None:
        """Write every row, and warn if some could not be."""
        super().finalize(status)
        for channel in self._run_channels.values():
            channel.close()
        self._run_channels = {}

    def put(self, entry: Any, run: str = "") -> None:
        """Queue a row, or a function that encodes records in the writer thread, for the logger's run or one below it."""
        if not run:
            self._opened_channel().put(entry)
            return
        channel = self._run_channels.get(run)
        if channel is None or channel.closed:
            channel = self._run_channels[run] = process_writer().open(self._file(run), type(self).__name__)
        channel.put(entry)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_run_channels": {}}

    def _accept(self, name: str, value: Any) -> Any:
        value = readable(name, value)
        return value if callable(value) else number_or_refuse(name, value)

    def _sink(self) -> EventFile:
        return self._file("")

    def _file(self, run: str) -> EventFile:
        if self._pid != os.getpid():  # a copy in another process: two must not share a file
            self._files.clear()
            self._pid = os.getpid()
        if run not in self._files:
            self._files[run] = EventFile(local_directory(self.log_dir) / run, self._suffix, self._purge_step)
        return self._files[run]

    def _add_hparams(self, params: Mapping[str, Any], metrics: Sequence[str]) -> None:
        now = time.time()
        self.put(lambda: event_file.hparams(now, params, metrics))


class EventExperiment:
    """`TensorBoardLogger.experiment`: the methods of torch's `SummaryWriter`, into the logger's event file.

    Everything is copied when it is added and encoded in the writer thread. Methods that are not here go through torch's
    `SummaryWriter` and need the package `tensorboard`.
    """

    def __init__(self, logger: TensorBoardLogger) -> None:
        self._logger = logger

    @property
    def log_dir(self) -> str:
        """The directory of the event file."""
        return self._logger.log_dir

    def get_logdir(self) -> str:
        """Return the directory of the event file."""
        return self._logger.log_dir

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, walltime: float | None = None) -> None:
        """Add a point to a curve."""
        self._logger.put((_wall(walltime), _step(global_step), {tag: readable(tag, scalar_value)}))

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """Add a point to each of several curves in one diagram; each curve is a run below this one."""
        for name, value in tag_scalar_dict.items():
            row = (_wall(walltime), _step(global_step), {main_tag: readable(name, value)})
            self._logger.put(row, run=f"{main_tag.replace('/', '_')}_{name}")

    def add_text(self, tag: str, text_string: str, global_step: int | None = None, walltime: float | None = None) -> None:
        """Add a text in Markdown."""
        wall, step = _wall(walltime), _step(global_step)
        self._logger.put(lambda: event_file.text(wall, step, tag, str(text_string)))

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Add the distribution of a tensor's values."""
        wall, step, snapshot = _wall(walltime), _step(global_step), Snapshot(torch.as_tensor(values))
        self._logger.put(lambda: event_file.histogram(wall, step, tag, pictures.histogram_of(snapshot(), bins, max_bins)))

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: float | None = None, dataformats: str = "CHW"
    ) -> None:
        """Add a picture: floats in [0, 1] or integers in [0, 255]."""
        wall, step, snapshot = _wall(walltime), _step(global_step), Snapshot(torch.as_tensor(img_tensor))

        def encode() -> bytes:
            pixels = pictures.pixels_of(snapshot(), dataformats)
            height, width, channels = pixels.shape
            return event_file.image(wall, step, tag, pictures.png(pixels), (height, width, channels))

        self._logger.put(encode)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: int | None = None,
        close: bool = True,  # noqa: FBT001, FBT002 - SummaryWriter's signature
        walltime: float | None = None,
    ) -> None:
        """Add a matplotlib figure, or a list of them below each other, and close it."""
        for index, each in enumerate(figure if isinstance(figure, (list, tuple)) else [figure]):
            buffer = io.BytesIO()
            each.savefig(buffer, format="png")  # now: its owner may go on drawing
            size = int.from_bytes(buffer.getvalue()[16:20]), int.from_bytes(buffer.getvalue()[20:24])
            entry = event_file.image(
                _wall(walltime), _step(global_step), f"{tag}/{index}" if index else tag, buffer.getvalue(), (size[1], size[0], 4)
            )
            self._logger.put(_constant(entry))
            if close and (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
                pyplot.close(each)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Add a run below this one to TensorBoard's HPARAMS page, with its results."""
        now = time.time()
        run, params, metrics = run_name or str(now), flatten(hparam_dict), list(metric_dict)
        self._logger.put(lambda: event_file.hparams(now, params, metrics, hparam_domain_discrete), run=run)
        self._logger.put((now, _step(global_step), {name: readable(name, value) for name, value in metric_dict.items()}), run=run)

    def flush(self) -> None:
        """Write everything added so far."""
        self._logger.save()

    def close(self) -> None:
        """Write everything added so far; adding goes on to work."""
        self._logger.save()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("add_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; its methods are those of torch's SummaryWriter.")
        require("tensorboard", purpose=f"TensorBoardLogger.experiment.{name}")
        from leyden.fabric.loggers.summary_adapter import SummaryAdapter  # imports tensorboard: a second, only where it is needed

        logger = self._logger
        return getattr(SummaryAdapter(logger.log_dir, lambda event: logger.put(_constant(event_file.record(event)))), name)


def _constant(value: bytes) -> Callable[[], bytes]:
    return lambda: value


def _wall(walltime: float | None) -> float:
    return time.time() if walltime is None else walltime


def _step(step: int | None) -> int:
    return 0 if step is None else int(step)
