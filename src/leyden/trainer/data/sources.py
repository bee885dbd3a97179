"""Who gives a run its loaders: the call of the entry point, the data module, or the module; and what they may be.

A data module is accepted by protocol: any object that is not iterable itself and has at least one callable
`*_dataloader`. What it lacks counts as not overridden. What was given to the entry point comes first, then the data
module, then the module.
"""

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.loading.loader import FabricDataLoader, Places, prepare_loader
from leyden.fabric.loading.sharding import Mode as ShareMode
from leyden.trainer.core.hooks import DataHooks
from leyden.trainer.data.collections import flattened, mapped
from leyden.trainer.data.combined import MODES, CombinedLoader
from leyden.trainer.data.plain import PlainLoader

STAGES = ("train", "val", "test", "predict")
_SHOWN = {"train": "train_dataloaders", "val": "val_dataloaders"}
_SHARES: dict[str, ShareMode] = {"train": "train", "val": "eval", "test": "eval", "predict": "predict"}


def is_iterable(value: Any) -> bool:
    """Return whether `iter` would take a value; it is not called, since that may draw random numbers."""
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def is_datamodule(value: Any) -> bool:
    """Return whether a value serves as a data module.

    Example:
        >>> class Mine:
        ...     def train_dataloader(self): ...
        >>> is_datamodule(Mine()), is_datamodule([1, 2])
        (True, False)
    """
    return (
        value is not None
        and not isinstance(value, type)
        and not is_iterable(value)
        and any(callable(getattr(value, f"{stage}_dataloader", None)) for stage in STAGES)
    )


def has_hook(obj: Any, name: str) -> bool:
    """Return whether an object has a data hook of its own: in its class, or set on the instance.

    Example:
        >>> has_hook(DataHooks(), "val_dataloader")
        False
    """
    if obj is None:
        return False
    if name in getattr(obj, "__dict__", ()):
        return True
    own = getattr(type(obj), name, None)
    return own is not None and own is not getattr(DataHooks, name, None)


class Source:
    """Where the loaders of one entry point come from.

    Args:
        fn: The entry point: fit, validate, test or predict.
        model: The module.
        datamodule: The data module, if there is one.
        given: Stage → loaders that were passed to the entry point.
    """

    def __init__(self, fn: str, model: Any, datamodule: Any, given: dict[str, Any]) -> None:
        self.fn = fn
        self.model = model
        self.datamodule = datamodule
        self._given = {stage: loaders for stage, loaders in given.items() if loaders is not None}

    def or_of(self, earlier: "Source") -> "Source":
        """Return this source, or where it has no loaders those that an earlier entry point was given: validate after fit."""
        stage = "val" if self.fn == "validate" else self.fn
        if self.has(stage) or self.datamodule is not None or not earlier.has(stage):
            return self
        return Source(self.fn, self.model, earlier.datamodule, earlier._given)

    def is_given(self, stage: str) -> bool:
        """Return whether the loaders of a stage were passed to the entry point."""
        return stage in self._given

    def owner(self, stage: str) -> Any:
        """Return the object whose hook makes the loaders of a stage; `None` if nobody's does or they were given."""
        if stage in self._given:
            return None
        hook = f"{stage}_dataloader"
        return next((candidate for candidate in (self.datamodule, self.model) if has_hook(candidate, hook)), None)

    def has(self, stage: str) -> bool:
        """Return whether there are loaders for a stage: `train`, `val`, `test` or `predict`."""
        return stage in self._given or self.owner(stage) is not None

    def load(self, stage: str) -> CombinedLoader:
        """Return the loaders of a stage, made anew by a hook or as they were given.

        Raises:
            ConfigTypeError: One of them is not iterable.
            ConfigError: Nobody gives any, or they are combined in a mode that the entry point does not know.
        """
        return combined(self.raw(stage), stage)

    def raw(self, stage: str) -> Any:
        """Return what `load` combines, checked.

        Raises:
            ConfigTypeError: As `load`.
            ConfigError: Nobody gives any.
        """
        if stage in self._given:
            argument = _SHOWN[stage] if self.fn == "fit" else "dataloaders"
            return _checked(self._given[stage], f"was passed to `Trainer.{self.fn}({argument}=...)`")
        owner, hook = self.owner(stage), f"{stage}_dataloader"
        if owner is None:
            raise ConfigError(
                f"`{hook}` must be implemented to be used with `Trainer.{self.fn}`: define it in {type(self.model).__name__} or in a data "
                f"module, or pass loaders: trainer.{self.fn}(model, loader)."
            )
        return _checked(getattr(owner, hook)(), f"was returned from `{type(owner).__name__}.{hook}()`")


def attach(
    fn: str,
    model: Any,
    *,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    dataloaders: Any = None,
    datamodule: Any = None,
) -> Source:
    """Return the source of an entry point's loaders. A data module may stand in the place of the first loaders.

    Args:
        fn: The entry point: fit, validate, test or predict.
        model: The module.
        train_dataloaders: As passed to `fit`.
        val_dataloaders: As passed to `fit`.
        dataloaders: As passed to the others.
        datamodule: As passed.

    Raises:
        ConfigError: Loaders and a data module were both given.
        ConfigTypeError: The data module is none.
    """
    first = train_dataloaders if fn == "fit" else dataloaders
    if datamodule is None and is_datamodule(first):
        datamodule, first = first, None
    if datamodule is not None:
        if first is not None or val_dataloaders is not None:
            raise ConfigError(_both_given(fn))
        if not is_datamodule(datamodule):
            raise ConfigTypeError(
                f"datamodule={datamodule!r} is of type {type(datamodule).__name__}. A data module is not iterable and has at least one of "
                "the methods train_dataloader, val_dataloader, test_dataloader and predict_dataloader; subclass LightningDataModule."
            )
    if fn == "fit":
        return Source(fn, model, datamodule, {"train": first, "val": val_dataloaders})
    return Source(fn, model, datamodule, {"val" if fn == "validate" else fn: first})


def combined(loaders: Any, stage: str) -> CombinedLoader:
    """Return loaders as one, in the stage's own mode unless they are combined already.

    Raises:
        ConfigError: They are combined in a mode that the stage does not know.
    """
    if not isinstance(loaders, CombinedLoader):
        return CombinedLoader(loaders, "max_size_cycle" if stage == "train" else "sequential")
    if stage == "train" and loaders.mode == "sequential":
        others = ", ".join(mode for mode in MODES if mode != "sequential")
        raise ConfigError(f'`FitLoop` does not support the `CombinedLoader(mode="sequential")` mode. The available modes are: {others}.')
    if stage == "predict" and loaders.mode != "sequential":
        raise ConfigError(
            f'`trainer.predict()` only supports the `CombinedLoader(mode="sequential")` mode, but this one has mode={loaders.mode!r}. '
            "Pass a list of loaders."
        )
    return loaders


def prepare(combined: CombinedLoader, stage: str, *, strategy: Places, use_distributed_sampler: bool = True) -> Any:
    """Return the loaders as this process iterates them, in the same shape: what `Feed` takes.

    Batches stay where they are. What is neither a `DataLoader` nor keeps a state is counted.
    """
    mode = _SHARES[stage]

    def prepared(loader: Any) -> Any:
        if isinstance(loader, FabricDataLoader):
            return loader
        keeps_state = all(callable(getattr(loader, name, None)) for name in ("state_dict", "load_state_dict"))
        if not isinstance(loader, DataLoader) and not (keeps_state and hasattr(loader, "__iter__")):
            return PlainLoader(loader)
        return prepare_loader(loader, strategy=strategy, mode=mode, use_distributed_sampler=use_distributed_sampler, move_to_device=False)

    return mapped(combined.iterables, prepared)


def _both_given(fn: str) -> str:
    both = "`train_dataloader` or `val_dataloaders` to `trainer.fit(datamodule=...)`"
    given = both if fn == "fit" else f"both `trainer.{fn}(dataloaders=..., datamodule=...)`"
    return f"You cannot pass {given}: the data module makes the loaders. Drop one of the two."


def _checked(loaders: Any, origin: str) -> Any:
    leaves: Iterable[Any] = flattened(loaders.iterables if isinstance(loaders, CombinedLoader) else loaders)
    for leaf in leaves:
        if not is_iterable(leaf):
            raise ConfigTypeError(
                f"An invalid dataloader {origin}. Found {leaf!r}, which is not iterable. Pass a DataLoader, any iterable of batches, or a "
                "list or dictionary of them."
            )
    return loaders
