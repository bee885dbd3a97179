"""Compiling a module for a run: its `forward` and its four steps, in place, so that no strategy and no name changes.

The module the user compiled lends its compiler; `Trainer(compile="model")` brings one. Logging is left out of the graphs: it
keeps Python objects. At the end of the run the module is as it was. `torch._dynamo` is imported by whoever compiles only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from leyden.core.errors import StateError
from leyden.trainer.engine.run import Run

COMPILED = ("forward", "training_step", "validation_step", "test_step", "predict_step")
UNTRACED = ("log", "log_dict", "print")


def compile_steps(run: Run) -> None:
    """Put compiled functions over the module's own, if a compiler was given.

    Raises:
        StateError: The strategy runs the module in an engine of its own.
    """
    compiler = run.compiler or _of_policy(run.compile_policy)
    if compiler is None:
        return
    if run.strategy.owns_backward:
        raise StateError(
            f"{type(run.strategy).__name__} does not support compiled modules: pass the module itself, or compile its blocks with "
            'Trainer(compile="blocks").'
        )
    own = run.module.__dict__
    for name in UNTRACED:
        own[name] = torch.compiler.disable(getattr(run.module, name))
    for name in COMPILED:
        if run.plan.overrides(name):
            own[name] = compiler(getattr(run.module, name))


def restore_methods(run: Run) -> None:
    """Take the compiled functions away again."""
    for name in (*COMPILED, *UNTRACED):
        run.module.__dict__.pop(name, None)


def _of_policy(policy: Any) -> Callable[..., Any] | None:
    if policy is None or policy.scope != "model":
        return None
    return partial(torch.compile, **policy.arguments)
