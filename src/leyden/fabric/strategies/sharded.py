"""`ShardedStrategy`: what the strategies whose ranks each hold a part of the weights share.

How a module is cut is theirs (`fully_shard`, the user's function); building it empty, giving it values, marking methods,
clipping over all parts and saving are the same. The functions this is made of are in `sharding`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.fabric import rng
from leyden.fabric.strategies.parallel import ParallelStrategy
from leyden.fabric.strategies.sharding import clip_grad_norm, clip_grad_value, free_whole_weights, materialise
from leyden.fabric.strategies.strategy import StateFilter, StateLayout, entered


class ShardedStrategy(ParallelStrategy):  # noqa: SIZE003 - the documented protocol of a strategy
    """A strategy whose ranks keep weights, gradients and optimizer state in parts."""

    state_layout: ClassVar[StateLayout] = "sharded"
    supports_no_sync: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._num_built_empty = 0  # models built on the meta device by us that have not been set up

    @property
    @abstractmethod
    def saves_one_file(self) -> bool:
        """Whether `save` gathers everything into a file where the caller leaves the format open."""

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        if not empty_init:
            # Ranks build on the CPU and shard from there: the device never holds more than one whole unit.
            return self.precision.module_init_context()
        self._num_built_empty += 1
        return entered(torch.device("meta"), self.precision.module_init_context())

    def module_to_device(self, module: nn.Module) -> None:
        """Do nothing: a module moves part by part, while it is cut."""

    def fill(self, modules: Iterable[tuple[str, nn.Module]], init: Callable[[nn.Module], None] | None = None) -> None:
        """Give what these modules have on the meta device memory and initial values.

        Args:
            modules: Full name → module.
            init: The user's initialiser instead of `reset_parameters`.
        """
        may_stay_empty = self._num_built_empty > 0
        materialise(modules, device=self.root_device, seed=rng.run_seed() or 0, init=init, may_stay_empty=may_stay_empty)

    def forget_built(self) -> None:
        """Count one model built empty as set up."""
        self._num_built_empty = max(0, self._num_built_empty - 1)

    def mark_forward_method(self, module: nn.Module, name: str) -> None:
        from torch.distributed.fsdp import register_fsdp_forward_method  # a second of import

        register_fsdp_forward_method(module, name)

    def clip_gradients_norm(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        max_norm: float,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = True,
    ) -> Tensor:
        self.precision.unscale_gradients(optimizer)
        return clip_grad_norm(self.precision.main_params(optimizer), max_norm, norm_type, error_if_nonfinite=error_if_nonfinite)

    def clip_gradients_value(self, module: nn.Module, optimizer: Optimizer, clip_val: float) -> None:
        self.precision.unscale_gradients(optimizer)
        clip_grad_value(self.precision.main_params(optimizer), clip_val)

    def save_checkpoint(
        self,
        path: str | Path,
        state: dict[str, Any],
        storage_options: Any = None,
        filter: StateFilter | None = None,
        *,
        blocking: bool = True,
        format: str = "auto",
    ) -> None:
        if format == "auto" and self.saves_one_file:
            format = "file"
        _free(state)
        super().save_checkpoint(path, state, storage_options, filter, blocking=blocking, format=format)

    def load_checkpoint(
        self,
        path: str | Path,
        state: Any = None,
        strict: bool = True,
        weights_only: bool | None = None,
        *,
        restore_rng: Literal["auto"] | bool = "auto",
    ) -> dict[str, Any]:
        _free(state)
        return super().load_checkpoint(path, state, strict, weights_only, restore_rng=restore_rng)


def _free(state: Any) -> None:
    """Free weights that a forward gathered and no backward freed: optimizers know parameters by their shards."""
    from leyden.fabric.checkpoint.items import find_items  # with the first save: who saves nothing pays nothing

    for item in find_items(state) if isinstance(state, dict) else []:
        if item.kind == "module":
            free_whole_weights(item.value)
