"""One layer: sizes are noted while it is watched, and parameters are counted whatever they are."""

import torch
from torch import nn

from leyden.trainer.summary.layer import UNKNOWN_SIZE, LayerSummary, parse_batch_shape


def test_sizes_are_known_after_a_call_and_no_longer_noted_after_removal() -> None:
    module = nn.Linear(4, 2)
    layer = LayerSummary(module)
    handle = layer.watch()
    module(torch.zeros(3, 4))
    assert (layer.in_size, layer.out_size) == ([3, 4], [3, 2])
    handle.remove()
    module(torch.zeros(5, 4))
    assert layer.in_size == [3, 4]


def test_a_recurrent_layer_returns_nested_sizes() -> None:
    module = nn.LSTM(4, 2, batch_first=True)
    layer = LayerSummary(module)
    layer.watch()
    module(torch.zeros(3, 5, 4))
    assert layer.out_size == [[3, 5, 2], [[1, 3, 2], [1, 3, 2]]]


def test_what_has_no_shape_is_unknown() -> None:
    assert parse_batch_shape("words") == UNKNOWN_SIZE
    assert parse_batch_shape({"x": torch.zeros(2), "n": 1}) == [[2], UNKNOWN_SIZE]


def test_parameters_count_frozen_and_meta_but_not_lazy_ones() -> None:
    with torch.device("meta"):
        assert LayerSummary(nn.Linear(4, 2)).num_parameters == 10
    assert LayerSummary(nn.Linear(4, 2).requires_grad_(False)).num_parameters == 10
    assert LayerSummary(nn.LazyLinear(2)).num_parameters == 0
