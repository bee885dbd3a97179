from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn

from leyden.core.errors import ConfigError
from leyden.trainer.core.logging import log, log_dict
from leyden.trainer.metrics.objects import find_metrics, is_metric
from leyden.trainer.metrics.store import MetricStore


class Average:
    """A metric object of nobody's: three methods, and a state."""

    def __init__(self) -> None:
        self.total, self.count, self.resets = 0.0, 0, 0

    def update(self, value: float) -> None:
        self.total, self.count = self.total + value, self.count + 1

    def compute(self) -> Any:
        return torch.tensor(self.total / max(self.count, 1))

    def reset(self) -> None:
        self.total, self.count, self.resets = 0.0, 0, self.resets + 1


class Remembering(Average):
    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


class Net(nn.Module):
    log = log
    log_dict = log_dict

    def __init__(self, **metrics: Any) -> None:
        super().__init__()
        self.__dict__["_log_sink"] = MetricStore()
        self.child = nn.Linear(1, 1)
        for name, metric in metrics.items():
            setattr(self, name, metric)
        self.store.attach(self)
        self.store.current = self.store.slots("train", "training_step")

    @property
    def store(self) -> MetricStore:
        return self.__dict__["_log_sink"]


def mean() -> Any:
    return torchmetrics.MeanMetric()


def test_three_methods_make_a_metric() -> None:
    assert is_metric(Average())
    assert is_metric(mean())
    assert not any(is_metric(value) for value in (Average, {}, torch.zeros(1), nn.Linear(1, 1)))


def test_metrics_are_found_wherever_they_lie_in_the_module() -> None:
    net = Net(plain=Average(), part=mean(), many=nn.ModuleList([mean()]), all=torchmetrics.MetricCollection({"a": mean()}))
    net.child.inner = Average()
    assert {path for path, _ in find_metrics(net)} >= {"plain", "part", "many.0", "all.a", "child.inner"}


@pytest.mark.parametrize("make", [Average, mean])
def test_a_metric_is_computed_at_the_end_of_the_epoch_and_reset(make: Any) -> None:
    net = Net(metric=make())
    for value in (1.0, 3.0):
        net.metric.update(value)
        net.log("m", net.metric, on_step=False, on_epoch=True)
    assert net.store.end_epoch("train") == {"m": 2.0}
    net.metric.update(8.0)
    assert net.metric.compute() == 8.0


@pytest.mark.parametrize("make", [Average, mean])
def test_a_metric_that_is_logged_per_step_is_not_reset(make: Any) -> None:
    net = Net(metric=make())
    net.metric.update(1.0)
    net.log("m", net.metric)
    assert net.store.step_row("train") == {"m": 1.0}
    assert net.store.end_epoch("train") == {}
    net.metric.update(3.0)
    assert net.metric.compute() == 2.0


def test_what_a_metric_returned_for_the_batch_is_the_value_of_the_step() -> None:
    net = Net(metric=mean())
    for value in (1.0, 3.0):
        net.metric(value)
        net.log("m", net.metric, on_step=True, on_epoch=True)
    assert net.store.step_row("train") == {"m_step": 3.0}
    assert net.store.end_epoch("train") == {"m_epoch": 2.0}


def test_a_metric_under_two_names_is_reset_once() -> None:
    net = Net(metric=Average())
    net.log_dict({"a": net.metric, "b": net.metric}, on_step=False, on_epoch=True)
    net.store.end_epoch("train")
    assert net.metric.resets == 1


def test_a_collection_logs_its_members() -> None:
    collection = torchmetrics.MetricCollection({"a": torchmetrics.MeanMetric(), "b": torchmetrics.MaxMetric()}, prefix="train/")
    net = Net(collection=collection)
    collection.update(torch.tensor([1.0, 3.0]))
    net.log_dict(collection, on_step=False, on_epoch=True)
    assert net.store.end_epoch("train") == {"train/a": 2.0, "train/b": 3.0}
    collection.update(torch.tensor([0.0]))
    assert collection.compute() == {"train/a": 0.0, "train/b": 0.0}


def test_a_metric_must_be_an_attribute_of_the_module() -> None:
    with pytest.raises(ConfigError, match="could not find the `LightningModule` attribute"):
        Net().log("m", Average())


def test_a_metric_may_be_named_by_its_attribute() -> None:
    net = Net(metric=Average(), other=Average())
    net.log("m", net.metric, metric_attribute="metric")
    with pytest.raises(ConfigError, match="could not find the `LightningModule` attribute of that name"):
        net.log("n", net.metric, metric_attribute="other")


@pytest.mark.parametrize("result", [1.0, {"a": torch.tensor(1.0)}, torch.zeros(2)])
def test_what_compute_returns_must_be_a_tensor_of_one_element(result: Any) -> None:
    class Odd(Average):
        def compute(self) -> Any:
            return result

    net = Net(metric=Odd())
    net.log("m", net.metric, on_step=False, on_epoch=True)
    with pytest.raises(ConfigError, match="must be a tensor"):
        net.store.end_epoch("train")


def test_one_name_is_a_number_or_a_metric_not_both() -> None:
    net = Net(metric=Average())
    net.log("m", net.metric)
    with pytest.raises(ConfigError, match="twice in `training_step`"):
        net.log("m", 1.0)
    net.log("n", 1.0)
    with pytest.raises(ConfigError, match="twice in `training_step`"):
        net.log("n", net.metric)


@pytest.mark.parametrize("make", [Remembering, mean, torchmetrics.CatMetric])
def test_a_state_goes_on_in_another_process(make: Any) -> None:
    net, other = Net(metric=make()), Net(metric=make())
    for value in (1.0, 3.0):
        net.metric.update(value)
    saved = net.store.rank_state()
    net.metric.update(8.0)
    other.store.load_rank_states([saved])
    other.metric.update(8.0)
    computed, expected = other.metric.compute(), net.metric.compute()
    assert isinstance(computed, Tensor)
    assert torch.equal(computed, expected)


def test_a_metric_without_a_state_is_warned_about() -> None:
    net = Net(metric=Average())
    with pytest.warns(UserWarning, match="has neither `metric_state` nor `state_dict`"):
        assert net.store.rank_state()["objects"] == {}
