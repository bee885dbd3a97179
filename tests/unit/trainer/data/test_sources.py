from typing import Any, ClassVar

import pytest
import torch
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.fabric.loading.loader import FabricDataLoader
from leyden.trainer.core.hooks import DataHooks
from leyden.trainer.data import sources
from leyden.trainer.data.combined import CombinedLoader
from leyden.trainer.data.plain import PlainLoader
from tests.support.datasets import StatefulLoader


class Model(DataHooks):
    def train_dataloader(self) -> Any:
        return range(1, 3)


class ByProtocol:
    """Serves as a data module without being one."""

    def val_dataloader(self) -> Any:
        return {"a": range(3)}


class Place:
    root_device = torch.device("cpu")
    distributed_sampler_kwargs: ClassVar = {"rank": 0, "num_replicas": 1}

    def batch_to_device(self, batch: Any, device: Any = None) -> Any:
        raise AssertionError("batches stay where they are")

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj

    def all_gather(self, tensor: Any) -> Any:
        return tensor


def test_the_entry_points_loaders_come_first_then_the_data_module_then_the_module() -> None:
    given = sources.attach("fit", Model(), train_dataloaders=[range(9)])
    assert given.is_given("train")
    assert given.owner("train") is None
    assert given.load("train").iterables == [range(9)]
    module, data = Model(), ByProtocol()
    both = sources.attach("fit", module, datamodule=data)
    assert (both.owner("train"), both.owner("val")) == (module, data)
    assert both.load("train").iterables == range(1, 3)
    assert both.load("val").iterables == {"a": range(3)}
    assert not both.has("test")


def test_a_data_module_may_stand_in_the_loaders_place() -> None:
    data = ByProtocol()
    assert sources.attach("fit", Model(), train_dataloaders=data).datamodule is data
    assert sources.attach("validate", Model(), dataloaders=data).owner("val") is data


def test_training_cycles_and_evaluation_goes_one_after_the_other() -> None:
    source = sources.attach("fit", Model(), train_dataloaders=[range(1), range(2)], val_dataloaders=[range(3), range(4)])
    assert (source.load("train").mode, source.load("val").mode) == ("max_size_cycle", "sequential")
    own = CombinedLoader([range(1)], "max_size")
    assert sources.attach("test", Model(), dataloaders=own).load("test") is own


def test_loaders_and_a_data_module_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="You cannot pass `train_dataloader` or `val_dataloaders`"):
        sources.attach("fit", Model(), train_dataloaders=[1], datamodule=ByProtocol())
    with pytest.raises(ConfigError, match="You cannot pass `train_dataloader` or `val_dataloaders`"):
        sources.attach("fit", Model(), train_dataloaders=ByProtocol(), val_dataloaders=[1])
    with pytest.raises(ConfigError, match=r"trainer\.validate\(dataloaders=..., datamodule=...\)"):
        sources.attach("validate", Model(), dataloaders=[1], datamodule=ByProtocol())


def test_an_iterable_or_an_object_without_loaders_is_no_data_module() -> None:
    class Iterable(ByProtocol):
        def __iter__(self) -> Any:
            return iter([])

    assert not sources.is_datamodule(Iterable())
    assert not sources.is_datamodule(ByProtocol)
    with pytest.raises(TypeError, match=r"of type Iterable\. A data module is not iterable"):
        sources.attach("fit", Model(), datamodule=Iterable())
    with pytest.raises(TypeError, match="of type object"):
        sources.attach("fit", Model(), datamodule=object())


def test_overridden_hooks_are_those_of_the_class_and_of_the_instance() -> None:
    module = Model()
    assert sources.has_hook(module, "train_dataloader")
    assert not sources.has_hook(module, "val_dataloader")
    module.val_dataloader = lambda: [1]  # type: ignore[method-assign]
    assert sources.has_hook(module, "val_dataloader")
    assert not sources.has_hook(None, "val_dataloader")
    assert not sources.has_hook(ByProtocol(), "on_after_batch_transfer")


def test_what_is_not_iterable_is_refused_where_it_came_from() -> None:
    source = sources.attach("fit", Model(), train_dataloaders={"a": range(1), "b": 7}, val_dataloaders=3)
    with pytest.raises(TypeError, match=r"An invalid dataloader was passed to `Trainer\.fit\(train_dataloaders=\.\.\.\)`\. Found 7"):
        source.load("train")
    with pytest.raises(TypeError, match=r"An invalid dataloader was passed to `Trainer\.fit\(val_dataloaders="):
        source.load("val")
    with pytest.raises(TypeError, match=r"An invalid dataloader was passed to `Trainer\.test\(dataloaders="):
        sources.attach("test", Model(), dataloaders=3).load("test")

    class Forgot(Model):
        def train_dataloader(self) -> Any:
            DataLoader(range(2))  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"An invalid dataloader was returned from `Forgot\.train_dataloader\(\)`\. Found None"):
        sources.attach("fit", Forgot()).load("train")


def test_loaders_that_nobody_gives_are_named() -> None:
    with pytest.raises(ConfigError, match=r"`test_dataloader` must be implemented to be used with `Trainer\.test`: define it in Model"):
        sources.attach("test", Model()).load("test")


def test_training_does_not_go_one_after_the_other() -> None:
    source = sources.attach("fit", Model(), train_dataloaders=CombinedLoader([range(1)], "sequential"))
    with pytest.raises(ConfigError, match=r'`FitLoop` does not support the `CombinedLoader\(mode="sequential"\)`'):
        source.load("train")


def test_prediction_goes_one_after_the_other_only() -> None:
    source = sources.attach("predict", Model(), dataloaders=CombinedLoader([range(1)], "max_size"))
    with pytest.raises(ConfigError, match="only supports the `CombinedLoader"):
        source.load("predict")


def test_every_kind_of_loader_is_prepared() -> None:
    loader: DataLoader[int] = DataLoader(range(4), 2, shuffle=True)  # type: ignore[arg-type]
    once = sources.prepare(CombinedLoader({"a": loader, "b": [StatefulLoader(2), range(2)]}), "train", strategy=Place())
    assert [type(leaf) for leaf in (once["a"], *once["b"])] == [FabricDataLoader, FabricDataLoader, PlainLoader]
    again = sources.prepare(CombinedLoader(once["a"]), "val", strategy=Place())
    assert again is once["a"]


def test_a_plain_loader_shows_the_iterables_attributes() -> None:
    class Named:
        name = "mine"
        epoch = -1

        def __iter__(self) -> Any:
            return iter([1, 2, 3])

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    loader = PlainLoader(Named())
    assert loader.name == "mine"
    with pytest.raises(TypeError):
        len(loader)
    assert len(PlainLoader([1, 2])) == 2
    assert [list(loader), list(loader)] == [[1, 2, 3]] * 2
    assert loader.epoch == 1
    loader.set_epoch(7)
    next(iter(loader))
    assert (loader.epoch, loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (7, 7, 1)
