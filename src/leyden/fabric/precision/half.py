"""`HalfPrecision`: weights and computation in 16 bits."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn

from leyden.core.errors import ConfigError, listed
from leyden.fabric.precision.convert import cast_floating, default_dtype
from leyden.fabric.precision.precision import Precision

HALF_DTYPES = {"16-true": torch.float16, "bf16-true": torch.bfloat16}


class HalfPrecision(Precision):
    """`16-true` or `bf16-true`: weights, inputs and the default dtype in forward and init have 16 bits.

    Args:
        precision: `"16-true"` (float16) or `"bf16-true"` (bfloat16).

    Raises:
        ConfigError: Another word.

    Example:
        >>> HalfPrecision("bf16-true").convert_module(nn.Linear(2, 1)).weight.dtype
        torch.bfloat16
    """

    def __init__(self, precision: Literal["bf16-true", "16-true"] = "16-true") -> None:
        if precision not in HALF_DTYPES:
            raise ConfigError(f"HalfPrecision(precision={precision!r}): accepted are {listed(HALF_DTYPES)}.")
        self.precision = precision
        self.compute_dtype = HALF_DTYPES[precision]

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(dtype=self.compute_dtype)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def module_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def forward_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def convert_input(self, data: Any) -> Any:
        return cast_floating(data, self.compute_dtype)

    def convert_output(self, data: Any) -> Any:
        return cast_floating(data, torch.get_default_dtype())
