import math
from collections import OrderedDict, namedtuple
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.trainer.data.collections import filled, flattened, mapped
from leyden.trainer.data.combined import MODES, CombinedLoader, combined_length
from leyden.trainer.data.lane import sized

Pair = namedtuple("Pair", ["left", "right"])


def steps(iterables: Any, mode: Any, limits: Any = None) -> list[tuple[Any, int, int]]:
    loader = CombinedLoader(iterables, mode)
    loader.limits = limits
    return list(loader)


def test_min_size_ends_with_the_shortest() -> None:
    assert steps({"a": range(3), "b": range(10, 12)}, "min_size") == [({"a": 0, "b": 10}, 0, 0), ({"a": 1, "b": 11}, 1, 0)]


def test_max_size_cycle_begins_shorter_ones_again() -> None:
    assert [batch for batch, _, _ in steps([range(5), range(10, 12)], "max_size_cycle")] == [[0, 10], [1, 11], [2, 10], [3, 11], [4, 10]]


def test_max_size_gives_none_for_those_at_their_end() -> None:
    assert [batch for batch, _, _ in steps([range(3), range(10, 11)], "max_size")] == [[0, 10], [1, None], [2, None]]


def test_sequential_counts_batches_per_loader() -> None:
    assert steps([range(2), range(10, 11)], "sequential") == [(0, 0, 0), (1, 1, 0), (10, 0, 1)]


def test_min_size_is_the_default() -> None:
    assert CombinedLoader([[1]]).mode == "min_size"


def test_limits_cap_each_loader_in_every_mode() -> None:
    loaders = [range(4), range(10, 13)]
    assert [batch for batch, _, _ in steps(loaders, "min_size", [1, 9])] == [[0, 10]]
    assert [batch for batch, _, _ in steps(loaders, "max_size", [1, math.inf])] == [[0, 10], [None, 11], [None, 12]]
    assert [batch for batch, _, _ in steps(loaders, "max_size_cycle", [2, 3])] == [[0, 10], [1, 11], [0, 12]]
    assert steps(loaders, "sequential", 1) == [(0, 0, 0), (10, 0, 1)]


def test_cycling_does_not_begin_again_what_ends_together() -> None:
    begun: list[int] = []

    class Counting:
        def __init__(self, length: int) -> None:
            self.length = length

        def __iter__(self) -> Any:
            begun.append(self.length)
            return iter(range(self.length))

    assert len(steps([Counting(3), Counting(3)], "max_size_cycle")) == 3
    assert begun == [3, 3]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(MODES), st.data())
def test_the_length_is_the_number_of_steps(sizes: list[int], mode: Any, data: st.DataObject) -> None:
    loader = CombinedLoader([range(size) for size in sizes], mode)
    loader.limits = data.draw(st.none() | st.lists(st.integers(1, 6), min_size=len(sizes), max_size=len(sizes)))
    iter(loader)
    expected = len(loader)
    assert len(list(loader)) == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from(["min_size", "max_size", "sequential"]))
def test_each_mode_is_its_rule(sizes: list[int], mode: Any) -> None:
    loaders = [range(size) for size in sizes]
    if mode == "sequential":
        rule = [(batch, index, number) for number, loader in enumerate(loaders) for index, batch in enumerate(loader)]
    else:
        length = (min if mode == "min_size" else max)(sizes)
        rule = [([step if step < size else None for size in sizes], step, 0) for step in range(length)]
    assert steps(loaders, mode) == rule


def test_each_iter_begins_anew() -> None:
    loader = CombinedLoader([range(3)], "sequential")
    next(iter(loader))
    assert len(list(loader)) == 3
    assert len(list(loader)) == 3


def test_one_loader_is_yielded_as_it_is() -> None:
    assert steps(range(2), "max_size") == [(0, 0, 0), (1, 1, 0)]
    assert steps([], "min_size") == []
    assert combined_length("min_size", []) == 0


def test_collections_nest_and_keep_their_classes() -> None:
    shape = OrderedDict(a=(1, [2]), b=Pair(3, {"c": 4}))
    assert flattened(shape) == [1, 2, 3, 4]
    result = filled(shape, "wxyz")
    assert result == OrderedDict(a=("w", ["x"]), b=Pair("y", {"c": "z"}))
    assert (type(result), type(result["b"])) == (OrderedDict, Pair)
    assert mapped(MappingProxyType({"a": 1}), str) == {"a": "1"}


def test_flattened_and_limits_can_be_replaced() -> None:
    loader = CombinedLoader({"a": range(1), "b": range(2)}, "sequential")
    loader.flattened = [range(3), range(4)]
    assert loader.iterables == {"a": range(3), "b": range(4)}
    with pytest.raises(ConfigError, match=r"Mismatch in flattened length \(1\) and existing length \(2\)"):
        loader.flattened = [range(1)]
    loader.limits = 2
    assert loader.limits == [2, 2]
    with pytest.raises(ConfigError, match=r"Mismatch in number of limits \(3\) and number of iterables \(2\)"):
        loader.limits = [1, 2, 3]


def test_samplers_come_in_the_shape_of_the_collection() -> None:
    inner: DataLoader[int] = DataLoader(range(4), 2)  # type: ignore[arg-type]
    loader = CombinedLoader({"a": inner, "b": range(2)})
    assert loader.sampler == {"a": inner.sampler, "b": None}
    assert loader.batch_sampler == {"a": inner.batch_sampler, "b": None}


def test_the_length_needs_iter_first() -> None:
    loader = CombinedLoader([range(2)])
    with pytest.raises(StateError, match=r"Please call `iter\(combined_loader\)` first"):
        len(loader)
    with pytest.raises(StateError, match=r"Please call `iter\(combined_loader\)` first"):
        next(loader)
    assert len(iter(loader)) == 2  # type: ignore[arg-type]
    loader.reset()
    with pytest.raises(StateError, match="first"):
        len(loader)


def test_an_unknown_length_is_no_length() -> None:
    loader = CombinedLoader([range(2), iter([1])], "max_size")
    iter(loader)
    with pytest.raises(ConfigTypeError, match="length of this CombinedLoader is not known"):
        len(loader)
    assert sized(loader) is None
    shorter = iter(CombinedLoader([range(2), iter([1])], "min_size"))
    assert len(shorter) == 2  # type: ignore[arg-type]


def test_an_unknown_mode_names_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"Unsupported mode 'max_cycle'.*Did you mean 'max_size_cycle'"):
        CombinedLoader([], "max_cycle")  # type: ignore[arg-type]
