"""`TransformerEnginePrecision`: NVIDIA's float8 layers with delayed scaling, on Hopper and newer.

Needs CUDA and the package `transformer-engine`, neither of which the tests' machines have: what is tested there is the
part of this module that is ours, against a stand-in with the library's documented interface.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, UnavailableError, listed
from leyden.core.log import get_logger
from leyden.core.optional import require
from leyden.fabric.precision.convert import cast_floating, default_dtype
from leyden.fabric.precision.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = (torch.float16, torch.bfloat16, torch.float32)
IN_MULTIPLE, OUT_MULTIPLE = 8, 16  # the sizes that its float8 products take

logger = get_logger(__name__)


class TransformerEnginePrecision(Precision):
    """`transformer-engine` (bfloat16 weights) or `transformer-engine-float16`: NVIDIA's layers compute in float8.

    Args:
        weights_dtype: Of weights and inputs.
        recipe: A `DelayedScaling`, or a dictionary of its arguments; default: the library's.
        replace_layers: Whether linear and layer-norm layers are replaced by the library's; default: unless the model has some already.
        fallback_compute_dtype: In which other layers compute; default: `weights_dtype`.

    Raises:
        MissingDependencyError: The library is not installed.
        UnavailableError: torch sees no CUDA device.
        ConfigError: Another dtype, or a recipe with arguments that do not exist.

    Example:
        ```python
        fabric = Fabric(plugins=TransformerEnginePrecision(weights_dtype=torch.bfloat16, recipe={"amax_history_len": 16}))
        ```
    """

    def __init__(
        self,
        *,
        weights_dtype: torch.dtype,
        recipe: Mapping[str, Any] | Any | None = None,
        replace_layers: bool | None = None,
        fallback_compute_dtype: torch.dtype | None = None,
    ) -> None:
        for name, dtype in (("weights_dtype", weights_dtype), ("fallback_compute_dtype", fallback_compute_dtype or weights_dtype)):
            if dtype not in WEIGHTS:
                raise ConfigError(f"TransformerEnginePrecision({name}={dtype!r}): accepted are {listed(WEIGHTS)}.")
        self._engine: Any = require(
            "transformer_engine.pytorch", purpose="TransformerEnginePrecision", package="transformer_engine[pytorch]"
        )
        if not torch.cuda.is_available():
            raise UnavailableError(
                f"TransformerEnginePrecision needs a CUDA device, but torch {torch.__version__} sees none. Use precision='bf16-mixed', or "
                "plugins=Float8Precision(), which emulates float8 anywhere."
            )
        self.precision = "transformer-engine" if weights_dtype is not torch.float16 else "transformer-engine-float16"
        self.compute_dtype = weights_dtype
        self.fallback_compute_dtype = fallback_compute_dtype or weights_dtype
        self.replace_layers = replace_layers
        self.recipe = _recipe(recipe)

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Replace layers, in place, and cast all weights. Layers get new parameters: build optimizers after `setup_module`."""
        has_some = any(type(part).__module__.partition(".")[0] == "transformer_engine" for part in module.modules())
        if self.replace_layers is True and has_some:
            logger.info("the model has layers of transformer_engine already; the others are replaced too")
        if self.replace_layers or (self.replace_layers is None and not has_some):
            self._replace(module)
        return module.to(dtype=self.compute_dtype)

    def _replace(self, module: nn.Module) -> None:
        kept = []
        for name, part in list(module.named_modules()):
            new = self._counterpart(part) if name else None
            if new is not None:
                parent, _, child = name.rpartition(".")
                setattr(module.get_submodule(parent), child, new)
            elif isinstance(part, nn.Linear):
                kept.append(f"{name or 'the module itself'} ({part.in_features}x{part.out_features})")
        if kept:
            logger.info(
                "linear layers whose sizes are no multiples of %d and %d stay torch's: %s", IN_MULTIPLE, OUT_MULTIPLE, ", ".join(kept)
            )

    def _counterpart(self, part: nn.Module) -> nn.Module | None:
        """Return the library's layer with the weights of torch's, or `None` if it has none for it."""
        new: Any
        if type(part) is nn.Linear and part.in_features % IN_MULTIPLE == 0 and part.out_features % OUT_MULTIPLE == 0:
            new = self._engine.Linear(part.in_features, part.out_features, bias=part.bias is not None)
        elif type(part) is nn.LayerNorm and part.elementwise_affine and part.bias is not None and len(part.normalized_shape) == 1:
            new = self._engine.LayerNorm(part.normalized_shape[0], eps=part.eps)
        else:
            return None
        with torch.no_grad():
            new.weight.copy_(part.weight)
            if part.bias is not None:
                new.bias.copy_(part.bias)
        return new.train(part.training)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def module_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def forward_context(self) -> AbstractContextManager[Any]:
        return self._forward_context()

    @contextmanager
    def _forward_context(self) -> "Iterator[None]":
        with ExitStack() as stack:
            stack.enter_context(default_dtype(self.compute_dtype))
            stack.enter_context(torch.autocast("cuda", dtype=self.fallback_compute_dtype))
            stack.enter_context(self._engine.fp8_autocast(enabled=True, fp8_recipe=self.recipe))
            yield

    def convert_input(self, data: Any) -> Any:
        return cast_floating(data, self.compute_dtype)

    def convert_output(self, data: Any) -> Any:
        return cast_floating(data, torch.get_default_dtype())


def _recipe(recipe: Any) -> Any:
    """Return the library's recipe object for a dictionary of its arguments.

    Raises:
        ConfigTypeError: Something that is neither.
        ConfigError: Arguments that do not exist.
    """
    library: Any = require("transformer_engine.common.recipe", purpose="TransformerEnginePrecision", package="transformer_engine[pytorch]")
    if not isinstance(recipe, Mapping):
        if recipe is not None and not isinstance(recipe, getattr(library, "Recipe", object)):
            raise ConfigTypeError(
                f"TransformerEnginePrecision(recipe={recipe!r}): expected a recipe of transformer_engine or a dictionary."
            )
        return recipe
    options = dict(recipe)
    if isinstance(options.get("fp8_format"), str):
        options["fp8_format"] = getattr(library.Format, options["fp8_format"], options["fp8_format"])
    try:
        return library.DelayedScaling(**options)
    except TypeError as error:
        names = (
            [field.name for field in dataclasses.fields(library.DelayedScaling)] if dataclasses.is_dataclass(library.DelayedScaling) else []
        )
        raise ConfigError(f"TransformerEnginePrecision(recipe={dict(recipe)!r}): {error}. DelayedScaling takes {listed(names)}.") from error
