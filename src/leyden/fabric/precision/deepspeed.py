"""`DeepSpeedPrecision`: inputs and weights in the dtype that DeepSpeed's engine computes in; the engine scales losses itself."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import UnsupportedError, listed
from leyden.fabric.precision.convert import cast_floating, default_dtype
from leyden.fabric.precision.precision import Precision

DTYPES = {
    "32-true": torch.float32,
    "16-true": torch.float16,
    "16-mixed": torch.float16,
    "bf16-true": torch.bfloat16,
    "bf16-mixed": torch.bfloat16,
}


class DeepSpeedPrecision(Precision):
    """Precision under DeepSpeed: the engine keeps float32 masters of 16-bit weights and scales float16 losses.

    Args:
        precision: `"32-true"`, `"16-true"`, `"16-mixed"`, `"bf16-true"` or `"bf16-mixed"`.

    Raises:
        ConfigError: Another word.

    Example:
        >>> DeepSpeedPrecision("bf16-mixed").convert_input(torch.ones(1)).dtype
        torch.bfloat16
    """

    def __init__(self, precision: str = "32-true") -> None:
        if precision not in DTYPES:
            raise UnsupportedError(f"precision={precision!r} is not supported in DeepSpeed: accepted are {listed(DTYPES)}.")
        self.precision = precision
        self.compute_dtype = DTYPES[precision]
        self.plain = precision == "32-true"

    @property
    def _keeps_weights_in_dtype(self) -> bool:
        return self.precision in ("16-true", "bf16-true")

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(dtype=self.compute_dtype) if self._keeps_weights_in_dtype else module

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype) if self._keeps_weights_in_dtype else nullcontext()

    def module_init_context(self) -> AbstractContextManager[Any]:
        return self.tensor_init_context()

    def convert_input(self, data: Any) -> Any:
        return data if self.plain else cast_floating(data, self.compute_dtype)

    def convert_output(self, data: Any) -> Any:
        return data if self.plain else cast_floating(data, torch.get_default_dtype())

    def backward(self, tensor: Tensor, model: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        """Compute gradients through `model`, the engine."""
        engine: Any = model
        engine.backward(tensor, *args, **kwargs)

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step `optimizer`, which is the engine here."""
        return optimizer.step(**kwargs)
