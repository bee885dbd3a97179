import argparse
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.checkpoint.plugin import TorchCheckpointIO
from leyden.trainer.core import saving
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.core.hparams import encode, encode_hparams
from leyden.trainer.core.mixins import HyperparametersMixin
from leyden.trainer.core.saving import class_method_only


class Model(HyperparametersMixin, nn.Module):
    """What loading asks of a module."""

    strict_loading = True

    def __init__(self, width: int = 2, root: Path = Path("data"), lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)
        self.calls: list[str] = []

    def configure_model(self) -> None:
        self.calls.append("configure_model")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.calls.append(f"on_load_checkpoint {checkpoint['epoch']}")

    @class_method_only
    def load_from_checkpoint(cls, checkpoint_path: Any, **kwargs: Any) -> Any:  # noqa: N805 - a class method
        """Load."""
        return saving.load_module(cls, checkpoint_path, **kwargs)


@dataclass
class Config:
    width: int = 3


def write(path: Path, owner: Any, prefix: str = "", **more: Any) -> Path:
    content = {"epoch": 3, "state_dict": owner.state_dict() if isinstance(owner, nn.Module) else {}}
    content[f"{prefix}hyper_parameters"] = encode_hparams(owner.hparams)
    content[f"{prefix}hparams_name"] = owner._hparams_name
    TorchCheckpointIO().save_checkpoint({**content, **more}, str(path))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "model.ckpt", Model(4, root=Path("there")))


# -- modules -----------------------------------------------------------------------------------------------------


def test_a_module_comes_back_with_arguments_and_weights(file: Path) -> None:
    model = Model.load_from_checkpoint(file)
    assert model.hparams == {"width": 4, "root": Path("there"), "lr": 0.1}
    assert torch.equal(model.layer.weight, torch.load(file, weights_only=True)["state_dict"]["layer.weight"])
    assert model.calls == ["configure_model", "on_load_checkpoint 3"]


def test_keyword_arguments_override_stored_ones_and_unknown_ones_are_dropped(file: Path) -> None:
    assert Model.load_from_checkpoint(file, lr=0.5, unknown=1).hparams.lr == 0.5


def test_a_constructor_with_keywords_gets_unknown_ones_too(tmp_path: Path) -> None:
    class Open(Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(kwargs.pop("width"))
            self.more = kwargs

    path = write(tmp_path / "open.ckpt", Open(width=2, extra=1))
    assert Open.load_from_checkpoint(path, note="x").more == {"extra": 1, "note": "x", "root": Path("data"), "lr": 0.1}


def test_an_open_file_is_read(file: Path) -> None:
    assert Model.load_from_checkpoint(io.BytesIO(file.read_bytes())).hparams.width == 4
    with file.open("rb") as stream:
        assert Model.load_from_checkpoint(stream).hparams.width == 4


def test_files_of_hyper_parameters_replace_the_stored_ones(file: Path, tmp_path: Path) -> None:
    (tmp_path / "hparams.yaml").write_text("width: 4\nlr: 0.7\n")
    (tmp_path / "tags.csv").write_text("key,value\nwidth,4\nlr,0.8\nroot,some/where\n")
    assert Model.load_from_checkpoint(file, hparams_file=tmp_path / "hparams.yaml").hparams == {"width": 4, "lr": 0.7, "root": Path("data")}
    assert Model.load_from_checkpoint(file, hparams_file=str(tmp_path / "tags.csv")).hparams == {
        "width": 4,
        "lr": 0.8,
        "root": "some/where",
    }
    with pytest.raises(ConfigError, match=r"\.csv, \.yml or \.yaml is required"):
        Model.load_from_checkpoint(file, hparams_file="hparams.json")


@pytest.mark.parametrize(
    ("given", "kind"), [({"width": 3}, AttributeDict), (argparse.Namespace(width=3), argparse.Namespace), (Config(), Config)]
)
def test_one_configuration_object_comes_back_as_what_the_constructor_takes(tmp_path: Path, given: Any, kind: type) -> None:
    class Configured(Model):
        def __init__(self, config: Any, bias: bool = True) -> None:
            nn.Module.__init__(self)
            self.save_hyperparameters(config)
            self.config, self.bias = config, bias
            self.layer = nn.Linear(self.hparams.width, 1)
            self.calls: list[str] = []

    Configured.__init__.__annotations__["config"] = kind
    path = write(tmp_path / "configured.ckpt", Configured(given))
    model = Configured.load_from_checkpoint(path, bias=False)
    assert (type(model.config), model.hparams, model.bias) == (kind, {"width": 3}, False)
    if kind is not Config:
        assert Configured.load_from_checkpoint(path, note=1).hparams == {"width": 3, "note": 1}
    assert Configured.load_from_checkpoint(path, config={"width": 3}).config == {"width": 3}


def test_arguments_that_are_not_stored_are_asked_for(tmp_path: Path) -> None:
    class Backed(Model):
        def __init__(self, backbone: nn.Module, width: int = 2, act: Any = None) -> None:
            nn.Module.__init__(self)
            self.save_hyperparameters(ignore="backbone")
            self.layer = backbone
            self.calls: list[str] = []

    with pytest.warns(UserWarning, match="removed from hparams"):
        path = write(tmp_path / "backed.ckpt", Backed(nn.Linear(2, 1), act=torch.relu))
    expected = r"act \(.*relu\) is not plain data; backbone is not stored\. Pass them: Backed\.load_from_.*act=\.\.\., backbone=\.\.\.\)"
    with pytest.raises(ConfigError, match=expected):
        Backed.load_from_checkpoint(path)
    assert Backed.load_from_checkpoint(path, backbone=nn.Linear(2, 1), act=None).hparams == {"width": 2, "act": None}


def test_names_must_match_unless_told_otherwise(tmp_path: Path) -> None:
    class Loose(Model):
        strict_loading = False

    path = write(tmp_path / "loose.ckpt", Model(), state_dict={"layer.weight": torch.zeros(1, 2)})
    with pytest.raises(RuntimeError, match=r"Missing key\(s\)"):
        Model.load_from_checkpoint(path)
    assert Model.load_from_checkpoint(path, strict=False).layer.weight.sum() == 0
    assert Loose.load_from_checkpoint(path).layer.weight.sum() == 0


def test_strict_must_not_contradict_the_modules_own_word(file: Path) -> None:
    class Decided(Model):
        def __init__(self, width: int = 4) -> None:
            super().__init__(width)
            self.__dict__["_strict_loading"] = True

    with pytest.raises(ConfigError, match=re.escape("is in conflict with `Decided.strict_loading=True`")):
        Decided.load_from_checkpoint(file, strict=False)
    assert Decided.load_from_checkpoint(file, strict=True).hparams.width == 4


def test_a_checkpoint_without_parameters_warns(tmp_path: Path) -> None:
    class Empty(Model):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.save_hyperparameters()
            self.calls: list[str] = []

    path = write(tmp_path / "empty.ckpt", Empty())
    with pytest.warns(UserWarning, match=r"The state dict in '.*empty.ckpt' contains no parameters"):
        Empty.load_from_checkpoint(path)


def to_meta(storage: Any, place: str) -> Any:
    return torch.empty(0, device="meta").untyped_storage()


@pytest.mark.parametrize("where", ["meta", torch.device("meta"), {"cpu": "meta"}, to_meta], ids=["name", "device", "mapping", "function"])
def test_map_location_says_where_the_module_goes(file: Path, where: Any) -> None:
    assert Model.load_from_checkpoint(file, map_location=where).layer.weight.device.type == "meta"


def test_without_map_location_it_is_on_the_cpu(file: Path) -> None:
    for where in (None, "cpu", {}, lambda storage, place: None):
        assert Model.load_from_checkpoint(file, map_location=where).layer.weight.device.type == "cpu"


def test_missing_and_foreign_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Checkpoint file not found"):
        Model.load_from_checkpoint(tmp_path / "no.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(CorruptDataError, match=r"not a checkpoint of Leyden or Lightning 2\.x: it has the keys 'weights'"):
        Model.load_from_checkpoint(tmp_path / "other.ckpt")


class Thing:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = object.__hash__


def test_pickles_are_read_from_trusted_files_only(tmp_path: Path) -> None:
    path = write(tmp_path / "pickled.ckpt", Model(4), extra=encode({"thing": Thing()}, "extra"))
    with pytest.raises(ConfigError, match=r"at \"extra\['thing'\]\".*weights_only=False"):
        Model.load_from_checkpoint(path)
    assert Model.load_from_checkpoint(path, weights_only=False).hparams.width == 4


def test_a_model_does_not_need_the_pickles_of_callbacks(tmp_path: Path) -> None:
    path = write(tmp_path / "pickled.ckpt", Model(4), callbacks=encode({"thing": Thing()}, "callbacks"))
    assert Model.load_from_checkpoint(path).hparams.width == 4


def test_classes_in_files_of_others_are_found_in_trusted_ones_only(tmp_path: Path) -> None:
    content = {"epoch": 1, "state_dict": Model().state_dict(), "hyper_parameters": {"root": Thing()}}
    torch.save(content, tmp_path / "other.ckpt")
    refused = r"root \(.*Thing\) is not plain data"
    with pytest.warns(UserWarning, match="classes that are not read"), pytest.raises(ConfigError, match=refused):
        Model.load_from_checkpoint(tmp_path / "other.ckpt")
    with pytest.warns(UserWarning, match="may run any code"):
        assert Model.load_from_checkpoint(tmp_path / "other.ckpt", weights_only=False).hparams.root == Thing()


def test_it_is_called_on_the_class(file: Path) -> None:
    with pytest.raises(TypeError, match=re.escape("The classmethod `Model.load_from_checkpoint` cannot be called on an instance")):
        Model().load_from_checkpoint(file)
    assert Model.load_from_checkpoint.__doc__ == "Load."


# -- what the command line keeps ---------------------------------------------------------------------------------


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    built: list[Any] = []

    def instantiate_module(cls: Any, config: dict[str, Any]) -> Any:
        built.append(config)
        return cls(config["init_args"]["width"])

    stand_in = ModuleType("leyden.trainer.cli")
    stand_in.instantiate_module = instantiate_module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "leyden.trainer.cli", stand_in)
    return built


@pytest.mark.parametrize("package", ["leyden.trainer", "lightning.pytorch", "pytorch_lightning"])
def test_the_command_lines_configuration_is_built_by_it(tmp_path: Path, command_line: list[Any], package: str) -> None:
    kept = {"_instantiator": f"{package}.cli.instantiate_module", "class_path": "Model", "init_args": {"width": 4}}
    path = write(tmp_path / "cli.ckpt", Model(4), hyper_parameters=kept)
    assert Model.load_from_checkpoint(path).hparams.width == 4
    assert command_line == [{"class_path": "Model", "init_args": {"width": 4}}]


def test_no_other_function_is_called_for_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "cli.ckpt", Model(), hyper_parameters={"_instantiator": "os.system", "width": 2})
    with pytest.raises(ConfigError, match=r"'os\.system', which is not in the allowlist of trusted instantiators"):
        Model.load_from_checkpoint(path)


# -- data modules ------------------------------------------------------------------------------------------------


class Data(LightningDataModule):
    def __init__(self, root: Path, batch_size: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.seen: Any = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict["seen"]


def test_a_data_module_comes_back_with_arguments_and_state(tmp_path: Path) -> None:
    path = write(tmp_path / "data.ckpt", Data(Path("x")), "datamodule_", Data={"seen": torch.tensor(5)})
    data = Data.load_from_checkpoint(path, batch_size=16)
    assert data.hparams == {"root": Path("x"), "batch_size": 16}
    assert data.seen == 5
    assert Data.load_from_checkpoint(path, map_location="meta").seen.device.type == "meta"
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        data.load_from_checkpoint(path)


def test_a_data_module_without_state_in_the_file_has_none(tmp_path: Path) -> None:
    assert Data.load_from_checkpoint(write(tmp_path / "data.ckpt", Data(Path("x")), "datamodule_")).seen is None
