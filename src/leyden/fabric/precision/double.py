"""`DoublePrecision`: float64 throughout."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from leyden.fabric.precision.convert import cast_floating, default_dtype
from leyden.fabric.precision.precision import Precision


class DoublePrecision(Precision):
    """`64-true`: module, inputs and torch's default dtype are float64.

    Example:
        >>> DoublePrecision().convert_module(nn.Linear(2, 1)).weight.dtype
        torch.float64
    """

    precision = "64-true"
    compute_dtype = torch.float64

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.double()

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(torch.float64)

    def module_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(torch.float64)

    def forward_context(self) -> AbstractContextManager[Any]:
        return default_dtype(torch.float64)

    def convert_input(self, data: Any) -> Any:
        return cast_floating(data, torch.float64)

    def convert_output(self, data: Any) -> Any:
        return cast_floating(data, torch.get_default_dtype())
