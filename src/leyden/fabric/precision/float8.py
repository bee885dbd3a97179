"""`Float8Precision`: matrix products of linear layers in float8 with dynamic scales, everything else as in `bf16-mixed`.

Micikevicius et al., *FP8 Formats for Deep Learning*, 2022, https://arxiv.org/abs/2209.05433; the layers are torchao's.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed
from leyden.core.log import get_logger
from leyden.core.optional import installed, require
from leyden.fabric.precision.convert import cast_floating
from leyden.fabric.precision.precision import Precision

RECIPES = ("tensorwise", "rowwise")
MULTIPLE = 16  # of both sizes of a layer, or the hardware's float8 product does not take it
FIRST_CAPABILITY = (8, 9)  # Ada; Hopper is (9, 0)

logger = get_logger(__name__)


class Float8Precision(Precision):
    """`float8`: float32 weights, linear layers multiply in float8, the rest computes in bfloat16.

    Layers of a size that is no multiple of 16 and the last linear layer stay in bfloat16; the log lists them (level info).

    Args:
        recipe: `"tensorwise"`: one scale per tensor, fastest; `"rowwise"`: one per row, more accurate.
        filter: `filter(name, module) -> bool`, for each linear layer: whether it computes in float8. It also decides on the last one.
        emulate: Whether float8 is emulated in higher precision, slowly; default: where the device cannot, with a warning.
        device: The device type, such as `"cuda"`; default: the accelerator that torch sees, else the CPU.

    Raises:
        ConfigError: Another recipe.
        MissingDependencyError: torchao is not installed.

    Example:
        ```python
        fabric = Fabric(plugins=Float8Precision(recipe="rowwise", filter=lambda name, module: "mlp" in name))
        ```
    """

    precision = "float8"
    compute_dtype = torch.bfloat16

    def __init__(
        self,
        recipe: Literal["tensorwise", "rowwise"] = "tensorwise",
        filter: Callable[[str, nn.Module], bool] | None = None,
        emulate: bool | None = None,  # noqa: FBT001 - the documented signature
        *,
        device: str | None = None,
    ) -> None:
        if recipe not in RECIPES:
            raise ConfigError(f"Float8Precision(recipe={recipe!r}): accepted are {listed(RECIPES)}.{closest(str(recipe), RECIPES)}")
        if filter is not None and not callable(filter):
            raise ConfigTypeError(f"Float8Precision(filter={filter!r}): expected a function (name, module) -> bool.")
        if not installed("torchao"):
            require("torchao", purpose="Float8Precision", extra="float8")
        self.recipe = recipe
        self.filter = filter
        self.emulate = emulate
        self.device = device or _present_device()

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Replace linear layers, in place; their parameters stay the same objects, so optimizers keep them.

        Raises:
            ConfigError: No layer could be replaced.
        """
        chosen, kept = self.choose(module)
        if not chosen:
            raise ConfigError(f"precision='float8': no layer can compute in float8. {_told(kept)} Use precision='bf16-mixed'.")
        emulate = self.emulate if self.emulate is not None else not can_float8(self.device)
        if emulate and self.emulate is None:
            warnings.warn(
                f"float8 is emulated on {self.device!r}, which is slow: products in float8 need a CUDA device of capability "
                f"{FIRST_CAPABILITY[0]}.{FIRST_CAPABILITY[1]} or newer. Pass Float8Precision(emulate=True) to say that you want it, or use "
                "precision='bf16-mixed'.",
                stacklevel=3,
            )
        if kept:
            logger.info("%d linear layers compute in float8. %s", len(chosen), _told(kept))
        float8 = _torchao()
        config = dataclasses.replace(float8.Float8LinearConfig.from_recipe_name(self.recipe), emulate=emulate)
        if isinstance(module, nn.Linear):
            return float8.convert_to_float8_training(module, config=config)

        def is_chosen(_: nn.Module, name: str) -> bool:
            return name in chosen

        return float8.convert_to_float8_training(module, config=config, module_filter_fn=is_chosen)

    def choose(self, module: nn.Module) -> tuple[set[str], dict[str, str]]:
        """Return the names of the layers for float8, and of the other linear layers with the reason."""
        linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
        last = next(reversed(linear), None) if len(linear) > 1 and self.filter is None else None
        kept: dict[str, str] = {}
        for name, part in linear.items():
            if part.in_features % MULTIPLE or part.out_features % MULTIPLE:
                kept[name] = f"{part.in_features}x{part.out_features} is no multiple of {MULTIPLE}"
            elif self.filter is not None and not self.filter(name, part):
                kept[name] = "filtered out"
            elif name == last:
                kept[name] = "the last layer"
        return set(linear) - set(kept), kept

    def forward_context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=torch.is_grad_enabled())

    def convert_input(self, data: Any) -> Any:
        return cast_floating(data, torch.float32)

    def convert_output(self, data: Any) -> Any:
        return cast_floating(data, torch.get_default_dtype())


def can_float8(device: str) -> bool:
    """Return whether a device type multiplies in float8 here."""
    return device == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= FIRST_CAPABILITY


def _present_device() -> str:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator is not None else "cpu"


def _told(kept: Mapping[str, str]) -> str:
    if not kept:
        return "It has no linear layers."
    return "In bfloat16 stay " + ", ".join(f"{name or 'the module itself'} ({reason})" for name, reason in kept.items()) + "."


def _torchao() -> Any:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, SyntaxWarning):  # of torchao's own sources, at their first import
            warnings.simplefilter("ignore", category)
        return require("torchao.float8", purpose="Float8Precision", extra="float8")
