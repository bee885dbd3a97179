"""`MixedPrecision`: float32 weights, 16-bit computation under autocast; float16 with a gradient scaler.

The scaler rules live in `LossScaler`, which the sharded precision shares: unscale at most once per step (clip and step
use one flag), one scale for all optimizers of a step, say what was skipped, warn when the scale collapses and stop when it
stays there.
"""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnsupportedError, listed
from leyden.fabric.precision.convert import cast_floating
from leyden.fabric.precision.precision import Precision

SMALLEST_USEFUL_SCALE = 1e-10
SKIPS_BEFORE_WARNING = 50
MIXED_DTYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class LossScaler:
    """A `torch.amp.GradScaler` with the rules of a training step around it.

    The scale changes when the next loss is scaled, not after each optimizer's step: gradients of a second optimizer, made
    under the old scale, would be divided by the new one.

    Args:
        scaler: The scaler that holds the scale and its growth.
    """

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self.scaler = scaler
        self.skipped_steps = 0
        self._skipped_in_a_row = 0
        self._unscaled: set[int] = set()
        self._stepped: set[int] = set()

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale."""
        self._update()
        return self.scaler.scale(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state, up to date."""
        self._update()
        return dict(self.scaler.state_dict())

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale; a second call before the step does nothing.

        Raises:
            UnsupportedError: The optimizer divides by the scale itself.
        """
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UnsupportedError(
                f"The current optimizer, {type(optimizer).__name__}, does not allow for gradient clipping or sharded gradients because "
                "it performs unscaling of gradients internally. Build it with fused=False."
            )
        self._update(before=optimizer)
        if id(optimizer) not in self._unscaled:
            self.scaler.unscale_(optimizer)
            self._unscaled.add(id(optimizer))

    def step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step unless the gradients overflowed, update the scale, and note on the optimizer what happened.

        Raises:
            ConfigTypeError: LBFGS, whose closure runs several times per step.
            StateError: Fifty steps in a row were skipped and the scale has collapsed.
        """
        if isinstance(optimizer, LBFGS):
            raise ConfigTypeError('precision="16-mixed" and the LBFGS optimizer are not compatible. Use precision="bf16-mixed".')
        closure = kwargs.pop("closure", None)
        loss = closure() if closure is not None else None  # a scaler must see the gradients before it decides to step
        self._update(before=optimizer)
        result = self.scaler.step(optimizer, **kwargs)
        self._stepped.add(id(optimizer))
        found_inf = self.scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        self._note(optimizer, skipped=any(found.item() for found in found_inf.values()))
        return loss if closure is not None else result

    def _update(self, before: Optimizer | None = None) -> None:
        """Let the scale grow or shrink once for all steps since the last time; `before` a second step of one optimizer only."""
        if self._stepped and (before is None or id(before) in self._stepped):
            self.scaler.update()
            self._stepped.clear()
            self._unscaled.clear()

    def _note(self, optimizer: Optimizer, *, skipped: bool) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        self.skipped_steps += skipped
        state: Any = optimizer
        state.last_step_skipped = skipped
        state.skipped_steps = getattr(optimizer, "skipped_steps", 0) + skipped
        if not skipped or self.scaler.get_scale() >= SMALLEST_USEFUL_SCALE:
            return
        message = (
            f"The loss scale has fallen to {self.scaler.get_scale():.1e} after {self._skipped_in_a_row} skipped steps in a row: the "
            'gradients are not finite at any scale. This usually occurs when the loss or the weights hold NaN; try precision="bf16-mixed".'
        )
        if self._skipped_in_a_row > SKIPS_BEFORE_WARNING:
            raise StateError(message)
        if self._skipped_in_a_row == SKIPS_BEFORE_WARNING:
            warnings.warn(message, stacklevel=4)


class MixedPrecision(Precision):
    """`16-mixed` or `bf16-mixed`: autocast around forward, and a gradient scaler for float16.

    Args:
        precision: `"16-mixed"` (float16) or `"bf16-mixed"` (bfloat16).
        device: The device type autocast is for, such as `"cuda"` or `"cpu"`.
        scaler: Your own gradient scaler; float16 only.

    Raises:
        ConfigError: Another word, or a scaler with bfloat16.

    Example:
        >>> MixedPrecision("bf16-mixed", "cpu").compute_dtype
        torch.bfloat16
    """

    def __init__(
        self, precision: Literal["16-mixed", "bf16-mixed"], device: str = "cpu", scaler: torch.amp.GradScaler | None = None
    ) -> None:
        if precision not in MIXED_DTYPES:
            raise ConfigError(f"MixedPrecision(precision={precision!r}): accepted are {listed(MIXED_DTYPES)}.")
        if precision == "bf16-mixed" and scaler is not None:
            raise ConfigError(f'`precision="bf16-mixed"` does not use a scaler, found {scaler}. Drop `scaler`, or use "16-mixed".')
        self.precision = precision
        self.device = device
        self.compute_dtype = MIXED_DTYPES[precision]
        if scaler is None and precision == "16-mixed":
            scaler = torch.amp.GradScaler(device)
        self.loss_scaler = LossScaler(scaler) if scaler is not None else None

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The gradient scaler; `None` for bfloat16."""
        return self.loss_scaler.scaler if self.loss_scaler else None

    @property
    def scales_gradients(self) -> bool:
        return self.loss_scaler is not None

    def forward_context(self) -> AbstractContextManager[Any]:
        # The cache holds 16-bit copies of the weights; under no_grad it would keep copies without a graph (torch's advice).
        return torch.autocast(self.device, dtype=self.compute_dtype, cache_enabled=torch.is_grad_enabled())

    def convert_input(self, data: Any) -> Any:
        return cast_floating(data, torch.float32)

    def convert_output(self, data: Any) -> Any:
        return cast_floating(data, torch.get_default_dtype())

    def backward(self, tensor: Tensor, model: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        scaled = self.loss_scaler.scale(tensor) if self.loss_scaler else tensor
        super().backward(scaled, model, *args, **kwargs)

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        if self.loss_scaler is None:
            return super().optimizer_step(optimizer, **kwargs)
        return self.loss_scaler.step(optimizer, **kwargs)

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        if self.loss_scaler is not None:
            self.loss_scaler.unscale(optimizer)

    def state_dict(self) -> dict[str, Any]:
        return self.loss_scaler.state_dict() if self.loss_scaler else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        if self.loss_scaler is not None and state_dict:
            self.loss_scaler.scaler.load_state_dict(dict(state_dict))
