"""`BitsandbytesPrecision`: weights of linear layers in 4 or 8 bits, to run or to fine-tune adapters on large models in little memory.

Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023, https://arxiv.org/abs/2305.14314 (`nf4`, `-dq`);
*LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale*, 2022, https://arxiv.org/abs/2208.07339 (`int8`).
"""

import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, closest, listed
from leyden.core.optional import installed, require
from leyden.fabric.names import class_name
from leyden.fabric.precision.convert import cast_floating, default_dtype
from leyden.fabric.precision.precision import Precision

Mode = Literal["nf4", "nf4-dq", "fp4", "fp4-dq", "int8", "int8-training"]
MODES: tuple[str, ...] = get_args(Mode)
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
OUTLIERS = 6.0  # activations beyond it are multiplied in 16 bits (the paper's threshold)


class BitsandbytesPrecision(Precision):
    """Quantises the weights of linear layers; a plug-in: `Fabric(plugins=BitsandbytesPrecision("nf4"))`.

    Weights are quantised when they reach the device, and do not train, except with `"int8-training"`. Optimizers are not
    replaced; build them after `setup_module`, since layers get new parameters. Load weights before it.

    Args:
        mode: `"nf4"`, `"fp4"` (4 bits; `-dq` quantises the scales too), `"int8"` (inference) or `"int8-training"`.
        dtype: In which it computes, and keeps everything else; default: float16 for int8, else bfloat16.
        ignore_modules: Names, or beginnings of names, of submodules whose layers stay as they are: `{"lm_head"}`.

    Raises:
        ConfigError: Another mode, or a dtype that the mode cannot compute in.
        ConfigTypeError: `ignore_modules` is no collection of names.
        MissingDependencyError: bitsandbytes is not installed.

    Example:
        ```python
        fabric = Fabric(plugins=BitsandbytesPrecision("nf4-dq", ignore_modules={"lm_head"}))
        ```
    """

    def __init__(self, mode: Mode, dtype: torch.dtype | None = None, ignore_modules: Iterable[str] | None = None) -> None:
        if mode not in MODES:
            raise ConfigError(f"BitsandbytesPrecision(mode={mode!r}): accepted are {listed(MODES)}.{closest(str(mode), MODES)}")
        is_int8 = mode.startswith("int8")
        dtype = dtype or (torch.float16 if is_int8 else torch.bfloat16)
        if dtype not in FLOATS:
            raise ConfigError(f"BitsandbytesPrecision(dtype={dtype}): accepted are {listed(FLOATS)}.")
        if is_int8 and dtype is not torch.float16:
            raise ConfigError(f"BitsandbytesPrecision({mode!r}, dtype={dtype}): int8 only works with dtype=torch.float16. Leave dtype out.")
        if isinstance(ignore_modules, str) or (ignore_modules is not None and not isinstance(ignore_modules, Iterable)):
            raise ConfigTypeError(f"BitsandbytesPrecision(ignore_modules={ignore_modules!r}): expected a set of names: {{'lm_head'}}.")
        if not installed("bitsandbytes"):
            require("bitsandbytes", purpose="BitsandbytesPrecision", extra="bitsandbytes")
        self.mode: Mode = mode
        self.precision = f"bnb.{mode}"
        self.compute_dtype = dtype
        self.ignore_modules = frozenset(ignore_modules or ())

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Replace linear layers, in place; they quantise when they are moved to a device, also to the CPU.

        Raises:
            ConfigTypeError: The module has no linear layer to quantise.
            StateError: The module itself is one linear layer, or its weights are on the meta device.
        """
        names = self.choose(module)
        bnb = _bitsandbytes()
        if not names and not any(isinstance(part, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)) for part in module.modules()):
            ignored = f" besides {listed(sorted(self.ignore_modules))}" if self.ignore_modules else ""
            raise ConfigTypeError(
                f"BitsandbytesPrecision quantises linear layers, but your model {class_name(module)} has none{ignored}. "
                "Use precision='bf16-true' for it."
            )
        module.to(dtype=self.compute_dtype)
        for name in names:
            layer = module.get_submodule(name)
            if not name:
                raise StateError("BitsandbytesPrecision replaces layers inside a module; wrap this one: nn.Sequential(linear).")
            if isinstance(layer, nn.Linear) and layer.weight.is_meta:
                raise StateError(f"{name!r} is on the meta device and has no weights to quantise. Build it with fabric.init_module().")
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, self._quantised(layer))
        return module

    def choose(self, module: nn.Module) -> list[str]:
        """Return the names of the layers to quantise."""
        return [
            name
            for name, part in module.named_modules()
            if type(part) is nn.Linear and not any(name == start or name.startswith(start + ".") for start in self.ignore_modules)
        ]

    def _quantised(self, layer: Any) -> nn.Module:
        bnb = _bitsandbytes()
        new: Any
        weight = layer.weight.detach()
        with torch.device("meta"):  # the weights are here already
            if self.mode.startswith("int8"):
                trains = self.mode == "int8-training"
                new = bnb.nn.Linear8bitLt(layer.in_features, layer.out_features, has_fp16_weights=trains, threshold=OUTLIERS)
                new.weight = bnb.nn.Int8Params(weight, requires_grad=trains and layer.weight.requires_grad, has_fp16_weights=trains)
            else:
                kind, _, scales = self.mode.partition("-")
                options = {"quant_type": kind, "compress_statistics": scales == "dq"}
                new = bnb.nn.Linear4bit(layer.in_features, layer.out_features, compute_dtype=self.compute_dtype, **options)
                new.weight = bnb.nn.Params4bit(weight, requires_grad=False, module=new, **options)
        new.bias = layer.bias
        return new.train(layer.training)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def module_init_context(self) -> AbstractContextManager[Any]:
        """Return the context in which a model is built in the compute dtype; `setup_module` quantises it.

        Raises:
            StateError: With `ignore_modules`, whose names a module under construction does not know.
        """
        if self.ignore_modules:
            raise StateError(
                "Instantiating your model under the `init_module` context manager is not supported when used with "
                "`BitsandbytesPrecision(..., ignore_modules=...)`. Build it outside: model = Model(); model = fabric.setup_module(model)."
            )
        return default_dtype(self.compute_dtype)

    def forward_context(self) -> AbstractContextManager[Any]:
        return default_dtype(self.compute_dtype)

    def convert_input(self, data: Any) -> Any:
        return cast_floating(data, self.compute_dtype)

    def convert_output(self, data: Any) -> Any:
        return cast_floating(data, torch.get_default_dtype())


def _bitsandbytes() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what bitsandbytes imports uses things that torch means to drop
        return require("bitsandbytes", purpose="BitsandbytesPrecision", extra="bitsandbytes")
