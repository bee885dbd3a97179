"""DDP's arguments, and its wrapping on one rank. Several ranks: tests/conformance and tests/integration/fabric."""

import contextlib
import logging
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.fabric.strategies import STRATEGY_REGISTRY, DDPStrategy
from tests.support.lone_rank import lone_rank


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)

    def training_step(self, x):
        return self(x).sum()

    def score(self, x):
        return self(x).mean()


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


def test_an_unknown_keyword_names_the_closest():
    with pytest.raises(ConfigError, match=r"DDPStrategy\(find_unused=…\): unknown keyword. Did you mean 'find_unused_parameters'"):
        DDPStrategy(find_unused=True)


@pytest.mark.parametrize("keyword", ["module", "device_ids", "process_group"])
def test_what_the_strategy_sets_itself_is_no_keyword(keyword):
    with pytest.raises(ConfigError, match="unknown keyword"):
        DDPStrategy(**{keyword: None})


def test_communication_hooks_are_functions_or_names():
    with pytest.raises(ConfigError, match=r"accepted names are .*'powersgd'.* Did you mean 'fp16_compress'"):
        DDPStrategy(ddp_comm_hook="fp16_compres")
    with pytest.raises(ConfigTypeError, match="expected a function"):
        DDPStrategy(ddp_comm_hook=3)


def test_an_unknown_start_method_names_the_accepted():
    with pytest.raises(ConfigError, match=r"accepted are 'popen', 'spawn', 'fork', 'forkserver'. Did you mean 'spawn'"):
        DDPStrategy(start_method="spwan")


@pytest.mark.parametrize(("name", "method"), [("ddp", "popen"), ("ddp_spawn", "spawn"), ("ddp_fork", "fork"), ("ddp_notebook", "fork")])
def test_names_are_presets_of_one_class(name, method):
    for suffix, find in (("", None), ("_find_unused_parameters_true", True), ("_find_unused_parameters_false", False)):
        strategy = STRATEGY_REGISTRY.get(name + suffix)
        assert type(strategy) is DDPStrategy
        assert strategy.start_method == method
        assert strategy._ddp_kwargs.get("find_unused_parameters") is find


def test_the_documented_constants_and_the_timeout():
    assert (DDPStrategy.state_layout, DDPStrategy.supports_no_sync, DDPStrategy.owns_backward) == ("replicated", True, False)
    assert DDPStrategy().timeout == DDPStrategy(timeout=None).timeout == timedelta(minutes=30)


def test_before_fabric_a_strategy_has_no_device():
    with pytest.raises(StateError, match=r"hand it to Fabric\(strategy=…\)"):
        DDPStrategy().root_device  # noqa: B018 - the access is the test
    with pytest.raises(StateError, match="no cluster environment"):
        DDPStrategy().setup_environment()


def test_keywords_reach_torch_and_devices_are_not_named_on_the_cpu():
    with lone_rank(strategy=DDPStrategy(gradient_as_bucket_view=True, bucket_cap_mb=1)) as fabric:
        ddp = fabric.setup(Net())._forward_module
        assert type(ddp) is DistributedDataParallel
        assert (ddp.gradient_as_bucket_view, ddp.device_ids) == (True, None)


def test_a_module_without_gradients_stays_as_it_is(caplog):
    with lone_rank(strategy="ddp") as fabric, caplog.at_level(logging.INFO, logger="leyden"):
        net = Net().requires_grad_(False)
        model = fabric.setup(net)
        assert model._forward_module is net
        with fabric.no_backward_sync(model):
            assert model.training_step(torch.ones(1, 2)).ndim == 0
    assert "Net has no parameter that requires gradients" in caplog.text


def test_unused_parameters_are_named_at_the_next_step():
    with lone_rank(strategy="ddp") as fabric:
        net = Net()
        model, _ = fabric.setup(net, sgd(net))
        fabric.backward(model(torch.ones(1, 2)).sum())
        with pytest.raises(StateError, match=r"no gradient: unused.weight, unused.bias\. .*ddp_find_unused_parameters_true"):
            model(torch.ones(1, 2))


def test_the_strategy_of_that_advice_helps():
    with lone_rank(strategy="ddp_find_unused_parameters_true") as fabric:
        net = Net()
        model, optimizer = fabric.setup(net, sgd(net))
        for _ in range(3):
            fabric.backward(model.training_step(torch.ones(1, 2)))
            optimizer.step()


def test_marked_methods_go_through_ddp_and_others_are_refused():
    with lone_rank(strategy="ddp") as fabric:
        net = Net()
        net.unused.requires_grad_(False)
        model, _ = fabric.setup(net, sgd(net))
        with pytest.raises(StateError, match=r'model.mark_forward_method\("score"\)'):
            model.score(torch.ones(1, 2))
        model.mark_forward_method(net.score)
        seen = []
        model._forward_module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        fabric.backward(model.score(torch.ones(1, 2)))
        fabric.backward(model.training_step(torch.ones(1, 2)))
        assert seen == ["score", "training_step"]


def test_no_backward_sync_is_torchs_no_sync_and_can_be_disabled():
    with lone_rank(strategy="ddp") as fabric:
        model = fabric.setup(Net())
        ddp = model._forward_module
        with fabric.no_backward_sync(model, enabled=False):
            assert ddp.require_backward_grad_sync
        with contextlib.suppress(KeyError), fabric.no_backward_sync(torch.compile(model, backend="eager")):
            assert not ddp.require_backward_grad_sync
            raise KeyError
        assert ddp.require_backward_grad_sync


def test_hooks_by_name_train():
    with lone_rank(strategy=DDPStrategy(ddp_comm_hook="fp16_compress", find_unused_parameters=True)) as fabric:
        net = Net()
        model, _ = fabric.setup(net, sgd(net))
        fabric.backward(model(torch.ones(1, 2)).sum())
        assert net.used.weight.grad.tolist() == [[1.0, 1.0]] * 2


def test_a_hook_of_the_user_gets_its_state_and_its_wrapper():
    calls = []

    def hook(state, bucket):
        calls.append(state)
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    def wrapper(inner):
        calls.append("wrapped")
        return inner

    strategy = DDPStrategy(ddp_comm_hook=hook, ddp_comm_state="state", ddp_comm_wrapper=wrapper, find_unused_parameters=True)
    with lone_rank(strategy=strategy) as fabric:
        model = fabric.setup(Net())
        fabric.backward(model(torch.ones(1, 2)).sum())
    assert calls == ["wrapped", "state"]


def test_power_sgd_gets_a_state_of_its_own():
    with lone_rank(strategy=DDPStrategy(ddp_comm_hook="powersgd")) as fabric:
        assert type(fabric.strategy._state_for_hook()).__name__ == "PowerSGDState"
    assert DDPStrategy(ddp_comm_hook="powersgd", ddp_comm_state="mine")._state_for_hook() == "mine"


def test_a_compiled_module_is_compiled_around_ddp():
    with lone_rank(strategy="ddp") as fabric:
        net = Net()
        model = fabric.setup(torch.compile(net, backend="eager"))
        outer = model._forward_module
        assert type(outer).__name__ == "OptimizedModule"
        assert type(outer._orig_mod) is DistributedDataParallel
        assert list(model.state_dict()) == list(net.state_dict())
        assert model.module is net


def test_teardown_twice_and_a_new_launch():
    for _ in range(2):
        with lone_rank(strategy="ddp") as fabric:
            assert fabric.all_reduce(3.0).item() == 3.0
            fabric.strategy.teardown()
