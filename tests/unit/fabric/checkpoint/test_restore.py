"""Round trips on one device: every format, what is returned, what is refused, and the random generators.

Long because each format goes through the same journeys.
"""

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import CheckpointKeyError, ConfigError, ConfigTypeError, CorruptDataError, NotFoundError, StorageError
from leyden.fabric.checkpoint import saver
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.training_state import train, training_state

FORMATS = ["file", "directory"]
strategy = SingleDeviceStrategy("cpu")


def save(path: Path, state: dict[str, Any], **options: Any) -> None:
    saver.write(path, state, strategy=strategy, **options)


def load(path: Path, state: Any, **options: Any) -> dict[str, Any]:
    return saver.read(path, state, strategy=strategy, **options)


class Cursor:
    """A loader's place, as `FabricDataLoader` keeps it."""

    per_rank = True

    def __init__(self) -> None:
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_load_leaves_every_object_as_it_was(tmp_path: Path, format: str) -> None:
    state = training_state()
    train(state)
    save(tmp_path / "saved", state, format=format)
    other = training_state(seed=1)
    other["optimizer"] = torch.optim.AdamW(other["model"][0].parameters())  # fewer parameters than were saved
    before = {key: str(value.state_dict() if hasattr(value, "state_dict") else value) for key, value in other.items()}
    generator = torch.get_rng_state()
    with pytest.raises(ConfigError, match="groups of"):
        load(tmp_path / "saved", other)
    assert {key: str(value.state_dict() if hasattr(value, "state_dict") else value) for key, value in other.items()} == before
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_object_whose_loading_raises_is_put_back(tmp_path: Path) -> None:
    class Refusing(Cursor):
        per_rank = False

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.position = -1
            if state["position"] == 5:
                raise ValueError("not that one")
            super().load_state_dict(state)

    first, second, model = Refusing(), Refusing(), nn.Linear(1, 1)
    first.position, second.position = 4, 5
    save(tmp_path / "saved", {"first": first, "second": second, "model": model})
    first.position, second.position = 1, 2
    weight = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    with pytest.raises(ValueError, match="not that one"):
        load(tmp_path / "saved", {"first": first, "second": second, "model": model})
    assert (first.position, second.position) == (1, 2)
    assert torch.equal(model.weight, weight + 1)


@pytest.mark.parametrize("format", FORMATS)
def test_another_architecture_is_described(tmp_path: Path, format: str) -> None:
    save(tmp_path / "saved", {"model": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))}, format=format)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "saved", {"model": nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))})
    message = str(caught.value)
    assert "missing in the checkpoint: 2.weight, 2.bias" in message
    assert "unexpected in the checkpoint: 1.weight, 1.bias" in message
    assert "0.weight: the module has shape (4, 2), the checkpoint (3, 2)" in message
    assert "nothing was changed" in message


def test_a_prefix_is_recognised(tmp_path: Path) -> None:
    inner = nn.Linear(2, 2)
    outer = nn.ModuleDict({"module": inner})
    save(tmp_path / "wrapped", {"model": outer})
    save(tmp_path / "plain", {"model": inner})
    with pytest.raises(ConfigError, match=r"checkpoint's names begin with 'module\.'"):
        load(tmp_path / "wrapped", {"model": inner})
    with pytest.raises(ConfigError, match=r"module's names begin with 'module\.'"):
        load(tmp_path / "plain", {"model": outer})


def nested(*names: str) -> nn.Module:
    """Return a layer inside modules of these names."""
    module: nn.Module = nn.Linear(2, 2)
    for name in reversed(names):
        module = nn.ModuleDict({name: module})
    return module


@pytest.mark.parametrize(
    ("saved", "wanted", "hint"),
    [
        (["model", "net"], ["net"], r"checkpoint's names begin with 'model\.': load into the wrapper"),
        (["model", "net"], [], r"checkpoint's names begin with 'model\.net\.': load into the wrapper"),
        (["encoder"], [], r"checkpoint's names begin with 'encoder\.': load into the wrapper"),
        (
            [],
            ["model", "net"],
            r"module's names begin with 'model\.net\.': pass what it wraps, such as .*'model': model\.model\.net}",
        ),
        (["net"], ["model", "net"], r"module's names begin with 'model\.': pass what it wraps"),
        (["model", "net"], ["backbone"], r"checkpoint's names begin with 'model\.net\.' where the module's begin with 'backbone\.'"),
    ],
)
def test_a_prefix_of_any_number_of_levels_is_recognised(tmp_path: Path, saved: list[str], wanted: list[str], hint: str) -> None:
    save(tmp_path / "saved", {"model": nested(*saved)})
    with pytest.raises(ConfigError, match=hint):
        load(tmp_path / "saved", {"model": nested(*wanted)})


def test_compiled_modules_load_and_save_under_plain_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    marked = nn.Module()
    marked.add_module("_orig_mod", model)
    save(tmp_path / "saved", {"model": marked})
    assert saver.read(tmp_path / "saved")["model"].keys() == model.state_dict().keys()
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    load(tmp_path / "saved", {"model": other})
    assert torch.equal(other[1].weight, model[1].weight)
    load(tmp_path / "saved", {"model": marked})


@pytest.mark.parametrize("format", FORMATS)
def test_not_strict_loads_the_intersection_and_never_a_wrong_shape(tmp_path: Path, format: str) -> None:
    saved = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    save(tmp_path / "saved", {"model": saved, "step": 3}, format=format)
    other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 4))
    before = other[1].weight.detach().clone()
    state = {"model": other, "absent": 1}
    rest = load(tmp_path / "saved", state, strict=False)
    assert torch.equal(other[0].weight, saved[0].weight)
    assert torch.equal(other[1].weight, before)
    assert state["absent"] == 1
    assert rest == {"step": 3}


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_key_is_named_with_the_closest(tmp_path: Path, format: str) -> None:
    save(tmp_path / "saved", {"model": nn.Linear(1, 1), "step": 3}, format=format)
    with pytest.raises(CheckpointKeyError, match=r"does not hold 'models'.*Did you mean 'model'"):
        load(tmp_path / "saved", {"models": nn.Linear(1, 1)})
    with pytest.raises(CheckpointKeyError, match=r"holds no state of state\['loader'\]"):
        load(tmp_path / "saved", {"loader": Cursor()})


def test_swapped_keys_are_refused(tmp_path: Path) -> None:
    state = training_state()
    train(state)
    save(tmp_path / "saved", state, format="directory")
    with pytest.raises(ConfigError, match=r"is an optimizer \(AdamW\), but .* holds a module there"):
        load(tmp_path / "saved", {"model": state["optimizer"]})
    with pytest.raises(ConfigError, match="holds a int there"):
        load(tmp_path / "saved", {"step": state["model"]})


def test_a_module_with_code_of_its_own_uses_it(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": self.calls}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.calls = state["calls"]

    for format in FORMATS:
        model, other = Counting(2, 2), Counting(2, 2)
        model.calls, other.calls = 5, 0
        save(tmp_path / format, {"model": model}, format=format)
        load(tmp_path / format, {"model": other})
        assert other.calls == 5
        assert torch.equal(other.weight, model.weight)
        bad = Counting(3, 2)
        bad.calls, before = 1, bad.weight.detach().clone()
        with pytest.raises(ConfigError, match="size mismatch"):
            load(tmp_path / format, {"model": bad})
        assert bad.calls == 1
        assert torch.equal(bad.weight, before)


def test_loading_converts_to_the_modules_dtype(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    save(tmp_path / "saved", {"model": model}, format="directory")
    other = nn.Linear(2, 2, dtype=torch.bfloat16)
    load(tmp_path / "saved", {"model": other})
    assert torch.equal(other.weight, model.weight.bfloat16())


def test_a_module_alone_is_loaded_raw(tmp_path: Path) -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert load(tmp_path / "model.pt", other) == {}
    assert torch.equal(other.weight, model.weight)


def test_a_state_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigTypeError, match="should be a dictionary or None, not a list"):
        load(tmp_path / "saved", [])


# -- random generators and loaders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_random_generators_come_back_with_an_optimizer_or_loader(tmp_path: Path, format: str) -> None:
    state = training_state()
    save(tmp_path / "saved", state | {"loader": Cursor()}, format=format)
    wanted = (torch.rand(2).tolist(), random.random())
    for objects in ({"optimizer": state["optimizer"]}, {"loader": Cursor()}):
        load(tmp_path / "saved", objects)
        assert (torch.rand(2).tolist(), random.random()) == wanted
    load(tmp_path / "saved", {"model": state["model"]})
    assert (torch.rand(2).tolist(), random.random()) != wanted
    load(tmp_path / "saved", {"model": state["model"]}, restore_rng=True)
    assert (torch.rand(2).tolist(), random.random()) == wanted
    load(tmp_path / "saved", {"optimizer": state["optimizer"]}, restore_rng=False)
    assert (torch.rand(2).tolist(), random.random()) != wanted


@pytest.mark.parametrize("format", FORMATS)
def test_a_loader_finds_its_place(tmp_path: Path, format: str) -> None:
    loader, other = Cursor(), Cursor()
    loader.position = 7
    save(tmp_path / "saved", {"loader": loader, "step": 1}, format=format)
    assert load(tmp_path / "saved", {"loader": other}) == {"step": 1}
    assert other.position == 7


# -- damage ------------------------------------------------------------------------------------------------------------


def damaged(path: Path, state: Any, message: str) -> None:
    before = state["model"].weight.detach().clone()
    with pytest.raises(CorruptDataError, match=message):
        load(path, state)
    assert torch.equal(state["model"].weight, before)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_noticed(tmp_path: Path, format: str, share: float) -> None:
    model = nn.Linear(30, 30)
    save(tmp_path / "saved", {"model": model}, format=format)
    path = tmp_path / "saved" if format == "file" else tmp_path / "saved" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    if format == "file" and share == 0:
        with pytest.raises(StorageError):
            load(tmp_path / "saved", {"model": model})
        return
    damaged(tmp_path / "saved", {"model": model}, "truncated|bytes but was written with")


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    save(tmp_path / "saved", {"model": model}, format="directory")
    (tmp_path / "saved" / "train.pt").unlink()
    damaged(tmp_path / "saved", {"model": model}, "train.pt is missing")


@pytest.mark.parametrize("format", FORMATS)
def test_a_flipped_byte_is_found_by_checksum(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(300, 30)
    save(tmp_path / "saved", {"model": model}, format=format)
    path = tmp_path / "saved" if format == "file" else tmp_path / "saved" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setenv("LEYDEN_FABRIC_VERIFY", "1")
    damaged(tmp_path / "saved", {"model": model}, "checksum")


def test_a_pickle_with_code_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "saved", {"step": 1})
    with zipfile.ZipFile(tmp_path / "saved") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    records[name] = b"cposix\nsystem\nX\x0a\x00\x00\x00__leyden__\x85R."
    with zipfile.ZipFile(tmp_path / "saved", "w") as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    with pytest.raises(CorruptDataError, match=r"posix.system|Weights only load failed"):
        saver.read(tmp_path / "saved")


def test_weights_only_false_warns(tmp_path: Path) -> None:
    save(tmp_path / "saved", {"step": 1})
    with pytest.warns(UserWarning, match="may run any code"):
        assert saver.read(tmp_path / "saved", weights_only=False) == {"step": 1}


def test_a_newer_format_is_refused_with_the_version_needed(tmp_path: Path) -> None:
    save(tmp_path / "saved", {"step": 1}, format="directory")
    path = tmp_path / "saved" / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"version": 2, "leyden": "9.1.0"}))
    with pytest.raises(StorageError, match=r"format version 2; this Leyden reads 1\. Use Leyden 9\.1\.0 or newer"):
        saver.read(tmp_path / "saved")


def test_nothing_there_says_what_is(tmp_path: Path) -> None:
    for step in (100, 200):
        save(tmp_path / f"step-{step:08d}", {"step": step})
    with pytest.raises(NotFoundError, match=r"Did you mean 'step-00000100'.*step-00000200"):
        saver.read(tmp_path / "step-0000100")
    with pytest.raises(NotFoundError, match="does not exist"):
        saver.read(tmp_path / "none" / "step")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="is empty"):
        saver.read(tmp_path / "empty")
