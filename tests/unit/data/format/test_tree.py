"""What a sample may hold: nothing is stored that would come back as something else."""

from typing import Any

import numpy as np
import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.data.errors import SchemaError
from leyden.data.format.keys import checked_key
from leyden.data.format.leaves import LeafRules
from leyden.data.format.tree import SampleBuilder
from leyden.data.types import Tensor, Text


def stored(*samples: Any) -> SampleBuilder:
    builder = SampleBuilder(LeafRules())
    for sample in samples:
        builder.append(sample)
    return builder


def test_every_leaf_has_a_name_of_its_own() -> None:
    with pytest.raises(SchemaError, match="two leaves of the name 'a'"):
        stored({"": {"a": 1}, "a": 2})
    assert [leaf.name for leaf in stored({"": 1, "a": 2, "b": {"": 3}}).schema.leaves] == ["", "a", "b/"]


@pytest.mark.parametrize("sample", [{}, {"a": {}}, (), {"a": ()}], ids=repr)
def test_a_sample_holds_something(sample: Any) -> None:
    with pytest.raises(SchemaError, match="holds no value at all"):
        stored(sample)


def test_masks_are_not_lost() -> None:
    masked = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    for value in (masked, Tensor(array=masked)):
        with pytest.raises(SchemaError, match="mask would be lost"):
            stored({"a": value})


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_hold_their_values_in_a_row(tensor: torch.Tensor) -> None:
    with pytest.raises(SchemaError, match="cannot be stored"):
        stored({"a": tensor})
    with pytest.raises(SchemaError, match="cannot be stored"):
        stored({"a": torch.ones(3)}, {"a": tensor})


@pytest.mark.parametrize("value", ["a\udcff", ["b", "a\udcff"], Text(text="a\udcff")], ids=["str", "list", "wrapper"])
def test_text_is_text(value: Any) -> None:
    with pytest.raises(SchemaError, match="is no character"):
        stored({"a": value})
    with pytest.raises(SchemaError, match="is no character"):
        stored({"a": "before"}, {"a": "a\udcff"})
    with pytest.raises(SchemaError, match="is no character"):
        stored({"a\udcff": 1})
    with pytest.raises(ConfigError, match="half of a surrogate pair"):
        checked_key("a\udcff")


def test_what_later_samples_said_is_forgotten() -> None:
    builder = stored({"a": [1, 2]})
    mark = builder.mark()
    builder.append({"a": ["x"]})
    builder.append({"a": None})
    builder.go_back(mark)
    builder.append({"a": [3]})
    (leaf,), (column,) = builder.schema.leaves, builder.finish()
    assert (leaf.type, leaf.dtype, leaf.nullable) == ("list", "int64", False)
    assert column.values.tolist() == [1, 2, 3]
    empty = SampleBuilder(LeafRules())
    mark = empty.mark()
    empty.append({"b": 1})
    empty.go_back(mark)
    empty.append({"c": 1})
    assert [leaf.name for leaf in empty.schema.leaves] == ["c"]
