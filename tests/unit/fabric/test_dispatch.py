import threading

import pytest
import torch
from torch import nn

from leyden.core.errors import StateError
from leyden.fabric.dispatch import Dispatch, guard


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, scale=1.0):
        return self.layer(x) * scale

    def score(self, x):
        return self(x).sum()

    def weight_norm(self):
        return self.layer.weight.norm()

    def name(self):
        return "net"

    def broken(self):
        raise KeyError("mine")


def hooks():
    return len(torch.nn.modules.module._global_forward_pre_hooks)


def test_dispatch_calls_any_method_by_name():
    net = Net()
    dispatch, x = Dispatch(net), torch.ones(1, 2)
    assert torch.equal(dispatch("forward", (x,), {"scale": 2.0}), net(x) * 2)
    assert torch.equal(dispatch("score", (x,), {}), net.score(x))
    assert [name.removeprefix("module.") for name, _ in dispatch.named_parameters()] == [name for name, _ in net.named_parameters()]


def test_forward_hooks_of_the_module_run():
    net, heard = Net(), []
    net.register_forward_hook(lambda module, inputs, output: heard.append("hook"))
    Dispatch(net)("forward", (torch.ones(1, 2),), {})
    assert heard == ["hook"]


def test_methods_may_call_each_other():
    class Recursive(Net):
        def outer(self, dispatch, x):
            return dispatch("score", (x,), {}) + 1

    net = Recursive()
    dispatch, x = Dispatch(net), torch.ones(1, 2)
    assert torch.equal(dispatch("outer", (dispatch, x), {}), net.score(x) + 1)


def test_a_guarded_method_that_runs_a_submodule_is_refused_before_it_computes():
    net, computed = Net(), []
    net.layer.register_forward_hook(lambda *arguments: computed.append(arguments))
    with pytest.raises(StateError, match=r'calling the method `Net.score\(\)`.*`Net.forward`.*model.mark_forward_method\("score"\)'):
        guard(net.score, net)(torch.ones(1, 2))
    assert computed == []


def test_getters_pass_the_guard():
    net = Net()
    assert guard(net.name, net)() == "net"
    assert guard(net.weight_norm, net)().ndim == 0
    assert guard(net.name, net).__name__ == "name"


def test_the_hook_goes_also_after_an_error():
    net, before = Net(), hooks()
    for method, error in ((net.broken, KeyError), (lambda: net.layer(torch.ones(1, 2)), StateError)):
        with pytest.raises(error):
            guard(method, net)()
    assert hooks() == before


def test_other_modules_and_other_threads_are_not_watched():
    net, other, x = Net(), Net(), torch.ones(1, 2)
    results = []

    def method():
        results.append(other(x))
        thread = threading.Thread(target=lambda: results.append(net(x)))
        thread.start()
        thread.join(30)

    guard(method, net)()
    assert len(results) == 2
