"""`log` and `log_dict`: what a step calls to have a number kept, and the sinks that keep it.

Under a trainer the sink is its `MetricStore`; it lies in the module's `__dict__` while a run lasts. This file knows only
the protocol. It does not keep, average or write anything.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from leyden.trainer.core.batch_size import batch_size_of

__all__ = ["FabricSink", "FabricTrainer", "LogSink", "MutedSink", "Reduction", "batch_size_of", "log", "log_dict"]

Reduction = str | Callable[..., Any]
"""`"mean"` (`"avg"`), `"sum"`, `"min"`, `"max"`, or the function of that name of torch or Python."""


class LogSink(Protocol):
    """What takes logged values. Its `log` is called in every step, with everything by position in the order of the function below."""

    @property
    def log(self) -> Callable[..., None]:
        """Keep one value; arguments as for `LightningModule.log`."""
        ...


def log(  # noqa: PLR0913 - the documented signature
    self: Any,
    name: str,
    value: Any,
    prog_bar: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    logger: bool | None = None,  # noqa: FBT001 - the documented signature
    on_step: bool | None = None,  # noqa: FBT001 - the documented signature
    on_epoch: bool | None = None,  # noqa: FBT001 - the documented signature
    reduce_fx: Reduction = "mean",
    enable_graph: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    sync_dist: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    sync_dist_group: Any = None,
    add_dataloader_idx: bool = True,  # noqa: FBT001, FBT002 - the documented signature
    batch_size: int | None = None,
    metric_attribute: str | None = None,
    rank_zero_only: bool = False,  # noqa: FBT001, FBT002 - the documented signature
) -> None:
    """Log one value. What the flags default to depends on the hook: steps of training log per step, the rest per epoch.

    Args:
        self: The module.
        name: The key; must be the same on all ranks.
        value: A number, a tensor of one element, or a metric object with `update`, `compute` and `reset`.
        prog_bar: Whether the progress bar shows it.
        logger: Whether loggers get it; yes by default.
        on_step: Whether each step's value counts.
        on_epoch: Whether the reduced value of the epoch counts. With both, `_step` and `_epoch` are appended to the name.
        reduce_fx: How values of an epoch become one: `"mean"` (weighted by batch size), `"sum"`, `"min"`, `"max"`.
        enable_graph: Whether to keep the autograd graph.
        sync_dist: Whether to reduce over ranks when a row is written.
        sync_dist_group: The process group to reduce over; all ranks by default.
        add_dataloader_idx: Whether to append the loader's number where several are evaluated.
        batch_size: The weight of this batch; its first tensor's size 0 by default.
        metric_attribute: The name of the module's attribute that holds the metric object.
        rank_zero_only: Whether only rank 0 logs it, so that nothing is reduced over ranks.

    Raises:
        ConfigError: The value, the name or the flags do not go here; the message says why.
    """
    sink = self._log_sink
    if sink is None:
        sink = _sink_without_run(self)
    sink.log(
        name,
        value,
        prog_bar,
        logger,
        on_step,
        on_epoch,
        reduce_fx,
        enable_graph,
        sync_dist,
        sync_dist_group,
        add_dataloader_idx,
        batch_size,
        metric_attribute,
        rank_zero_only,
    )


def log_dict(  # noqa: PLR0913 - the documented signature
    self: Any,
    dictionary: Any,
    prog_bar: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    logger: bool | None = None,  # noqa: FBT001 - the documented signature
    on_step: bool | None = None,  # noqa: FBT001 - the documented signature
    on_epoch: bool | None = None,  # noqa: FBT001 - the documented signature
    reduce_fx: Reduction = "mean",
    enable_graph: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    sync_dist: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    sync_dist_group: Any = None,
    add_dataloader_idx: bool = True,  # noqa: FBT001, FBT002 - the documented signature
    batch_size: int | None = None,
    rank_zero_only: bool = False,  # noqa: FBT001, FBT002 - the documented signature
) -> None:
    """Log several values with the same flags.

    Args:
        self: The module.
        dictionary: Name → value, or a collection of metric objects.
        prog_bar: As in `log`, like all that follow.
        logger: As in `log`.
        on_step: As in `log`.
        on_epoch: As in `log`.
        reduce_fx: As in `log`.
        enable_graph: As in `log`.
        sync_dist: As in `log`.
        sync_dist_group: As in `log`.
        add_dataloader_idx: As in `log`.
        batch_size: As in `log`.
        rank_zero_only: As in `log`.
    """
    for name, value in _items(dictionary):
        self.log(
            name,
            value,
            prog_bar=prog_bar,
            logger=logger,
            on_step=on_step,
            on_epoch=on_epoch,
            reduce_fx=reduce_fx,
            enable_graph=enable_graph,
            sync_dist=sync_dist,
            sync_dist_group=sync_dist_group,
            add_dataloader_idx=add_dataloader_idx,
            batch_size=batch_size,
            rank_zero_only=rank_zero_only,
        )


def _items(dictionary: Any) -> Any:
    items = dictionary.items
    # A torchmetrics collection: its members as they are, under the names it gives them. A copy could not be reset.
    if not isinstance(dictionary, Mapping) and "copy_state" in inspect.signature(items).parameters:
        return items(keep_base=False, copy_state=False)
    return items()


def _sink_without_run(module: Any) -> LogSink:
    fabric = module.__dict__.get("_fabric")
    if fabric is not None:
        return FabricSink(fabric)
    return MutedSink(
        "`self.log()` was called, but no `Trainer` runs this module, so the value goes nowhere. "
        "Call it from a hook, with the module passed to `Trainer.fit`, `validate` or `test`."
    )


class MutedSink:
    """Keeps nothing, and warns once: there is no run, or one that logs nothing.

    Args:
        reason: The warning.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._has_warned = False

    def log(self, name: str, value: Any, *options: Any) -> None:
        """Keep nothing."""
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(self._reason, stacklevel=3)


class FabricSink:
    """Hands values on to the loggers of a `Fabric`, for a module in a loop of one's own.

    Args:
        fabric: The `Fabric`.
    """

    def __init__(self, fabric: Any) -> None:
        self._fabric = fabric

    def log(self, name: str, value: Any, prog_bar: bool = False, logger: bool | None = None, *options: Any) -> None:  # noqa: FBT001, FBT002 - the protocol
        """Log one value at the loggers' next step, unless `logger` is `False`; nothing is averaged here."""
        if logger is not False:
            self._fabric.log(name, value.detach() if isinstance(value, Tensor) else value)


class FabricTrainer:
    """What `module.trainer` is in a loop of one's own: the few properties that a `Fabric` knows too.

    Args:
        fabric: The `Fabric` that set the module up.
        module: The module.
    """

    def __init__(self, fabric: Any, module: Any) -> None:
        self._fabric = fabric
        self.lightning_module = module
        self.global_rank: int = fabric.global_rank
        self.local_rank: int = fabric.local_rank
        self.node_rank: int = fabric.node_rank
        self.world_size: int = fabric.world_size
        self.is_global_zero: bool = fabric.is_global_zero
        self.strategy = fabric.strategy
        self.loggers: list[Any] = fabric.loggers
        self.current_epoch = 0
        self.global_step = 0

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print on rank 0."""
        self._fabric.print(*args, **kwargs)
