"""`Precision`: in which dtype numbers are kept and computed. Itself it is `32-true`: nothing happens per call."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Precision:
    """Full float32, and the hooks that other precisions override.

    `plain` says that forward, backward and step need nothing around them, so that callers may take the short way; a
    subclass is not plain unless it says so itself. `scales_gradients` says that the loss must go through `backward` here.

    Example:
        >>> Precision().compute_dtype
        torch.float32
    """

    precision: str = "32-true"
    plain: bool = True
    compute_dtype: torch.dtype = torch.float32

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.plain = cls.__dict__.get("plain", False)

    @property
    def scales_gradients(self) -> bool:
        """Whether losses are scaled before backward, so that `loss.backward()` would be wrong."""
        return False

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module in this precision's weight dtype."""
        return module

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Return the context in which new tensors get this precision's dtype."""
        return nullcontext()

    def module_init_context(self) -> AbstractContextManager[Any]:
        """Return the context in which modules are built."""
        return nullcontext()

    def forward_context(self) -> AbstractContextManager[Any]:
        """Return the context of a forward."""
        return nullcontext()

    def convert_input(self, data: Any) -> Any:
        """Convert floating tensors of a forward's inputs."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Convert floating tensors of a forward's outputs to the default dtype."""
        return data

    def pre_backward(self, tensor: Tensor, module: nn.Module | None) -> None:
        """Run before backward."""

    def backward(self, tensor: Tensor, model: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        """Compute gradients."""
        tensor.backward(*args, **kwargs)

    def post_backward(self, tensor: Tensor, module: nn.Module | None) -> None:
        """Run after backward."""

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step the optimizer."""
        return optimizer.step(**kwargs)

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        """Divide gradients by the loss scale, once per step."""

    def main_params(self, optimizer: Optimizer) -> Iterator[nn.Parameter]:
        """Yield the parameters whose gradients the optimizer uses."""
        for group in optimizer.param_groups:
            yield from group["params"]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to keep (the loss scale)."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def teardown(self) -> None:
        """Release what the precision holds."""
