"""`NonFiniteGuard`: ends a run whose loss or gradients are not finite, without waiting for the device at each step.

What is counted stays on the device: how many values were finite, and the batch of the first that was not. The host reads
both where it waits for the device anyway, with a row of training and at the end of an epoch.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, StateError, UnsupportedError, closest, listed
from leyden.trainer.callbacks.row_cadence import row_is_due
from leyden.trainer.core.callback import Callback

ACTIONS = ("raise",)
CHECKS = ("loss", "grads")
_NEVER = torch.iinfo(torch.int64).max


class NonFiniteError(StateError):
    """A loss or a gradient was NaN or infinite."""

    code = "training.non_finite"


class NonFiniteGuard(Callback):
    """Raises at the next row of training, or at the end of the epoch, if a value was NaN or infinite since the last one.

    Each rank looks at its own loss; under `"grads"` at the gradients after they are reduced, which hold what any rank
    brought in.

    Args:
        action: `"raise"`.
        check: `"loss"`, or `"grads"` for the norm of all gradients before clipping.

    Raises:
        ConfigError: Another action or check.

    Example:
        >>> NonFiniteGuard(check="grads").check
        'grads'
    """

    def __init__(self, action: Literal["raise"] = "raise", check: Literal["loss", "grads"] = "loss") -> None:
        for name, value, options in (("action", action, ACTIONS), ("check", check, CHECKS)):
            if value not in options:
                raise ConfigError(f"NonFiniteGuard({name}={value!r}): accepted is {listed(options)}.{closest(str(value), options)}")
        self.action = action
        self.check = check
        self._seen = 0  # values looked at since the last reading
        self._finite: Tensor | None = None  # how many of them were finite
        self._first: Tensor | None = None  # the batch of the first that was not

    @property
    def state_key(self) -> str:
        return self._generate_state_key(check=self.check)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a check that a gradient scaler makes meaningless.

        Raises:
            UnsupportedError: Gradients are checked and a scaler looks for infinite ones by itself.
        """
        if self.check == "grads" and trainer.scaler is not None:
            raise UnsupportedError(
                f"NonFiniteGuard(check='grads') does not go with precision={trainer.precision!r}: its scaler tries scales until gradients "
                "overflow, and leaves such steps out. Use check='loss'."
            )

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if self.check == "loss":
            self._count(loss.detach(), trainer.run.clock.batches)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        if self.check != "grads":
            return
        gradients = [_local(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:  # a sum is as infinite as its largest part, and NaN if one is
            self._count(torch.stack(torch._foreach_norm(gradients)).sum(), trainer.run.clock.batches)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._seen and row_is_due(trainer):
            self._read()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._read()

    def state_dict(self) -> dict[str, Any]:
        bad, first = self._told()
        return {"bad": bad, "first": first, "seen": self._seen} if bad else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seen = int(state_dict.get("seen", 0))
        self._finite = torch.tensor(self._seen - int(state_dict.get("bad", 0)))
        self._first = torch.tensor(int(state_dict.get("first", _NEVER)))

    def _count(self, value: Tensor, batch: int) -> None:
        if self._finite is None or self._first is None or self._finite.device != value.device:
            self._move(value.device)
        assert self._finite is not None  # noqa: S101 - `_move` has made both; said for the type checker
        is_finite = torch.isfinite(value).all() if value.dim() else torch.isfinite(value)
        self._finite.add_(is_finite)
        self._first = torch.minimum(self._first, torch.where(is_finite, _NEVER, batch))  # pyrefly: ignore[bad-argument-type]
        self._seen += 1

    def _move(self, device: torch.device) -> None:
        finite, first = self._finite, self._first
        self._finite = torch.zeros((), dtype=torch.int64, device=device) if finite is None else finite.to(device)
        self._first = torch.full((), _NEVER, dtype=torch.int64, device=device) if first is None else first.to(device)

    def _told(self) -> tuple[int, int]:
        """Return how many values were not finite, and the batch of the first; waits for the device."""
        if not self._seen or self._finite is None or self._first is None:
            return 0, _NEVER
        finite, first = torch.stack([self._finite, self._first]).tolist()
        return self._seen - finite, first

    def _read(self) -> None:
        """Raise if a value was not finite; else count anew.

        Raises:
            NonFiniteError: One was not.
        """
        bad, first = self._told()
        seen, self._seen, self._finite, self._first = self._seen, 0, None, None
        if bad:
            what = "the loss" if self.check == "loss" else "the norm of the gradients"
            raise NonFiniteError(
                f"{what} was NaN or infinite in {bad} of the last {seen} times, first in training batch {first} (counted from 0 over all "
                "epochs). Find the operation with Trainer(detect_anomaly=True) from a checkpoint before that batch; a lower learning "
                "rate, gradient_clip_val or precision='bf16-mixed' in place of '16-mixed' usually help."
            )


def _local(gradient: Any) -> Tensor:
    """Return this rank's part of a gradient: a shard's norm is finite where its elements are."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient
