import copy
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, TensorDataset

from leyden.core.errors import ConfigError
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.data import sources


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(4))


def dataset(length: int = 4) -> TensorDataset:
    return TensorDataset(torch.arange(length))


def test_loaders_of_datasets_shuffle_in_training_only() -> None:
    data = LightningDataModule.from_datasets(dataset(), dataset(), dataset(), dataset(), batch_size=2)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()]
    assert [type(loader.sampler) for loader in loaders] == [RandomSampler, *[SequentialSampler] * 3]
    assert {(loader.batch_size, loader.num_workers, loader.pin_memory) for loader in loaders} == {(2, 0, True)}


def test_streams_are_not_shuffled() -> None:
    loader = LightningDataModule.from_datasets(Stream()).train_dataloader()
    assert isinstance(loader, DataLoader)
    assert loader.batch_size == 1


def test_collections_of_datasets_give_collections_of_loaders() -> None:
    data = LightningDataModule.from_datasets({"a": dataset(), "b": Stream()}, [dataset(2), dataset(3)])
    train, val = data.train_dataloader(), data.val_dataloader()
    assert list(train) == ["a", "b"]
    assert [len(loader) for loader in val] == [2, 3]
    assert isinstance(train["a"].sampler, RandomSampler)


def test_stages_without_a_dataset_have_no_loader() -> None:
    data = LightningDataModule.from_datasets(dataset())
    source = sources.attach("fit", None, datamodule=data)
    assert (source.has("train"), source.has("val")) == (True, False)
    with pytest.raises(ConfigError, match="`val_dataloader` must be implemented"):
        data.val_dataloader()


def test_a_constructor_gets_batch_size_and_workers_if_it_takes_them() -> None:
    class Sized(LightningDataModule):
        def __init__(self, batch_size: int, root: str = "") -> None:
            super().__init__()
            self.save_hyperparameters()

    class Open(LightningDataModule):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()
            self.save_hyperparameters()

    assert Sized.from_datasets(dataset(), batch_size=3, root="x").hparams == {"batch_size": 3, "root": "x"}
    assert Open.from_datasets(dataset(), num_workers=1).hparams == {"batch_size": 1, "num_workers": 1}


def test_it_is_a_data_module_with_documented_defaults() -> None:
    data = LightningDataModule()
    assert sources.is_datamodule(data)
    assert data.prepare_data_per_node
    assert not data.allow_zero_length_dataloader_with_multiple_devices
    assert (data.trainer, data.name, data.state_dict()) == (None, None, {})
    data.load_state_dict({})
    data.on_exception(RuntimeError())


def test_a_copy_belongs_to_no_run() -> None:
    data = LightningDataModule()
    data.trainer = object()
    assert copy.deepcopy(data).trainer is None
    assert pickle.loads(pickle.dumps(data)).trainer is None
