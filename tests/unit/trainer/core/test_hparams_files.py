import argparse
import enum
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigTypeError, StateError
from leyden.fabric.checkpoint.opaque import Opaque
from leyden.trainer.core.saving import load_hparams_from_tags_csv, load_hparams_from_yaml, save_hparams_to_tags_csv, save_hparams_to_yaml


class Color(enum.Enum):
    RED = 1


def test_plain_values_come_back_from_yaml(tmp_path: Path) -> None:
    values = {"lr": 0.1, "name": "é", "layers": [1, 2], "optimizer": {"betas": [0.9, 0.99]}, "none": None, "flag": True}
    for form in (values, argparse.Namespace(**values)):
        save_hparams_to_yaml(tmp_path / "hparams.yaml", form)
        assert load_hparams_from_yaml(tmp_path / "hparams.yaml") == values


def test_what_yaml_says_otherwise_is_written_as_that(tmp_path: Path) -> None:
    save_hparams_to_yaml(
        tmp_path / "hparams.yaml", {"p": Path("a/b"), "t": (1, 2), "c": Color.RED, "d": torch.device("cpu"), "x": torch.tensor(2)}
    )
    assert load_hparams_from_yaml(str(tmp_path / "hparams.yaml")) == {"p": "a/b", "t": [1, 2], "c": "RED", "d": "cpu", "x": 2}


def test_what_yaml_cannot_say_is_skipped_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Skipping 'f' parameter because it is not possible to safely dump to YAML"):
        save_hparams_to_yaml(tmp_path / "hparams.yaml", {"lr": 0.1, "f": torch.relu})
    assert load_hparams_from_yaml(tmp_path / "hparams.yaml") == {"lr": 0.1, "f": type(torch.relu).__name__}


def test_tags_of_classes_are_named_and_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "hparams.yaml"
    path.write_text("t: !!python/tuple [1, 2]\nf: !!python/name:os.system ''\ng: !!python/object/apply:os.system ['ls']\n")
    values = load_hparams_from_yaml(path)
    assert values["t"] == (1, 2)
    assert [(type(values[name]), values[name].name) for name in "fg"] == [(Opaque, "os.system")] * 2


def test_a_missing_file_warns_and_is_empty(tmp_path: Path) -> None:
    for load in (load_hparams_from_yaml, load_hparams_from_tags_csv):
        with pytest.warns(RuntimeWarning, match=r"Missing Tags: .*none"):
            assert load(tmp_path / "none") == {}


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for save in (save_hparams_to_yaml, save_hparams_to_tags_csv):
        with pytest.raises(StateError, match="Missing folder"):
            save(tmp_path / "no" / "file", {"a": 1})


@pytest.mark.parametrize("value", [1, "text", [1]])
def test_only_mappings_are_hyper_parameters(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigTypeError, match="hyper-parameters"):
        save_hparams_to_yaml(tmp_path / "hparams.yaml", value)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigTypeError, match="holds a list"):
        load_hparams_from_yaml(tmp_path / "list.yaml")


def test_values_come_back_from_csv(tmp_path: Path) -> None:
    values = {"lr": 0.1, "name": "x y", "layers": [1, 2], "none": None, "s": ""}
    save_hparams_to_tags_csv(tmp_path / "tags.csv", values)
    assert load_hparams_from_tags_csv(tmp_path / "tags.csv") == values


def test_files_at_urls_are_read(tmp_path: Path) -> None:
    (tmp_path / "hparams.yaml").write_text("lr: 0.1\n")
    assert load_hparams_from_yaml(f"file://{tmp_path}/hparams.yaml") == {"lr": 0.1}
