import collections
import dataclasses

import torch

from leyden.fabric.trees import leaves, map_tensors

Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass(frozen=True)
class Pair:
    left: object
    right: object


def plus_one(tensor):
    return tensor + 1


def test_nesting_and_kinds_are_kept():
    one = torch.ones(1)
    tree = {"a": [one, (one, "word")], "b": Point(one, 2), "c": Pair(one, None), "d": collections.OrderedDict(e=one)}
    result = map_tensors(tree, plus_one)
    assert result["a"][0] == 2
    assert result["a"][1] == (torch.tensor([2.0]), "word")
    assert isinstance(result["b"], Point)
    assert result["b"].y == 2
    assert result["c"].left == 2
    assert isinstance(result["d"], collections.OrderedDict)
    assert tree["a"][0] == 1


def test_an_unchanged_tree_is_the_same_object():
    tree = {"a": [torch.ones(1)], "b": "word"}
    assert map_tensors(tree, lambda tensor: tensor) is tree


def test_leaves_come_in_order():
    assert leaves({"a": [1, (2,)], "b": 3}) == [1, 2, 3]
