"""The table of hooks: who has it, what it is called with, what `self.log` means inside.

One row per hook. `plan.py` resolves the rows once per run; `metrics` reads the logging rule; nothing else knows hook names.
"""

from dataclasses import dataclass
from typing import Literal

Rule = Literal["step", "epoch", "epoch_only", "never"]
"""`self.log` inside: defaults to on_step, defaults to on_epoch, allows on_epoch alone, or is refused."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook.

    Args:
        name: The method's name.
        callback: Whether callbacks have it; they get `(trainer, pl_module, …)`.
        module: Whether the module has it.
        log: What `self.log` means inside.
    """

    name: str
    callback: bool = True
    module: bool = True
    log: Rule = "never"


_ROWS = (
    Hook("on_fit_start"),
    Hook("on_fit_end"),
    Hook("on_sanity_check_start", module=False),
    Hook("on_sanity_check_end", module=False),
    Hook("on_train_start", log="epoch_only"),
    Hook("on_train_end"),
    Hook("on_train_epoch_start", log="epoch_only"),
    Hook("on_train_epoch_end", log="epoch_only"),
    Hook("on_train_batch_start", log="step"),
    Hook("on_train_batch_end", log="step"),
    Hook("on_before_zero_grad", log="step"),
    Hook("on_before_backward", log="step"),
    Hook("on_after_backward", log="step"),
    Hook("on_before_optimizer_step", log="step"),
    Hook("training_step", callback=False, log="step"),
    Hook("optimizer_step", callback=False, log="step"),
    Hook("optimizer_zero_grad", callback=False, log="step"),
    Hook("backward", callback=False, log="step"),
    Hook("configure_gradient_clipping", callback=False, log="step"),
    Hook("clip_gradients", callback=False, log="step"),
    Hook("lr_scheduler_step", callback=False),
    *(
        hook
        for stage in ("validation", "test")
        for hook in (
            Hook(f"on_{stage}_start", log="epoch_only"),
            Hook(f"on_{stage}_end"),
            Hook(f"on_{stage}_epoch_start", log="epoch_only"),
            Hook(f"on_{stage}_epoch_end", log="epoch_only"),
            Hook(f"on_{stage}_batch_start", log="epoch"),
            Hook(f"on_{stage}_batch_end", log="epoch"),
            Hook(f"{stage}_step", callback=False, log="epoch"),
            Hook(f"on_{stage}_model_eval", callback=False),
            Hook(f"on_{stage}_model_train", callback=False),
        )
    ),
    Hook("on_validation_model_zero_grad", callback=False),
    Hook("on_predict_start"),
    Hook("on_predict_end"),
    Hook("on_predict_epoch_start"),
    Hook("on_predict_epoch_end"),
    Hook("on_predict_batch_start"),
    Hook("on_predict_batch_end"),
    Hook("predict_step", callback=False),
    Hook("on_predict_model_eval", callback=False),
    Hook("on_before_batch_transfer", callback=False),
    Hook("transfer_batch_to_device", callback=False),
    Hook("on_after_batch_transfer", callback=False),
    Hook("on_save_checkpoint"),
    Hook("on_load_checkpoint"),
    Hook("on_exception", module=False),
    Hook("configure_model", callback=False),
    Hook("configure_optimizers", callback=False),
    Hook("configure_callbacks", callback=False),
    Hook("prepare_data", callback=False),
    Hook("setup"),
    Hook("teardown"),
)
HOOKS: dict[str, Hook] = {hook.name: hook for hook in _ROWS}
"""Every hook by its name."""


def log_rule(name: str) -> Rule:
    """Return what `self.log` means inside the hook `name`; `"never"` for an unknown one.

    Example:
        >>> log_rule("training_step"), log_rule("on_validation_epoch_end"), log_rule("predict_step")
        ('step', 'epoch_only', 'never')
    """
    hook = HOOKS.get(name)
    return hook.log if hook else "never"
