"""`ModelSummary`: a model's layers, parameters, size and cost as numbers and as a table.

Sizes and FLOPs come from one forward pass with `example_input_array`, in evaluation mode, without gradients, under isolated
generators, so that a run with a summary and one without are the same. Where a pass would change something or needs all
ranks (parameters that are not materialised, or sharded), there is none, and sizes are `"?"`.
"""

import sys
import warnings
from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from leyden.core.errors import ConfigError
from leyden.fabric.loading.transfer import move_data_to_device
from leyden.fabric.precision.precision import Precision
from leyden.fabric.rng import isolate_rng
from leyden.trainer.engine.modes import capture_modes, restore_modes
from leyden.trainer.summary.layer import NOT_APPLICABLE, LayerSummary, parameter_count
from leyden.trainer.summary.table import human_readable, text_table

_LEFTOVER = "other params"


class ModelSummary:
    """The layers of a model.

    Args:
        model: A `LightningModule`, or any module.
        max_depth: How deep to look: 1 shows the model's own layers, 2 theirs too, -1 all, 0 totals only.

    Raises:
        ConfigError: `max_depth` is out of range.

    Example:
        >>> print(ModelSummary(nn.Sequential(nn.Linear(4, 2))))
          | Name | Type   | Params | Mode  | FLOPs
        -------------------------------------------
        0 | 0    | Linear | 10     | train | 0
        -------------------------------------------
        10        Trainable params
        0         Non-trainable params
        10        Total params
        0.000     Total estimated model params size (MB)
        1         Modules in train mode
        0         Modules in eval mode
        0         Total Flops
    """

    def __init__(self, model: nn.Module, max_depth: int = 1) -> None:
        check_depth(max_depth)
        self._model = model
        self._max_depth = max_depth
        self._flops: Counter[str] = Counter()
        self._layers = self.summarize()

    # -- layers --------------------------------------------------------------------------------------------------

    @property
    def named_modules(self) -> list[tuple[str, nn.Module]]:
        """The layers that are shown, each once."""
        depth = self._max_depth
        parts = [(name, part) for name, part in self._model.named_modules() if name]
        return parts if depth == -1 else [(name, part) for name, part in parts if name.count(".") < depth]

    @property
    def layer_names(self) -> list[str]:
        """Their names."""
        return list(self._layers)

    @property
    def layer_types(self) -> list[str]:
        """Their classes' names."""
        return [layer.layer_type for layer in self._layers.values()]

    @property
    def in_sizes(self) -> list[Any]:
        """What went in; `"?"` without an example input."""
        return [layer.in_size for layer in self._layers.values()]

    @property
    def out_sizes(self) -> list[Any]:
        """What came out; `"?"` without an example input."""
        return [layer.out_size for layer in self._layers.values()]

    @property
    def param_nums(self) -> list[int]:
        """Their numbers of parameters."""
        return [layer.num_parameters for layer in self._layers.values()]

    @property
    def training_modes(self) -> list[bool]:
        """Whether each is in training mode."""
        return [layer.training for layer in self._layers.values()]

    @property
    def flop_counts(self) -> dict[str, int]:
        """Layer → floating-point operations of one forward pass; 0 without an example input."""
        return {name: self._flops[name] for name in self._layers}

    # -- totals --------------------------------------------------------------------------------------------------

    @property
    def total_parameters(self) -> int:
        """Parameters of the model, shared ones once."""
        return sum(parameter_count(parameter) for parameter in self._model.parameters())

    @property
    def trainable_parameters(self) -> int:
        """Parameters that require gradients."""
        return sum(parameter_count(parameter) for parameter in self._model.parameters() if parameter.requires_grad)

    @property
    def total_layer_params(self) -> int:
        """Parameters of the layers that are shown."""
        return sum(self.param_nums)

    @property
    def model_size(self) -> float:
        """Megabytes of the parameters, each in its own dtype."""
        return sum(parameter_count(parameter) * parameter.element_size() for parameter in self._materialised()) * 1e-6

    @property
    def total_training_modes(self) -> dict[str, int]:
        """How many modules, at any depth, are in training and in evaluation mode; the model itself does not count."""
        modes = Counter("train" if part.training else "eval" for name, part in self._model.named_modules() if name)
        return {"train": modes["train"], "eval": modes["eval"]}

    @property
    def total_flops(self) -> int:
        """Floating-point operations of one forward pass; 0 without an example input."""
        return self._flops[""]

    def _materialised(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._model.parameters() if not is_lazy(parameter)]

    # -- making it -----------------------------------------------------------------------------------------------

    def summarize(self) -> dict[str, LayerSummary]:
        """Look at the model; return layer → what it is."""
        layers = {name: LayerSummary(part) for name, part in self.named_modules}
        if any(is_lazy(parameter) for parameter in self._model.parameters()):
            warnings.warn(
                "The total number of parameters detected may be inaccurate: the model contains an instance of `UninitializedParameter`. "
                "Run a batch through it first to have it counted: `model(example)`.",
                stacklevel=3,
            )
        elif getattr(self._model, "example_input_array", None) is not None and not self._is_sharded():
            self._forward_example(layers)
        return layers

    def _is_sharded(self) -> bool:
        module = sys.modules.get("torch.distributed.tensor")
        return any(
            hasattr(parameter, "ds_numel") or (module is not None and isinstance(parameter, module.DTensor))
            for parameter in self._model.parameters()
        )

    def _forward_example(self, layers: dict[str, LayerSummary]) -> None:
        from torch.utils.flop_counter import FlopCounterMode  # loads half of torch's compiler: only who has an example pays

        model, counter = self._model, FlopCounterMode(display=False)
        first = next(model.parameters(), None)
        example = move_data_to_device(model.example_input_array, torch.device("cpu") if first is None else first.device)
        modes, precision = capture_modes(model), _precision(model)
        with ExitStack() as stack:
            for manager in (isolate_rng(), torch.no_grad(), precision.forward_context(), counter):
                stack.enter_context(manager)
            for layer in layers.values():
                stack.callback(layer.watch().remove)
            stack.callback(restore_modes, modes)
            model.eval()
            try:
                _call(model, precision.convert_input(example))
            except Exception as error:
                error.add_note("This happened while the model summary ran `forward` with `example_input_array`.")
                raise
        root = type(model).__name__
        for name, operations in counter.get_flop_counts().items():
            self._flops["" if name == "Global" else name.removeprefix(f"{root}.")] += sum(operations.values()) if name != root else 0

    # -- showing it ----------------------------------------------------------------------------------------------

    def columns(self) -> list[tuple[str, list[str]]]:
        """Return head and cells of each column of the table; empty if no layer is shown."""
        if not self._layers:
            return []
        columns = [
            (" ", [str(index) for index in range(len(self._layers))]),
            ("Name", self.layer_names),
            ("Type", self.layer_types),
            ("Params", [human_readable(count) for count in self.param_nums]),
            ("Mode", ["train" if is_training else "eval" for is_training in self.training_modes]),
            ("FLOPs", [human_readable(count) for count in self.flop_counts.values()]),
        ]
        if getattr(self._model, "example_input_array", None) is not None:
            columns += [("In sizes", [str(size) for size in self.in_sizes]), ("Out sizes", [str(size) for size in self.out_sizes])]
        leftover = self.total_parameters - self._shown_parameters()
        if leftover > 0:
            known = {" ": " ", "Name": _LEFTOVER, "Params": human_readable(leftover)}
            for head, cells in columns:
                cells.append(known.get(head, NOT_APPLICABLE))
        return columns

    def _shown_parameters(self) -> int:
        shown = {id(parameter): parameter for _, part in self.named_modules for parameter in part.parameters()}
        return sum(parameter_count(parameter) for parameter in shown.values())

    def __str__(self) -> str:
        return summary_text(
            self.columns(),
            self.total_parameters,
            self.trainable_parameters,
            self.model_size,
            self.total_training_modes,
            total_flops=self.total_flops,
        )

    def __repr__(self) -> str:
        return str(self)


def summarize(lightning_module: nn.Module, max_depth: int = 1) -> ModelSummary:
    """Return the summary of a model: `DeepSpeedSummary` if DeepSpeed has sharded its parameters.

    Args:
        lightning_module: A `LightningModule`, or any module.
        max_depth: How deep to look: 1 shows the model's own layers, -1 all, 0 totals only.

    Raises:
        ConfigError: `max_depth` is out of range.
    """
    if any(hasattr(parameter, "ds_numel") for parameter in lightning_module.parameters()):
        return DeepSpeedSummary(lightning_module, max_depth=max_depth)
    return ModelSummary(lightning_module, max_depth=max_depth)


class DeepSpeedSummary(ModelSummary):
    """The summary of a model that DeepSpeed's stage 3 has sharded: it also shows what each device holds.

    Args:
        model: The model.
        max_depth: How deep to look.
    """

    @property
    def parameters_per_layer(self) -> list[int]:
        """How many parameters of each layer lie on this device."""
        return [_local_count(part) for _, part in self.named_modules]

    def columns(self) -> list[tuple[str, list[str]]]:
        columns = super().columns()
        if columns:
            cells = [human_readable(count) for count in self.parameters_per_layer]
            at = [head for head, _ in columns].index("Params") + 1
            columns.insert(at, ("Params per Device", cells + [NOT_APPLICABLE] * (len(columns[0][1]) - len(cells))))
        return columns


def summary_text(
    columns: list[tuple[str, list[str]]],
    total_parameters: int,
    trainable_parameters: int,
    model_size: float,
    total_training_modes: dict[str, int],
    *,
    total_flops: int,
) -> str:
    """Return a summary as plain text: the table of layers, then a line for each total."""
    totals = total_lines(total_parameters, trainable_parameters, model_size, total_training_modes, total_flops=total_flops)
    lines = [f"{value:<10}{label}" for label, value in totals]
    return "\n".join([text_table(columns), *lines] if columns else lines)


def total_lines(
    total_parameters: int, trainable_parameters: int, model_size: float, total_training_modes: dict[str, int], *, total_flops: int
) -> list[tuple[str, str]]:
    """Return label and value of each total."""
    return [
        ("Trainable params", human_readable(trainable_parameters)),
        ("Non-trainable params", human_readable(total_parameters - trainable_parameters)),
        ("Total params", human_readable(total_parameters)),
        ("Total estimated model params size (MB)", f"{model_size:,.3f}"),
        ("Modules in train mode", str(total_training_modes["train"])),
        ("Modules in eval mode", str(total_training_modes["eval"])),
        ("Total Flops", human_readable(total_flops)),
    ]


def check_depth(max_depth: Any) -> None:
    """Refuse a depth that means nothing.

    Raises:
        ConfigError: It is no integer from -1 on.
    """
    if not isinstance(max_depth, int) or max_depth < -1:
        raise ConfigError(
            f"`max_depth` can be -1, 0 or > 0, got {max_depth!r}. Use 1 for the model's own layers, -1 for all, 0 for totals."
        )


def _precision(model: Any) -> Precision:
    trainer = model.__dict__.get("_trainer")  # a plain module has none
    return Precision() if trainer is None else trainer.precision_plugin


def _call(model: nn.Module, example: Any) -> Any:
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def _local_count(part: nn.Module) -> int:
    parameters: Any = part.parameters()  # with DeepSpeed's own method
    return sum(int(parameter.partition_numel()) for parameter in parameters)
