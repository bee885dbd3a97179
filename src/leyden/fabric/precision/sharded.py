"""`FSDPPrecision`: what FSDP2's mixed-precision policy and autocast do together."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, listed
from leyden.fabric.precision.convert import cast_floating, default_dtype
from leyden.fabric.precision.mixed import LossScaler
from leyden.fabric.precision.precision import Precision

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecision, MixedPrecisionPolicy

WEIGHTS = {"32-true": torch.float32, "16-true": torch.float16, "bf16-true": torch.bfloat16}
MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class FSDPPrecision(Precision):
    """Precision for sharded weights; sums over ranks are made in float32, because bf16 sums over many ranks lose bits.

    Args:
        precision: `"32-true"`, `"16-true"`, `"bf16-true"`, `"16-mixed"` or `"bf16-mixed"`.
        scaler: Your own gradient scaler; `"16-mixed"` only.
        device: The device type autocast is for.

    Raises:
        ConfigError: Another word, or a scaler without float16.

    Example:
        >>> FSDPPrecision("bf16-mixed").policy().reduce_dtype
        torch.float32
    """

    def __init__(self, precision: str = "32-true", scaler: torch.amp.GradScaler | None = None, device: str = "cpu") -> None:
        if precision not in WEIGHTS and precision not in MIXED:
            raise ConfigError(f"precision={precision!r} is not supported with FSDP: accepted are {listed([*WEIGHTS, *MIXED])}.")
        if scaler is not None and precision != "16-mixed":
            raise ConfigError(f"precision={precision!r} does not use a scaler, found {scaler}. Drop `scaler`, or use '16-mixed'.")
        self.precision = precision
        self.device = device
        self.compute_dtype = WEIGHTS.get(precision) or MIXED[precision]
        self.reduce_found_inf: Callable[[Tensor], Tensor] | None = None  # set by the strategy, which knows the mesh
        if scaler is None and precision == "16-mixed":
            scaler = torch.amp.GradScaler(device)
        self.loss_scaler = LossScaler(scaler) if scaler is not None else None
        self.plain = precision == "32-true"

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The gradient scaler; `None` without float16."""
        return self.loss_scaler.scaler if self.loss_scaler else None

    @property
    def scales_gradients(self) -> bool:
        return self.loss_scaler is not None

    @property
    def mixed_precision_config(self) -> "MixedPrecision":
        """Torch's documented dataclass: one dtype for parameters, reduction and buffers."""
        from torch.distributed.fsdp import MixedPrecision  # a second of import

        dtype = self.compute_dtype
        return MixedPrecision(param_dtype=dtype, reduce_dtype=dtype, buffer_dtype=dtype)

    def policy(self, reduce_dtype: torch.dtype | None = torch.float32) -> "MixedPrecisionPolicy":
        """Return FSDP2's policy: parameters gathered in the compute dtype, gradients reduced in `reduce_dtype`."""
        from torch.distributed.fsdp import MixedPrecisionPolicy  # a second of import

        if self.precision == "32-true":
            return MixedPrecisionPolicy()
        return MixedPrecisionPolicy(param_dtype=self.compute_dtype, reduce_dtype=reduce_dtype, output_dtype=None)

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(dtype=self.compute_dtype) if self.precision in ("16-true", "bf16-true") else module

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype) if self.precision in WEIGHTS else nullcontext()

    def module_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype) if self.precision in ("16-true", "bf16-true") else nullcontext()

    def forward_context(self) -> AbstractContextManager[Any]:
        if self.precision in MIXED:
            # Parameters arrive in 16 bits already, and autocast's cache would keep gathered copies alive.
            return torch.autocast(self.device, dtype=self.compute_dtype, cache_enabled=False)
        return nullcontext() if self.plain else default_dtype(self.compute_dtype)

    def convert_input(self, data: Any) -> Any:
        return data if self.plain else cast_floating(data, torch.float32 if self.precision in MIXED else self.compute_dtype)

    def convert_output(self, data: Any) -> Any:
        return data if self.plain else cast_floating(data, torch.get_default_dtype())

    def backward(self, tensor: Tensor, model: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        scaled = self.loss_scaler.scale(tensor) if self.loss_scaler else tensor
        super().backward(scaled, model, *args, **kwargs)

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        if self.loss_scaler is not None:
            self.loss_scaler.unscale(optimizer)
            self._agree_on_overflow(optimizer)

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        if self.loss_scaler is None:
            return super().optimizer_step(optimizer, **kwargs)
        if "closure" not in kwargs:  # with one, gradients exist only inside the step
            self.unscale_gradients(optimizer)
        return self.loss_scaler.step(optimizer, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        return self.loss_scaler.state_dict() if self.loss_scaler else {}

    def load_state_dict(self, state_dict: Any) -> None:
        if self.loss_scaler is not None and state_dict:
            self.loss_scaler.scaler.load_state_dict(dict(state_dict))

    def _agree_on_overflow(self, optimizer: Optimizer) -> None:
        """A shard that overflowed on one rank must skip the step on all: each rank sees only its own shards."""
        if self.reduce_found_inf is None or self.loss_scaler is None:
            return
        per_device = self.loss_scaler.scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        for found in per_device.values():
            self.reduce_found_inf(found)
