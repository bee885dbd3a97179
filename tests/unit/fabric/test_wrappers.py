import copy

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.fabric.precision.mixed import MixedPrecision
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.fabric.wrappers import FabricModule, FabricOptimizer, is_wrapped, unwrap


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(1))
        self.rate = 0.5

    def forward(self, x):
        return self.layer(x)

    def training_step(self, x):
        return self(x).sum()

    def score(self, x):
        return self.layer(x)

    def size(self):
        return 2


class GuardedStrategy(SingleDeviceStrategy):
    guards_methods = True


def wrapped(strategy=None):
    net = Net()
    return FabricModule(net, strategy or SingleDeviceStrategy("cpu")), net


def test_names_are_the_users():
    model, net = wrapped()
    assert list(model.state_dict()) == ["seen", "layer.weight", "layer.bias"]
    assert [name for name, _ in model.named_parameters()] == ["layer.weight", "layer.bias"]
    assert model.module is net
    assert next(iter(model.modules())) is net


def test_a_parent_saves_and_loads_under_the_users_names():
    parent = nn.ModuleDict({"net": wrapped()[0]})
    state = {name: torch.full_like(value, 3.0) for name, value in parent.state_dict().items()}
    assert list(state) == ["net.seen", "net.layer.weight", "net.layer.bias"]
    parent.load_state_dict(state)
    assert parent["net"].layer.bias.tolist() == [3.0, 3.0]


def test_attributes_are_read_from_and_written_to_the_users_module():
    model, net = wrapped()
    model.rate, model.extra = 0.25, "new"
    assert (net.rate, net.extra, model.rate) == (0.25, "new", 0.25)
    del model.extra
    assert not hasattr(net, "extra")
    with pytest.raises(AttributeError, match="nothing_like_it"):
        model.nothing_like_it  # noqa: B018 - the access is the test


def test_the_mode_is_the_users_modules():
    model, net = wrapped()
    assert model.eval() is model
    assert not net.training
    assert not model.training
    net.train()
    assert model.training


def test_methods_of_a_module_return_the_wrapper():
    model, net = wrapped()
    assert model.double() is model
    assert net.layer.weight.dtype is torch.float64


def test_a_plain_precision_calls_the_module_itself():
    model, net = wrapped()
    assert model.__dict__["forward"] is net


def test_a_deep_copy_has_weights_of_its_own():
    model, net = wrapped()
    other = copy.deepcopy(model)
    with torch.no_grad():
        net.layer.weight.zero_()
    assert other(torch.ones(1, 4)).abs().sum() > 0
    assert other.module is not net


def test_step_methods_are_marked_and_others_can_be():
    model, _ = wrapped(GuardedStrategy("cpu"))
    assert model.training_step(torch.ones(1, 4)).ndim == 0
    with pytest.raises(StateError, match=r'model.mark_forward_method\("score"\)'):
        model.score(torch.ones(1, 4))
    model.mark_forward_method("score")
    assert model.score(torch.ones(1, 4)).shape == (1, 2)
    assert model.size() == 2


def test_after_a_refused_call_other_calls_work():
    model, _ = wrapped(GuardedStrategy("cpu"))
    with pytest.raises(StateError):
        model.score(torch.ones(1, 4))
    assert model(torch.ones(1, 4)).shape == (1, 2)


@pytest.mark.parametrize(
    ("method", "error"), [(3, ConfigTypeError), ("forward", ConfigError), ("absent", AttributeError), ("rate", AttributeError)]
)
def test_what_cannot_be_marked_is_refused(method, error):
    with pytest.raises(error):
        wrapped()[0].mark_forward_method(method)


def scaling():
    return SingleDeviceStrategy("cpu", precision=MixedPrecision("16-mixed", "cpu"))


def test_backward_past_the_scaler_is_refused():
    strategy = scaling()
    model, net = wrapped(strategy)
    loss = model(torch.ones(1, 4)).sum()
    with pytest.raises(StateError, match=r"call fabric\.backward"):
        loss.backward()
    strategy.backward(model(torch.ones(1, 4)).sum(), None)
    assert net.layer.weight.grad is not None


def optimizer_pair():
    net = Net()
    inner = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    return FabricOptimizer(inner, SingleDeviceStrategy("cpu")), inner, net


def test_an_optimizer_is_an_instance_of_its_class_and_shares_its_state():
    optimizer, inner, net = optimizer_pair()
    assert isinstance(optimizer, torch.optim.SGD)
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert optimizer.state is inner.state
    assert optimizer.param_groups is inner.param_groups
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(inner.param_groups) == 2
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state is inner.state


def test_a_scheduler_takes_a_wrapped_optimizer():
    optimizer, inner, net = optimizer_pair()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    assert inner.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_closure_is_passed_on():
    optimizer, _, net = optimizer_pair()

    def closure():
        loss = net(torch.ones(1, 4)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) is not None


def test_callbacks_hear_of_each_step():
    heard = []

    class Listener:
        def on_after_optimizer_step(self, strategy, optimizer):
            heard.append((strategy, optimizer))

    net = Net()
    inner, strategy = torch.optim.SGD(net.parameters(), lr=1.0), SingleDeviceStrategy("cpu")
    FabricOptimizer(inner, strategy, [Listener(), object()]).step()
    assert heard == [(strategy, inner)]


def test_wrappers_are_recognised_also_when_compiled():
    model, net = wrapped()
    compiled = torch.compile(model, backend="eager")
    assert is_wrapped(model)
    assert is_wrapped(compiled)
    assert is_wrapped(optimizer_pair()[0])
    assert not is_wrapped(net)
    assert not is_wrapped(torch.compile(net, backend="eager"))
    assert unwrap(compiled) is unwrap(model) is net


def calls_per_step(model, optimizer, backward):
    import cProfile
    import pstats

    x = torch.ones(8, 4)

    def run(count):
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(count):
            optimizer.zero_grad()
            backward(model(x).sum())
            optimizer.step()
        profile.disable()
        return pstats.Stats(profile).total_calls

    run(2)
    return (run(30) - run(10)) / 20


def test_a_step_costs_few_calls_more_than_the_raw_loop():
    net = Net()
    optimizer, strategy = torch.optim.SGD(net.parameters(), lr=0.1), SingleDeviceStrategy("cpu")
    raw = calls_per_step(net, optimizer, lambda loss: loss.backward())
    ours = calls_per_step(FabricModule(net, strategy), FabricOptimizer(optimizer, strategy), lambda loss: strategy.backward(loss, None))
    assert ours <= raw + 12, f"{ours} calls per step against {raw}"


def test_a_mixed_step_costs_few_calls_more_than_autocast_by_hand():
    net = Net()
    optimizer, strategy = torch.optim.SGD(net.parameters(), lr=0.1), SingleDeviceStrategy("cpu", precision=MixedPrecision("bf16-mixed"))

    def by_hand(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(x).float()

    raw = calls_per_step(by_hand, optimizer, lambda loss: loss.backward())
    ours = calls_per_step(FabricModule(net, strategy), FabricOptimizer(optimizer, strategy), lambda loss: strategy.backward(loss, None))
    assert ours <= raw + 45, f"{ours} calls per step against {raw}"


def test_printing_a_wrapper_shows_the_users_module():
    assert repr(FabricModule(nn.Linear(2, 1), SingleDeviceStrategy("cpu"))) == "FabricModule(in_features=2, out_features=1, bias=True)"


def test_a_deep_copy_of_an_optimizer_shares_the_strategy_and_has_state_of_its_own():
    optimizer, inner, net = optimizer_pair()
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    other = copy.deepcopy(optimizer)
    assert isinstance(other, torch.optim.SGD)
    assert other._strategy is optimizer._strategy
    assert other.optimizer is not inner
    assert len(other.state) == len(inner.state)
