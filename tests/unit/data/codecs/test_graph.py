"""Graphs are taken apart into arrays and put together again."""

from typing import Any

import numpy as np
import pytest

from leyden.core.errors import ConfigError
from leyden.core.optional import installed
from leyden.data.codecs.graph import REST
from leyden.data.types import Graph, Json

EDGES = np.array([[0, 1], [1, 0]])


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right


def test_a_graph_becomes_arrays_and_a_rest() -> None:
    graph = Graph(x=np.ones((2, 3)), edge_index=EDGES, data={"smiles": "CO", "num_nodes": 2, "train_mask": np.array([True, False])})
    parts, hetero = graph.parts()
    assert not hetero
    assert set(parts) == {"x", "edge_index", "train_mask", REST}
    assert isinstance(parts[REST], Json)
    assert parts[REST].value == {"smiles": "CO", "num_nodes": 2}
    assert same(Graph.of_parts(parts, hetero=hetero).fields(), graph.fields())


def test_node_and_edge_types_keep_their_fields() -> None:
    fields = {"paper": {"x": np.ones(2), "kind": "a"}, ("paper", "cites", "paper"): {"edge_index": EDGES}, "_global_store": {"year": 3}}
    parts, hetero = Graph(data=fields).parts()
    assert hetero
    assert set(parts) == {"paper", "paper__cites__paper", REST}
    assert same(Graph.of_parts(parts, hetero=hetero).fields(), fields)


def test_fields_override_the_data() -> None:
    assert Graph(y=5, data={"y": 1, "z": 2}).fields() == {"y": 5, "z": 2}


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ConfigError, match="field 'bad' is a set"):
        Graph(data={"bad": {1}}).parts()
    with pytest.raises(ConfigError, match="accepted are PyG's"):
        Graph(data=object()).fields()


@pytest.mark.skipif(installed("torch_geometric"), reason="PyTorch Geometric is installed")
def test_without_pyg_a_graph_is_read_as_a_graph() -> None:
    parts, hetero = Graph(x=np.ones(2), data={"a": 1}).parts()
    read = Graph.decode(parts, hetero=hetero)
    assert isinstance(read, Graph)
    assert read.x is parts["x"]
    with pytest.raises(ModuleNotFoundError, match="torch_geometric"):
        read.to_pyg()


@pytest.mark.skipif(not installed("torch_geometric"), reason="PyTorch Geometric is not installed")
def test_with_pyg_a_graph_is_read_as_its_data() -> None:
    from torch_geometric.data import Data

    parts, hetero = Graph(data=Data(x=np.ones(2), name="a")).parts()
    read = Graph.decode(parts, hetero=hetero)
    assert isinstance(read, Data)
    assert read.name == "a"
