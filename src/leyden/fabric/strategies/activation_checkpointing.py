"""Activation checkpointing: recompute a block's forward in backward instead of keeping its activations.

The block keeps its class and its names: its own `forward` is replaced on the instance, so state dicts do not change.
Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016, https://arxiv.org/abs/1604.06174.
"""

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from leyden.core.errors import ConfigError
from leyden.fabric.names import class_name
from leyden.fabric.strategies.wrapping import units


def checkpoint_activations(module: nn.Module, policy: object) -> None:
    """Recompute the submodules that `policy` selects (see `wrapping`), in place; non-reentrant.

    Raises:
        ConfigError: The policy selects nothing.
    """
    blocks = [block for block in units(module, policy) if not _is_checkpointed(block)]
    if not blocks and not any(_is_checkpointed(block) for block in module.modules()):
        raise ConfigError(
            f"activation_checkpointing={policy!r} matches no submodule of {class_name(module)}. "
            f"Its classes are: {', '.join(sorted({class_name(child) for child in module.modules()}))}."
        )
    for block in blocks:
        block.forward = _Recomputed(block.forward)


def _is_checkpointed(module: nn.Module) -> bool:
    return isinstance(module.__dict__.get("forward"), _Recomputed)


class _Recomputed:
    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self._forward, *args, use_reentrant=False, **kwargs)
