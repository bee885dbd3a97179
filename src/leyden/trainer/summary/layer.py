"""`LayerSummary`: what one layer is: its type, parameters, mode, and the sizes that went in and out."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

UNKNOWN_SIZE = "?"
NOT_APPLICABLE = "n/a"


class LayerSummary:
    """One layer of a model.

    Args:
        module: The layer.

    Example:
        >>> layer = LayerSummary(nn.Linear(4, 2))
        >>> layer.layer_type, layer.num_parameters, layer.in_size
        ('Linear', 10, '?')
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._in_size: Any = UNKNOWN_SIZE
        self._out_size: Any = UNKNOWN_SIZE

    @property
    def in_size(self) -> Any:
        """The sizes of what the layer took last while it was watched, nested as it was; `"?"` if nobody knows."""
        return self._in_size

    @property
    def out_size(self) -> Any:
        """The sizes of what it returned."""
        return self._out_size

    @property
    def layer_type(self) -> str:
        """The name of its class."""
        return type(self._module).__name__

    @property
    def num_parameters(self) -> int:
        """The number of its parameters, frozen ones too; those that are not materialised count as none."""
        return sum(parameter_count(parameter) for parameter in self._module.parameters())

    @property
    def training(self) -> bool:
        """Whether it is in training mode."""
        return self._module.training

    def watch(self) -> RemovableHandle:
        """Note sizes at every call until the handle is removed."""

        def note(_: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            self._in_size = (parse_batch_shape(args[0]) if len(args) == 1 else parse_batch_shape(args)) if args else UNKNOWN_SIZE
            self._out_size = parse_batch_shape(out)

        return self._module.register_forward_hook(note)


def parameter_count(parameter: Tensor) -> int:
    """Return how many numbers a parameter holds over all ranks; 0 if it is not materialised."""
    if is_lazy(parameter):
        return 0
    # DeepSpeed's stage 3 leaves an empty tensor on each rank and writes down the size; a `DTensor`'s shape is the whole's.
    return int(getattr(parameter, "ds_numel", None) or math.prod(parameter.shape))


def parse_batch_shape(batch: Any) -> Any:
    """Return the sizes of a tensor as a list, of a sequence or a mapping's values as a list of such; `"?"` for the rest.

    Example:
        >>> import torch
        >>> parse_batch_shape([torch.zeros(2, 3), 1])
        [[2, 3], '?']
    """
    if hasattr(batch, "shape"):
        return list(batch.shape)
    if isinstance(batch, Mapping):
        return [parse_batch_shape(item) for item in batch.values()]
    if isinstance(batch, (list, tuple)):
        return [parse_batch_shape(item) for item in batch]
    return UNKNOWN_SIZE
