"""The numbers of a summary, and that making one changes nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leyden.core.errors import ConfigError
from leyden.trainer.summary.model_summary import DeepSpeedSummary, ModelSummary, summarize


class Net(nn.Module):
    """An encoder of three layers, a frozen head, and a parameter outside of both."""

    def __init__(self, example: Any = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5))
        self.head = nn.Linear(16, 2).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(3))
        self.example_input_array = example

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return self.head(self.encoder(x)) * factor


@pytest.mark.parametrize(("depth", "count"), [(0, 0), (1, 2), (2, 5), (-1, 5)])
def test_the_depth_limits_the_layers(depth: int, count: int) -> None:
    assert len(ModelSummary(Net(), max_depth=depth).layer_names) == count


@pytest.mark.parametrize("depth", [-2, 1.5, "all", None])
def test_a_depth_that_means_nothing_is_refused(depth: Any) -> None:
    with pytest.raises(ConfigError, match="`max_depth` can be -1, 0 or > 0, got"):
        ModelSummary(Net(), max_depth=depth)


def test_totals_count_every_parameter_once() -> None:
    summary = ModelSummary(Net())
    assert summary.param_nums == [8 * 16 + 16 + 32, 16 * 2 + 2]
    assert summary.total_parameters == 176 + 34 + 3
    assert summary.trainable_parameters == 176 + 3
    assert summary.total_layer_params == 176 + 34
    assert summary.model_size == pytest.approx(213 * 4e-6)


def test_shared_parameters_count_once_in_the_total() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert ModelSummary(net).total_parameters == 16 + 4 + 4
    assert ModelSummary(net).param_nums == [20, 20]


def test_the_size_follows_the_dtype() -> None:
    assert ModelSummary(nn.Linear(1000, 1000, bias=False).to(torch.bfloat16)).model_size == pytest.approx(2.0)


def test_modes_are_shown_per_layer_and_in_total() -> None:
    net = Net()
    net.encoder[1].eval()
    summary = ModelSummary(net, max_depth=2)
    assert summary.training_modes == [True, True, False, True, True]
    assert summary.total_training_modes == {"train": 4, "eval": 1}


@pytest.mark.parametrize(
    "example", [torch.zeros(5, 8), (torch.zeros(5, 8), 2.0), {"x": torch.zeros(5, 8), "factor": 2.0}], ids=["tensor", "tuple", "mapping"]
)
def test_an_example_gives_sizes_and_flops(example: Any) -> None:
    summary = ModelSummary(Net(example), max_depth=2)
    assert summary.in_sizes[0] == [5, 8]
    assert summary.out_sizes[-1] == [5, 2]
    assert summary.flop_counts["encoder.0"] == 2 * 5 * 8 * 16
    assert summary.flop_counts["encoder"] == summary.flop_counts["encoder.0"]
    assert summary.total_flops == 2 * 5 * 8 * 16 + 2 * 5 * 16 * 2


def test_without_an_example_sizes_are_unknown() -> None:
    summary = ModelSummary(Net())
    assert summary.in_sizes == summary.out_sizes == ["?", "?"]
    assert summary.total_flops == 0
    assert "In sizes" not in str(summary)


def test_the_forward_leaves_no_trace() -> None:
    net = Net(torch.randn(5, 8))
    net.encoder[2].eval()
    generator, statistics = torch.get_rng_state(), net.encoder[1].running_mean.clone()
    ModelSummary(net, max_depth=-1)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(net.encoder[1].running_mean, statistics)
    assert [part.training for part in net.modules()] == [True, True, True, True, False, True]
    assert not any(part._forward_hooks for part in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_forward_that_fails_says_whose_it_was_and_leaves_no_trace() -> None:
    net = Net(torch.randn(5, 9))
    with pytest.raises(RuntimeError) as caught:
        ModelSummary(net)
    assert "model summary ran `forward` with `example_input_array`" in caught.value.__notes__[0]
    assert net.training
    assert not any(part._forward_hooks for part in net.modules())


def test_parameters_that_are_not_materialised_warn_and_stay_so() -> None:
    net = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    net.example_input_array = torch.zeros(2, 3)  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="total number of parameters detected may be inaccurate"):
        summary = ModelSummary(net)
    assert summary.total_parameters == 10
    assert nn.parameter.is_lazy(net[0].weight)


def test_a_model_on_the_meta_device_is_summed_up() -> None:
    with torch.device("meta"):
        net = Net(torch.zeros(5, 8))
    summary = ModelSummary(net)
    assert summary.total_parameters == 213
    assert summary.out_sizes == [[5, 16], [5, 2]]


def test_a_sharded_model_counts_the_whole_and_runs_no_forward() -> None:
    from torch.distributed.tensor import DTensor, Shard  # half of `import torch`
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (2,))
        net = nn.Linear(4, 6, bias=False)
        spec = DTensorSpec(mesh, (Shard(0),), TensorMeta(torch.Size([6, 4]), (4, 1), torch.float32))
        net.weight = nn.Parameter(DTensor(torch.zeros(3, 4), spec, requires_grad=True))
        net.example_input_array = torch.zeros(1, 4)  # type: ignore[assignment]
        summary = ModelSummary(nn.Sequential(net))
        assert summary.total_parameters == 24
        assert summary.in_sizes == ["?"]
    finally:
        torch.distributed.destroy_process_group()


def test_deepspeeds_parameters_show_what_each_device_holds() -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    for parameter in net.parameters():
        parameter.ds_numel, whole = parameter.numel(), parameter.numel()  # type: ignore[attr-defined]
        parameter.partition_numel = lambda whole=whole: whole // 2  # type: ignore[attr-defined]
        parameter.data = torch.empty(0)
    summary = summarize(net)
    assert isinstance(summary, DeepSpeedSummary)
    assert (summary.total_parameters, summary.parameters_per_layer) == (10, [5])
    assert "Params per Device" in str(summary)


def test_parameters_outside_of_layers_have_a_line() -> None:
    assert str(ModelSummary(Net(torch.zeros(5, 8)))).splitlines()[:6] == [
        "  | Name         | Type       | Params | Mode  | FLOPs | In sizes | Out sizes",
        "------------------------------------------------------------------------------",
        "0 | encoder      | Sequential | 176    | train | 1.3 K | [5, 8]   | [5, 16]",
        "1 | head         | Linear     | 34     | train | 320   | [5, 16]  | [5, 2]",
        "  | other params | n/a        | 3      | n/a   | n/a   | n/a      | n/a",
        "------------------------------------------------------------------------------",
    ]


def test_depth_zero_shows_totals_only() -> None:
    assert str(ModelSummary(Net(), max_depth=0)).splitlines()[0] == "179       Trainable params"


def test_a_model_without_layers_or_parameters_has_a_summary() -> None:
    assert "0         Total params" in str(summarize(nn.ReLU()))
