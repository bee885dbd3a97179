"""Types for the signatures of classes that a command line configures: what makes optimizers and schedulers."""

from collections.abc import Callable, Iterable
from typing import Any

from jsonargparse import Namespace
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau


class ReduceLROnPlateau(TorchReduceLROnPlateau):
    """torch's scheduler, which also knows the metric that it follows, so that a command line can name it.

    Args:
        optimizer: Whose learning rate is reduced.
        monitor: The name of the metric, as it was logged.
        args: What torch's class takes.
        kwargs: What torch's class takes.

    Example:
        ```bash
        python main.py fit --optimizer=SGD --optimizer.lr=0.1 --lr_scheduler=ReduceLROnPlateau --lr_scheduler.monitor=val/loss
        ```
    """

    def __init__(self, optimizer: Optimizer, monitor: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(optimizer, *args, **kwargs)
        self.monitor = monitor


ArgsType = list[str] | dict[str, Any] | Namespace | None
"""What `LightningCLI(args=…)` takes: words of a command line, or a configuration."""

LRSchedulerTypeTuple = (LRScheduler, ReduceLROnPlateau)
LRSchedulerTypeUnion = LRScheduler | ReduceLROnPlateau

OptimizerCallable = Callable[[Iterable[Tensor]], Optimizer]
"""For an argument of a module: given a class with its arguments, it is what makes that optimizer of parameters."""

LRSchedulerCallable = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
"""For an argument of a module: given a class with its arguments, it is what makes that scheduler of an optimizer."""
