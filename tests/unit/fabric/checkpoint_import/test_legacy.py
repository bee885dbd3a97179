"""Files and folders of others: kinds told by content, golden files of Lightning 2.6.6 read back, damage refused by name."""

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leyden.core.errors import CorruptDataError, NotFoundError, UnsupportedError
from leyden.fabric.checkpoint import legacy
from leyden.fabric.checkpoint.dcp import DcpFolder
from leyden.fabric.checkpoint.legacy import Kind, kind_of
from leyden.fabric.checkpoint.opaque import Opaque
from leyden.fabric.checkpoint.saved import SavedModule, SavedOptimizer
from tests.support.hostile_pickles import nothing_runs

GOLDEN = Path(__file__).parents[3] / "golden" / "lightning_2_6"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
FOLDERS = ["dcp", "fsdp", "model_parallel", "trainer_sharded"]


def assert_expected(name: str, state: dict[str, torch.Tensor]) -> None:
    found = {key: [list(tensor.shape), float(tensor.double().sum())] for key, tensor in state.items()}
    assert found == EXPECTED[name]


@pytest.fixture
def copy(tmp_path: Path) -> Any:
    def make(name: str) -> Path:
        target = tmp_path / name
        (shutil.copytree if (GOLDEN / name).is_dir() else shutil.copy)(GOLDEN / name, target)
        return target

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("trainer.ckpt", Kind.LIGHTNING_TRAINER),
        ("fabric.ckpt", Kind.TORCH),
        ("dcp", Kind.DCP),
        ("fsdp", Kind.LIGHTNING_FOLDER),
        ("model_parallel", Kind.LIGHTNING_FOLDER),
        ("trainer_sharded", Kind.LIGHTNING_FOLDER),
    ],
)
def test_the_kind_is_told_by_content_not_by_name(copy: Any, name: str, kind: Kind) -> None:
    path = copy(name)
    renamed = path.rename(path.with_name("x.safetensors"))
    assert kind_of(renamed) is kind
    assert not kind.is_ours


@pytest.mark.filterwarnings("ignore:.*of classes that are not read")
def test_a_trainer_file_comes_back_whole() -> None:
    with nothing_runs():
        checkpoint = legacy.read(GOLDEN / "trainer.ckpt")
    assert_expected("trainer", checkpoint["state_dict"])
    assert checkpoint["pytorch-lightning_version"] == "2.6.6"
    assert checkpoint["global_step"] == 4
    assert checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]["completed"] == 2
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 2
    seen = checkpoint["callbacks"]["Counts"]
    assert seen["seen"]["a"] == 3
    assert seen["seen"]["never"] == 0
    assert seen["mean"].tolist() == [0.0, 1.0, 2.0]
    assert seen["best"] == 0.5
    assert seen["ids"] == {1, 2}


@pytest.mark.filterwarnings("ignore:.*of classes that are not read")
def test_hyper_parameters_keep_their_form_and_strange_classes_stay_opaque() -> None:
    hparams = legacy.read(GOLDEN / "trainer.ckpt")["hyper_parameters"]
    assert hparams["width"] == 6
    assert hparams["schedule"] == Namespace(lr=1e-2, inner=Namespace(steps=[1, 2]))
    assert hparams["paths"] == {"root": "/data/digits", "dtype": torch.bfloat16}
    assert hparams["extra"].depth == 2
    mixup = hparams["augment"]
    assert isinstance(mixup, Opaque)
    assert (mixup.name, mixup.state) == ("research_code.augment.Mixup", {"alpha": 0.2})


def test_opaque_values_are_listed_in_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"2 value\(s\).*research_code.augment.Mixup at \['hyper_parameters'\]\['augment'\].*ReLU"):
        legacy.read(GOLDEN / "trainer.ckpt")


def test_a_trainer_file_continues_in_plain_torch() -> None:
    with pytest.warns(UserWarning, match="not read"):
        checkpoint = legacy.read(GOLDEN / "trainer.ckpt")
    body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    body.load_state_dict({name.removeprefix("body."): tensor for name, tensor in checkpoint["state_dict"].items()})
    optimizer = torch.optim.AdamW(body.parameters())
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    body(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert optimizer.state[body[0].weight]["step"] == 5


def test_a_fabric_file_comes_back_whole() -> None:
    checkpoint = legacy.read(GOLDEN / "fabric.ckpt")
    assert_expected("fabric", checkpoint["model"])
    assert checkpoint["step"] == 2
    assert checkpoint["hparams"].lr == 0.1
    torch.optim.Adam(nn.Linear(4, 3).parameters()).load_state_dict(checkpoint["optimizer"])


@pytest.mark.filterwarnings("ignore:.*of classes that are not read")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_sharded_folder_comes_back_whole(name: str) -> None:
    with nothing_runs():
        checkpoint = legacy.read(GOLDEN / name)
    is_trainer = name == "trainer_sharded"
    assert_expected(name, checkpoint["state_dict" if is_trainer else "model"])
    optimizer = checkpoint["optimizer_states"][0] if is_trainer else checkpoint["optimizer"]
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    restored = torch.optim.AdamW(model.parameters())
    restored.load_state_dict(optimizer)
    assert restored.param_groups[0]["lr"] == 0.1
    assert restored.state[model[2].bias]["step"] == 2
    if name in ("fsdp", "model_parallel"):
        assert (checkpoint["step"], checkpoint["hparams"].lr) == (2, 0.1)
    if is_trainer:
        assert checkpoint["hyper_parameters"] == {"width": 7}


@pytest.mark.filterwarnings("ignore:torch.distributed is unavailable or uninitialized")
def test_the_folders_state_equals_what_torch_itself_reads() -> None:
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    theirs = _load_state_dict_from_keys(checkpoint_id=GOLDEN / "dcp")  # runs pickles: fine for our own file
    ours = legacy.read(GOLDEN / "dcp")
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor)
    for number, member in enumerate(theirs["optimizer"]["param_groups"][0]["params"]):
        for slot, tensor in theirs["optimizer"]["state"][member].items():
            assert torch.equal(ours["optimizer"]["state"][number][slot], tensor)


@pytest.mark.filterwarnings("ignore:.*of classes that are not read")
def test_an_opened_folder_leaves_its_tensors_in_their_files() -> None:
    saved = legacy.open_foreign(GOLDEN / "model_parallel")
    module, optimizer = saved.tree["model"], saved.tree["optimizer"]
    assert isinstance(module, SavedModule)
    assert isinstance(optimizer, SavedOptimizer)
    assert optimizer.members == ["0.weight", "0.bias", "2.weight", "2.bias"]
    whole = module.load()["0.weight"]
    box = torch.empty(3, 2)
    module.values["0.weight"].read_into(box, (2, 1))  # lies over the seam between both ranks' parts
    assert torch.equal(box, whole[2:5, 1:3])


def test_safetensors_come_back_from_a_file_a_folder_and_an_index(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.zeros(())}
    save_file({"a": tensors["a"]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": tensors["b"], "c": tensors["c"]}, tmp_path / "model-00002-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert kind_of(tmp_path) is Kind.HF
    assert kind_of(index) is Kind.HF
    assert kind_of(tmp_path / names["a"]) is Kind.SAFETENSORS
    for path, keys in ((tmp_path, "abc"), (index, "abc"), (tmp_path / names["b"], "bc")):
        found = legacy.read(path)
        assert sorted(found) == list(keys)
        for key in keys:
            assert found[key].dtype == tensors[key].dtype
            assert torch.equal(found[key], tensors[key])


def test_an_index_that_names_a_missing_file_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(CorruptDataError, match=r"missing: gone\.safetensors"):
        legacy.read(index)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", 3])
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, name: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CorruptDataError, match="beside it"):
        legacy.read(index)


def test_nothing_there_names_what_is(tmp_path: Path) -> None:
    (tmp_path / "epoch=9.ckpt").touch()
    with pytest.raises(NotFoundError, match=r"holds 'epoch=9.ckpt'. Did you mean 'epoch=9.ckpt'"):
        legacy.read(tmp_path / "epoch=8.ckpt")
    with pytest.raises(NotFoundError, match="is no checkpoint"):
        legacy.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 64, b"ELF" * 50])
def test_a_file_of_another_sort_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"x\.ckpt"):
        legacy.read(path)


def test_a_file_that_holds_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "x.pt")
    with pytest.raises(CorruptDataError, match="holds a Tensor, not a dictionary"):
        legacy.read(tmp_path / "x.pt")


def test_an_unfinished_save_of_ours_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(NotFoundError, match="not finished"):
        kind_of(tmp_path)


def test_a_deepspeed_folder_points_to_its_own_way(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    torch.save({}, tmp_path / "checkpoint" / "mp_rank_00_model_states.pt")
    assert kind_of(tmp_path) is Kind.DEEPSPEED
    with pytest.raises(UnsupportedError, match="leyden ckpt convert"):
        legacy.read(tmp_path)


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp"])
def test_a_missing_or_truncated_part_is_refused_by_name(copy: Any, name: str) -> None:
    folder = copy("dcp")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(CorruptDataError, match=f"{name} has .* bytes but should have"):
        DcpFolder(folder)
    (folder / name).unlink()
    with pytest.raises(CorruptDataError, match=f"{name} is missing"):
        DcpFolder(folder)


def test_a_flipped_byte_is_found_by_verifying(copy: Any) -> None:
    folder = copy("dcp")
    file = folder / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    at = data.index(DcpFolder(folder).tree()["model"]["0.weight"].load()[0].numpy().tobytes())
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"'model\.0\.weight' does not have the checksum"):
        DcpFolder(folder).verify("model.0.weight")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"__0_0.distcp", b"../0_0.distc", "not beside it"),
        (b"__0_0.distcp", b"/etc/passwd\x00", "not beside it"),
        (b"storage_data", b"storage_dat\x00", "no metadata"),
        (b"relative_path", b"relative_pat\x00", "not beside it"),
    ],
)
def test_metadata_that_points_elsewhere_or_nowhere_is_refused(copy: Any, old: bytes, new: bytes, message: str) -> None:
    folder = copy("dcp")
    file = folder / ".metadata"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(CorruptDataError, match=message):
        DcpFolder(folder)


def test_a_folder_without_metadata_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no '\.metadata'"):
        DcpFolder(tmp_path)
