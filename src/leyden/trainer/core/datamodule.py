"""`LightningDataModule`: how data is prepared, split and loaded, in one object that goes from project to project.

`Trainer` takes any object with these methods; subclassing adds hyper-parameters, `from_datasets` and no-ops for the rest.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, ClassVar, Self

from torch.utils.data import DataLoader, Dataset, IterableDataset

from leyden.trainer.core import saving
from leyden.trainer.core.hooks import DataHooks
from leyden.trainer.core.mixins import HyperparametersMixin
from leyden.trainer.core.saving import class_method_only

Datasets = Dataset[Any] | Sequence[Dataset[Any]] | Mapping[str, Dataset[Any]]


class LightningDataModule(HyperparametersMixin, DataHooks):
    """Prepare data once, set it up in every process, give loaders.

    Example:
        ```python
        class Digits(LightningDataModule):
            def __init__(self, root: str = "data", batch_size: int = 32):
                super().__init__()
                self.save_hyperparameters()
            def prepare_data(self): download(self.hparams.root)
            def setup(self, stage): self.train, self.val = split(read(self.hparams.root))
            def train_dataloader(self): return DataLoader(self.train, self.hparams.batch_size, shuffle=True)
            def val_dataloader(self): return DataLoader(self.val, self.hparams.batch_size)
        ```
    """

    CHECKPOINT_HYPER_PARAMS_KEY: ClassVar[str] = "datamodule_hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME: ClassVar[str] = "datamodule_hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE: ClassVar[str] = "datamodule_hparams_type"

    name: str | None = None
    prepare_data_per_node: bool = True
    allow_zero_length_dataloader_with_multiple_devices: bool = False
    trainer: Any = None

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        """Return the size of the dataset of each stage: of the loaders that are there without any work."""
        titles = {"Train": "train", "Validation": "val", "Test": "test", "Predict": "predict"}
        return "\n".join(f"{{{title} dataloader: {_sizes(self, f'{stage}_dataloader')}}}" for title, stage in titles.items())

    def __getstate__(self) -> dict[str, Any]:
        """Leave the run behind: a copy of the data module belongs to nobody."""
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}

    @classmethod
    def from_datasets(
        cls,
        train_dataset: Datasets | Iterable[Dataset[Any]] | None = None,
        val_dataset: Dataset[Any] | Sequence[Dataset[Any]] | None = None,
        test_dataset: Dataset[Any] | Sequence[Dataset[Any]] | None = None,
        predict_dataset: Dataset[Any] | Sequence[Dataset[Any]] | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **datamodule_kwargs: Any,
    ) -> Self:
        """Return a data module over datasets that exist.

        Args:
            train_dataset: A dataset, or a list or mapping of them. It is shuffled unless it is iterable-style.
            val_dataset: A dataset or a list of them; likewise the next two.
            test_dataset: For `test`.
            predict_dataset: For `predict`.
            batch_size: Of every loader.
            num_workers: Of every loader.
            datamodule_kwargs: Passed to the constructor, as are `batch_size` and `num_workers` where it takes them.
        """

        def loader(dataset: Dataset[Any], *, shuffle: bool) -> DataLoader[Any]:
            shuffle = shuffle and not isinstance(dataset, IterableDataset)
            return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers, pin_memory=True)

        given = {"batch_size": batch_size, "num_workers": num_workers}
        result = cls(**datamodule_kwargs, **_accepted(cls.__init__, given))
        stages = {"train": train_dataset, "val": val_dataset, "test": test_dataset, "predict": predict_dataset}
        for stage, datasets in stages.items():
            if datasets is not None:
                setattr(result, f"{stage}_dataloader", _hook(datasets, loader, shuffle=stage == "train"))
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; an empty dictionary is not stored."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""

    def on_exception(self, exception: BaseException) -> None:
        """Called when an exception ends the run."""

    @class_method_only
    def load_from_checkpoint(
        cls,  # noqa: N805 - a class method that refuses instances
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - the documented signature
        **kwargs: Any,
    ) -> Self:
        """Return a data module with the hyper-parameters and the state of a checkpoint.

        Args:
            checkpoint_path: Path, URL or open file of a checkpoint that `Trainer` wrote.
            map_location: Where tensors of the state go; default: the CPU.
            hparams_file: A .yaml or .csv file whose values replace the stored ones.
            weights_only: `False` trusts the file and runs the pickles in it.
            **kwargs: Override stored hyper-parameters.
        """
        return saving.load_datamodule(
            cls, checkpoint_path, map_location=map_location, hparams_file=hparams_file, weights_only=weights_only, **kwargs
        )


def _sizes(module: Any, hook: str) -> str:
    """Return the sizes of a stage's datasets, as text; `None` where the stage has no loaders yet."""
    own = getattr(type(module), hook)
    if own is getattr(DataHooks, hook) and hook not in vars(module):
        return "None"
    try:
        made = getattr(module, hook)()
    except Exception:  # noqa: BLE001 - before `setup`, hooks may fail in any way
        return "None"
    if isinstance(made, Mapping):
        return " ; ".join(f"{name}. size={_size(loader)}" for name, loader in made.items())
    if isinstance(made, (list, tuple)):
        return " ; ".join(f"{number}. size={_size(loader)}" for number, loader in enumerate(made, 1))
    return f"size={_size(made)}"


def _size(loader: Any) -> str:
    dataset = getattr(loader, "dataset", loader)
    return str(len(dataset)) if isinstance(dataset, Sized) else "NA"


def _accepted(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return those arguments that a constructor takes."""
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in given.items() if takes_any or name in parameters}


def _hook(datasets: Any, loader: Callable[..., DataLoader[Any]], *, shuffle: bool) -> Callable[[], Any]:
    """Return what makes the loaders of a stage, anew at each call."""

    def loaders() -> Any:
        if isinstance(datasets, Mapping):
            return {name: loader(dataset, shuffle=shuffle) for name, dataset in datasets.items()}
        if isinstance(datasets, Iterable) and not isinstance(datasets, Dataset):
            return [loader(dataset, shuffle=shuffle) for dataset in datasets]
        return loader(datasets, shuffle=shuffle)

    return loaders
