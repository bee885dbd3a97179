"""Round trips on one device: every format, what is returned, what is refused, and the random generators.

Long because each format goes through the same journeys.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, NotFoundError
from leyden.core.storage import open_storage
from leyden.fabric.checkpoint import saver
from leyden.fabric.checkpoint.layout import read_meta
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.training_state import assert_same_state, assert_same_tree, train, training_state

FORMATS = ["file", "directory"]
strategy = SingleDeviceStrategy("cpu")


def save(path: Path, state: dict[str, Any], **options: Any) -> None:
    saver.write(path, state, strategy=strategy, **options)


def load(path: Path, state: Any, **options: Any) -> dict[str, Any]:
    return saver.read(path, state, strategy=strategy, **options)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("format", FORMATS)
def test_everything_comes_back_bit_for_bit(tmp_path: Path, format: str, blocking: bool) -> None:
    state = training_state()
    train(state)
    save(tmp_path / "saved", state, format=format, blocking=blocking)
    saver.wait_for_saves()
    other = training_state(seed=1)
    assert load(tmp_path / "saved", other) == {}
    assert_same_state(other, state)


@pytest.mark.parametrize("format", FORMATS)
def test_a_resumed_training_equals_the_unbroken_one(tmp_path: Path, format: str) -> None:
    state = training_state()
    train(state)
    save(tmp_path / "saved", state, format=format)
    train(state)
    other = training_state(seed=1)
    load(tmp_path / "saved", other)
    train(other)
    assert_same_state(other, state)


@pytest.mark.parametrize("format", FORMATS)
def test_changes_after_staging_never_reach_the_file(tmp_path: Path, format: str) -> None:
    state = training_state()
    state["log"] = {"values": torch.zeros(3), "list": [1]}
    train(state)
    wanted = {name: tensor.clone() for name, tensor in state["model"].state_dict().items()}
    save(tmp_path / "saved", state, format=format, blocking=False)
    train(state)
    state["log"]["values"].fill_(7)
    state["log"]["list"].append(2)
    saver.wait_for_saves()
    saved = saver.read(tmp_path / "saved")
    assert_same_tree(saved["model"], wanted)
    assert saved["log"]["values"].tolist() == [0, 0, 0]
    assert saved["log"]["list"] == [1]
    assert saved["step"] == 3


def test_the_single_file_is_what_torch_reads(tmp_path: Path) -> None:
    state = training_state()
    train(state)
    save(tmp_path / "model.ckpt", state)
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert_same_tree(content["model"], dict(state["model"].state_dict()))
    assert content["optimizer"].keys() == {"state", "param_groups"}
    assert content["__leyden__"].keys() == {"meta", "ranks", "precision"}
    assert content["__leyden__"]["meta"]["layout"] == "file"


def test_the_full_directory_is_what_safetensors_reads(tmp_path: Path) -> None:
    state = training_state()
    save(tmp_path / "saved", state, format="directory")
    assert_same_tree(load_file(tmp_path / "saved" / "model.safetensors"), dict(state["model"].state_dict()))
    meta = json.loads((tmp_path / "saved" / "meta.json").read_text())
    assert meta["format"] == "leyden.checkpoint"
    assert meta["layout"] == "full"
    assert meta["entries"]["optimizer"] == {"kind": "optimizer", "class": "AdamW", "module": "model"}
    assert meta["files"].keys() == {"model.safetensors", "train.pt", "ranks/rank-00000.pt"}


def test_a_path_that_ends_in_a_slash_is_a_directory(tmp_path: Path) -> None:
    saver.write(f"{tmp_path}/saved/", {"step": 1}, strategy=strategy)
    assert read_meta(tmp_path / "saved").layout == "full"


def test_extras_are_never_returned(tmp_path: Path) -> None:
    save(tmp_path / "saved", {"step": 1})
    assert saver.read(tmp_path / "saved") == {"step": 1}


@pytest.mark.parametrize("format", FORMATS)
def test_the_remainder_is_what_state_did_not_ask_for(tmp_path: Path, format: str) -> None:
    state = training_state()
    train(state)
    save(tmp_path / "saved", state, format=format)
    rest = load(tmp_path / "saved", {"model": training_state(1)["model"]})
    assert rest.keys() == state.keys() - {"model"}
    assert_same_tree(rest["optimizer"], state["optimizer"].state_dict())
    assert rest["hparams"] == state["hparams"]


@pytest.mark.parametrize("format", FORMATS)
def test_odd_keys_and_nested_objects_keep_their_place(tmp_path: Path, format: str) -> None:
    model, extra = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(extra.parameters(), lr=0.2)]
    model(torch.ones(1, 2)).sum().backward()
    optimizers[0].step()
    state = {"my model/ä": model, "parts": {"extra": extra, "note": "x"}, "optimizer_states": optimizers}
    save(tmp_path / "saved", state, format=format)
    saved = saver.read(tmp_path / "saved")
    assert_same_tree(saved["my model/ä"], dict(model.state_dict()))
    assert saved["parts"]["note"] == "x"
    assert_same_tree(saved["optimizer_states"], [each.state_dict() for each in optimizers])
    other, other_extra = nn.Linear(2, 2), nn.Linear(2, 2)
    other_optimizers = [torch.optim.SGD(other.parameters(), lr=9.0, momentum=0.9), torch.optim.SGD(other_extra.parameters(), lr=9.0)]
    into = {"my model/ä": other, "parts": {"extra": other_extra, "note": ""}, "optimizer_states": other_optimizers}
    load(tmp_path / "saved", into)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other_extra.weight, extra.weight)
    assert into["parts"]["note"] == "x"
    assert_same_tree([each.state_dict() for each in other_optimizers], [each.state_dict() for each in optimizers])


@pytest.mark.parametrize("format", FORMATS)
def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path, format: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Linear(100, 100, bias=False)
            self.outside = nn.Linear(100, 100, bias=False)
            self.outside.weight = self.inside.weight

    model, other = Tied(), Tied()
    save(tmp_path / "saved", {"model": model}, format=format, blocking=False)
    saver.wait_for_saves()
    size = sum(path.stat().st_size for path in [tmp_path / "saved", *(tmp_path / "saved").rglob("*")] if path.is_file())
    assert size < 80_000  # 40,000 bytes of weights and some 17,000 of random states
    load(tmp_path / "saved", {"model": other})
    assert other.inside.weight is other.outside.weight
    assert torch.equal(other.inside.weight, model.inside.weight)
    whole = saver.read(tmp_path / "saved")["model"]
    assert whole["inside.weight"].data_ptr() == whole["outside.weight"].data_ptr()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch 2.11 says so while it loads any sparse tensor
@pytest.mark.parametrize("format", FORMATS)
def test_every_dtype_and_shape_survives(tmp_path: Path, format: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("brain", torch.randn(3).bfloat16())
            self.register_buffer("flag", torch.tensor(True))
            self.register_buffer("empty", torch.empty(0, 4))
            self.register_buffer("wide", torch.randn(2).to(torch.complex128))
            self.register_buffer("view", torch.randn(4, 6)[:, ::2])
            self.register_buffer("conjugate", self.wide.conj())  # the same memory, seen otherwise
            self.register_buffer("sparse", torch.eye(3).to_sparse())

    state = Odd()
    save(tmp_path / "saved", {"model": state}, format=format, blocking=False)
    saver.wait_for_saves()
    saved = saver.read(tmp_path / "saved")["model"]
    for name, tensor in state.state_dict().items():
        assert torch.equal(saved[name].to_dense(), tensor.to_dense()), name


def test_a_row_is_not_stored_with_its_whole_matrix(tmp_path: Path) -> None:
    save(tmp_path / "saved", {"row": torch.zeros(1000, 1000)[0]})
    assert (tmp_path / "saved").stat().st_size < 100_000


@pytest.mark.parametrize("format", FORMATS)
def test_filter_keeps_what_it_says(tmp_path: Path, format: str) -> None:
    state = training_state()
    filters = {"model": lambda name, _value: name.startswith("0."), "hparams": lambda _name, _value: False}
    save(tmp_path / "saved", state, filter=filters, format=format)
    saved = saver.read(tmp_path / "saved")
    assert saved["model"].keys() == {"0.weight", "0.bias"}
    assert "hparams" not in saved
    assert saved["step"] == 0


@pytest.mark.parametrize(
    ("state", "options", "error", "message"),
    [
        ([1], {}, ConfigTypeError, "should be a dictionary"),
        ({1: 2}, {}, ConfigTypeError, "keys are strings"),
        ({"a": 1}, {"filter": {"b": print}}, ConfigError, r"filter\['b'\].*Its keys are 'a'"),
        ({"a": 1}, {"filter": {"a": 1}}, ConfigTypeError, "expected a function"),
        ({"a": 1}, {"filter": [1]}, ConfigTypeError, "filter should be a dictionary"),
        ({"a": 1}, {"format": "files"}, ConfigError, "Did you mean 'file'"),
        ({"__leyden__": 1}, {}, ConfigError, "the checkpoint's own"),
        ({"a": print}, {}, ConfigError, r"state\['a'\] is a builtin_function"),
        ({"a": nn.Linear(1, 1, device="meta")}, {}, ConfigError, "meta device"),
    ],
)
def test_bad_saves_are_refused_before_a_byte_is_written(
    tmp_path: Path, state: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save(tmp_path / "saved", state, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(ConfigError, match=r"is no checkpoint of Leyden \(it holds precious.txt\)"):
        save(tmp_path, {"step": 1})
    assert (tmp_path / "precious.txt").read_text() == "data"


def test_saving_again_replaces_whatever_kind_was_there(tmp_path: Path) -> None:
    for step, format in enumerate(["file", "directory", "directory", "file"]):
        save(tmp_path / "saved", {"step": step}, format=format)
        assert saver.read(tmp_path / "saved") == {"step": step}
        assert [path.name for path in tmp_path.iterdir()] == ["saved"]


# -- raw state dicts -----------------------------------------------------------------------------------------------------


def test_raw_reads_torch_and_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    state = model.state_dict()
    torch.save(state, tmp_path / "model.pt")
    save_file(state, tmp_path / "model.safetensors")
    names = list(state)
    save_file({name: state[name] for name in names[:2]}, tmp_path / "part-1.safetensors")
    save_file({name: state[name] for name in names[2:]}, tmp_path / "part-2.safetensors")
    places = {name: f"part-{1 + (index >= 2)}.safetensors" for index, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in ("model.pt", "model.safetensors", "model.safetensors.index.json", ""):
        other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
        saver.read_raw(tmp_path / path, other, strategy=strategy)
        assert_same_tree(dict(other.state_dict()), dict(state))


def test_raw_reads_an_optimizers_state(tmp_path: Path) -> None:
    state, other = training_state(), training_state(1)
    train(state)
    torch.save(state["optimizer"].state_dict(), tmp_path / "optimizer.pt")
    saver.read_raw(tmp_path / "optimizer.pt", other["optimizer"])
    assert_same_tree(other["optimizer"].state_dict(), state["optimizer"].state_dict())


def test_raw_refuses_what_is_no_state_dict(tmp_path: Path) -> None:
    save(tmp_path / "file", {"model": nn.Linear(1, 1)})
    save(tmp_path / "directory", {"model": nn.Linear(1, 1)}, format="directory")
    for name in ("file", "directory"):
        with pytest.raises(ConfigError, match="use load"):
            saver.read_raw(tmp_path / name, nn.Linear(1, 1))
    with pytest.raises(ConfigTypeError, match="should be a module or an optimizer, not a dict"):
        saver.read_raw(tmp_path / "file", {})  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="Did you mean 'file'"):
        saver.read_raw(tmp_path / "fil", nn.Linear(1, 1))
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="does not fit"):
        saver.read_raw(tmp_path / "other.pt", nn.Linear(1, 1))


# -- removing and linking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_remove_deletes_any_kind(tmp_path: Path, format: str) -> None:
    save(tmp_path / "saved", {"step": 1}, format=format)
    saver.remove(tmp_path / "saved")
    saver.remove(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_link_follows_the_newest(tmp_path: Path, format: str) -> None:
    for step in (1, 2):
        save(tmp_path / f"{step}", {"step": step}, format=format)
        saver.link(tmp_path / f"{step}", tmp_path / "last")
        assert saver.read(tmp_path / "last") == {"step": step}
    assert (tmp_path / "last").readlink() == Path("2")
    saver.remove(tmp_path / "last")
    assert saver.read(tmp_path / "2") == {"step": 2}


def test_saving_over_a_link_replaces_the_link_only(tmp_path: Path) -> None:
    save(tmp_path / "1", {"step": 1}, format="directory")
    saver.link(tmp_path / "1", tmp_path / "last")
    save(tmp_path / "last", {"step": 2}, format="directory")
    assert saver.read(tmp_path / "1") == {"step": 1}
    assert saver.read(tmp_path / "last") == {"step": 2}


def test_a_save_at_a_url_never_deletes_what_is_no_checkpoint():
    storage = open_storage("memory://somebodys-data")
    storage.write("images/1.png", b"picture")
    with pytest.raises(ConfigError, match=r"it holds images/1\.png"):
        saver.write("memory://somebodys-data/", {"a": 1}, strategy=SingleDeviceStrategy("cpu"), format="directory")
    assert storage.read("images/1.png") == b"picture"
