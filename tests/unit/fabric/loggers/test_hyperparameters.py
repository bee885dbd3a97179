import dataclasses
import enum
from argparse import Namespace
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigTypeError
from leyden.fabric.loggers.hyperparameters import as_mapping, flatten, plain, write_yaml


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    color: Color = Color.RED


def test_namespaces_and_dataclasses_are_mappings() -> None:
    assert as_mapping(Namespace(lr=0.1)) == {"lr": 0.1}
    assert as_mapping(Options()) == {"lr": 0.1, "color": Color.RED}
    assert as_mapping(None) == {}
    with pytest.raises(ConfigTypeError, match="'lr'"):
        as_mapping("lr")


def test_values_become_what_yaml_knows() -> None:
    given_ = {
        "options": Options(),
        "path": Path("logs"),
        "tuple": (1, torch.tensor(2.0)),
        "numpy": numpy.float64(0.5),
        "model": torch.nn.Identity(),
        "none": None,
        "flag": True,
        3: "integer key",
    }
    assert plain(given_) == {
        "options": {"lr": 0.1, "color": "RED"},
        "path": "logs",
        "tuple": [1, 2.0],
        "numpy": 0.5,
        "model": "Identity()",
        "none": None,
        "flag": True,
        "3": "integer key",
    }
    assert type(plain(given_)["numpy"]) is float


def test_nested_names_are_joined() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2], "e": None}) == {"a/b/c": 1, "d": "[1, 2]", "e": "None"}


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


@given(
    params=st.dictionaries(st.text(max_size=5), st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=5), max_size=4)
)
def test_a_file_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, params: dict[str, object]) -> None:
    path = tmp_path_factory.getbasetemp() / "hparams.yaml"
    write_yaml(path, params)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == params
