"""`convert`, `consolidate`, `reshard`, `inspect`: the same tensors and values come out, whatever the way."""

import json
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from leyden.core.errors import (
    ConfigError,
    ConfigTypeError,
    ConflictError,
    CorruptDataError,
    MissingDependencyError,
    NotFoundError,
    UnsupportedError,
)
from leyden.fabric.checkpoint import convert as convert_module
from leyden.fabric.checkpoint import deepspeed, directory, legacy, single_file
from leyden.fabric.checkpoint.convert import consolidate, convert
from leyden.fabric.checkpoint.inspect import inspect
from leyden.fabric.checkpoint.legacy import Kind, kind_of
from leyden.fabric.checkpoint.reshard import _boxes, reshard

GOLDEN = Path(__file__).parents[3] / "golden" / "lightning_2_6"
NAMES = ["trainer.ckpt", "fabric.ckpt", "dcp", "fsdp", "model_parallel", "trainer_sharded"]
pytestmark = pytest.mark.filterwarnings("ignore:.*left out", "ignore:.*of classes that are not read")


def assert_same(found: Any, expected: Any, place: str = "") -> None:
    """Compare trees: tensors exactly, namespaces and subclasses of dictionaries as dictionaries."""
    if isinstance(expected, Namespace):
        expected = vars(expected)
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype, place
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert set(found) == {key for key, value in expected.items() if type(value).__name__ != "Opaque"}, place
        for key, value in found.items():
            assert_same(value, expected[key], f"{place}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), place
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{place}[{index}]")
    elif type(expected).__module__ == "numpy":
        assert found.tolist() == expected.tolist() if hasattr(found, "tolist") else found == expected, place
    else:
        assert found == expected, place


def content(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of any kind holds, through the readers of its kind."""
    kind = kind_of(path)
    if kind is Kind.LEYDEN_FILE:
        return {key: value for key, value in torch.load(path, weights_only=True).items() if key != "__leyden__"}
    if kind.is_ours:
        saved = directory.open_directory(path)
        try:
            return saved.load()
        finally:
            saved.close()
    return legacy.read(path)


@pytest.fixture
def state(tmp_path: Path) -> dict[str, Any]:
    """A state with tied weights, buffers, extra state, an optimizer and values, saved at `tmp_path/source`."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.norm = nn.BatchNorm1d(6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.norm(self.embed(tokens)))

    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.arange(8)).square().sum().backward()
    optimizer.step()
    whole = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "names": ["a", {"b": (1, 2)}],
        "table": torch.eye(2),
    }
    torch.save(whole, tmp_path / "source")
    return whole


@pytest.mark.parametrize("to", ["file", "directory", "dcp"])
@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_keeps_everything_in_every_format(tmp_path: Path, name: str, to: Any) -> None:
    target = convert(GOLDEN / name, tmp_path / "target", to, drop_opaque=True)
    assert_same(content(target), legacy.read(GOLDEN / name))


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_keeps_everything_through_reshard_and_consolidate(tmp_path: Path, name: str) -> None:
    plain = convert(GOLDEN / name, tmp_path / "plain", drop_opaque=True)
    sharded = reshard(plain, tmp_path / "sharded", ranks=3)
    assert kind_of(sharded) is Kind.LEYDEN_SHARDED
    assert_same(content(sharded), legacy.read(GOLDEN / name))
    single = consolidate(sharded)
    assert single == tmp_path / "sharded.consolidated"
    assert_same(content(single), legacy.read(GOLDEN / name))


@pytest.mark.parametrize("to", ["file", "directory", "dcp"])
def test_every_sort_of_value_survives(tmp_path: Path, state: dict[str, Any], to: Any) -> None:
    assert_same(content(convert(tmp_path / "source", tmp_path / "target", to)), state)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_resharding_keeps_every_value_and_ties(tmp_path: Path, state: dict[str, Any], ranks: int) -> None:
    target = reshard(tmp_path / "source", tmp_path / "target", ranks=ranks)
    found = content(target)
    assert_same(found, state)
    assert found["model"]["head.weight"] is found["model"]["embed.weight"]
    index = json.loads((target / "index.json").read_text())
    assert "model.head.weight" not in index["tensors"]
    assert index["aliases"] == {"model.head.weight": "model.embed.weight"}
    cut = [chunk["size"] for chunk in index["tensors"]["model.embed.weight"]["chunks"]]
    assert cut == [[len(rows), 6] for rows in torch.arange(11).chunk(ranks)]
    assert len(list((target / "shards").iterdir())) == ranks


def test_tied_weights_are_stored_once(tmp_path: Path, state: dict[str, Any]) -> None:
    full = convert(tmp_path / "source", tmp_path / "full", "directory")
    assert "head.weight" not in load_file(full / "model.safetensors")
    assert content(full)["model"].keys() == state["model"].keys()
    single = content(convert(full, tmp_path / "single"))
    assert single["model"]["head.weight"].data_ptr() == single["model"]["embed.weight"].data_ptr()


def test_hugging_face_gets_the_weights_alone_and_is_told_what_is_left_out(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="'model' alone is written.*left out: 'optimizer', 'step', 'names', 'table'"):
        folder = convert(tmp_path / "source", tmp_path / "hf", "hf")
    assert sorted(file.name for file in folder.iterdir()) == ["model.safetensors"]
    assert_same(legacy.read(folder), dict(state["model"]))
    file = convert(tmp_path / "source", tmp_path / "weights.safetensors", "hf")
    assert load_file(file).keys() == state["model"].keys() - {"head.weight"}


def test_large_weights_are_split_with_an_index(tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "_HF_FILE_BYTES", 100)
    folder = convert(tmp_path / "source", tmp_path / "hf", "hf")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in folder.glob("*.safetensors")}
    assert len(set(index["weight_map"].values())) > 1
    assert_same(legacy.read(folder), dict(state["model"]))
    back = content(convert(folder, tmp_path / "back"))
    assert_same(back["model"], dict(state["model"]))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_itself_reads_a_dcp_folder_of_ours(tmp_path: Path, state: dict[str, Any]) -> None:
    import torch.distributed.checkpoint as dcp

    folder = convert(tmp_path / "source", tmp_path / "dcp", "dcp")
    weights = {"model": {name: torch.zeros_like(tensor) for name, tensor in state["model"].items()}}
    dcp.load(weights, checkpoint_id=folder, no_dist=True)
    assert_same(weights["model"], dict(state["model"]))


def test_ranks_and_precision_of_our_own_checkpoints_survive(tmp_path: Path, state: dict[str, Any]) -> None:
    source = convert(tmp_path / "source", tmp_path / "first", "file")
    whole = torch.load(source, weights_only=True)
    whole["__leyden__"] |= {
        "ranks": [{"rng": {"torch": torch.arange(3)}, "objects": {"loader": {"epoch": 1}}}],
        "precision": {"scale": 2.0},
    }
    torch.save(whole, tmp_path / "own")
    for make in (
        lambda: convert(tmp_path / "own", tmp_path / "full", "directory"),
        lambda: reshard(tmp_path / "own", tmp_path / "cut", ranks=2),
    ):
        saved = directory.open_directory(make())
        assert saved.precision == {"scale": 2.0}
        rank = saved.rank_state(0)
        assert rank is not None
        assert rank["objects"] == {"loader": {"epoch": 1}}
        saved.close()
    back = single_file.open_file(consolidate(tmp_path / "cut"))
    assert back.rank_state(0)["objects"] == {"loader": {"epoch": 1}}  # type: ignore[index]
    assert back.rank_state(1) is None


def test_what_a_dcp_folder_cannot_hold_is_said(tmp_path: Path, state: dict[str, Any]) -> None:
    whole = torch.load(convert(tmp_path / "source", tmp_path / "first"), weights_only=True)
    whole["__leyden__"] |= {"precision": {"scale": 2.0}}
    torch.save(whole, tmp_path / "own")
    with pytest.warns(UserWarning, match="loss scale; they are left out"):
        convert(tmp_path / "own", tmp_path / "dcp", "dcp")


def test_opaque_values_are_listed_and_refused_without_the_flag(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"2 value\(s\).*research_code.augment.Mixup at \['hyper_parameters'\]\['augment'\].*drop_opaque=True"
    ):
        convert(GOLDEN / "trainer.ckpt", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match="left out of .*Mixup"):
        convert(GOLDEN / "trainer.ckpt", tmp_path / "target", drop_opaque=True)


def test_nothing_is_ever_overwritten(tmp_path: Path, state: dict[str, Any]) -> None:
    (tmp_path / "target").write_text("mine")
    for call in (
        lambda: convert(tmp_path / "source", tmp_path / "target"),
        lambda: reshard(tmp_path / "source", tmp_path / "target", ranks=2),
        lambda: consolidate(GOLDEN / "dcp", tmp_path / "target"),
    ):
        with pytest.raises(ConflictError, match="exists, and nothing is overwritten"):
            call()
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda tmp: convert(tmp / "source", tmp / "x", "zip"), ConfigError, "there are 'file', 'directory', 'hf', 'dcp'"),
        (lambda tmp: convert(tmp / "absent", tmp / "x"), NotFoundError, "there is no checkpoint"),
        (lambda tmp: consolidate(tmp / "source"), ConfigError, "one file already"),
        (lambda tmp: reshard(tmp / "source", tmp / "x", ranks=0), ConfigError, "at least 1"),
        (lambda tmp: reshard(tmp / "source", tmp / "x", ranks=True), ConfigTypeError, "int"),
    ],
)
def test_mistakes_are_refused_with_the_way_out(
    tmp_path: Path, state: dict[str, Any], call: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "bad": {(1, 2): 3}}, tmp_path / "source")
    for to in ("file", "directory", "dcp"):
        with pytest.raises(ConfigError, match="key"):
            convert(tmp_path / "source", tmp_path / "target", to)  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_weights_alone_need_one_module(tmp_path: Path) -> None:
    torch.save({"generator": {"a": torch.ones(2)}, "critic": {"b": torch.ones(2)}}, tmp_path / "gan")
    with pytest.raises(UnsupportedError, match="generator, critic"):
        convert(tmp_path / "gan", tmp_path / "x", "hf")
    torch.save({"step": 1}, tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no module"):
        convert(tmp_path / "none", tmp_path / "x", "hf")


def test_an_optimizer_whose_names_are_in_doubt_is_not_resharded(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": [net[1].weight, net[0].weight]}, {"params": [net[0].bias, net[1].bias], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.2)
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "source")
    with pytest.raises(ConfigError, match=r"numbers its 4 parameters.*named_parameters"):
        reshard(tmp_path / "source", tmp_path / "x", ranks=2)


def test_an_optimizer_that_stores_names_is_resharded_by_them(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    named = dict(net.named_parameters())
    groups = [
        {"params": [(name, named[name]) for name in ("1.weight", "0.weight")]},
        {"params": [(name, named[name]) for name in ("0.bias", "1.bias")]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.9)
    net(torch.tensor([[1.0, 2.0]])).square().sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "source")
    found = content(reshard(tmp_path / "source", tmp_path / "x", ranks=2))["optimizer"]
    assert torch.equal(found["state"][0]["momentum_buffer"], optimizer.state[named["1.weight"]]["momentum_buffer"])
    assert [group["params"] for group in found["param_groups"]] == [[0, 1], [2, 3]]


@given(st.lists(st.integers(0, 9), max_size=3).map(tuple), st.integers(1, 12))
def test_law_boxes_cover_a_tensor_once(shape: tuple[int, ...], ranks: int) -> None:
    seen = torch.zeros(shape, dtype=torch.int)
    for rank, offset, size in _boxes(shape, ranks):
        assert 0 <= rank < ranks
        seen[tuple(slice(at, at + length) for at, length in zip(offset, size, strict=True))] += 1
    assert bool((seen == 1).all())


def kinds(folder: Path) -> Iterator[tuple[Path, str, str]]:
    source = folder / "source"
    yield source, "torch", "checksums"
    yield convert(source, folder / "file"), "leyden-file", "checksums"
    yield convert(source, folder / "full", "directory"), "leyden-full", "checksums"
    yield reshard(source, folder / "cut", ranks=2), "leyden-sharded", "checksums"
    yield convert(source, folder / "hf", "hf"), "hf", "sizes"
    yield convert(source, folder / "dcp", "dcp"), "lightning-folder", "checksums"


def test_inspect_describes_every_kind_and_is_json(tmp_path: Path, state: dict[str, Any]) -> None:
    for path, kind, verified in kinds(tmp_path):
        report = json.loads(json.dumps(inspect(path, verify=True)))
        assert report["kind"] == kind
        assert report["verified"] == verified
        assert report["bytes"] == sum(report["files"].values())
        module = report["entries"]["model"]
        assert module["kind"] == "module"
        assert module["dtypes"] == ["float32", "int64"]
        assert module["tensors"] in (6, 7)  # tied weights once in safetensors without us
        if kind != "hf":
            assert report["step"] == 7
            assert report["entries"]["optimizer"]["kind"] == "optimizer"
            assert report["entries"]["step"] == {"kind": "value", "type": "int", "value": 7}


def test_inspect_lists_opaque_values_without_importing_them() -> None:
    report = inspect(GOLDEN / "trainer.ckpt")
    assert report["versions"] == {"lightning": "2.6.6"}
    assert {"place": "['hyper_parameters']['augment']", "name": "research_code.augment.Mixup"} in report["opaque"]


def test_verify_finds_a_flipped_byte_in_every_kind_with_checksums(tmp_path: Path, state: dict[str, Any]) -> None:
    needle = state["model"]["embed.weight"][0].numpy().tobytes()
    for path, _, verified in kinds(tmp_path):
        if verified != "checksums":
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        file = next(file for file in files if needle in file.read_bytes())
        data = bytearray(file.read_bytes())
        data[data.index(needle)] ^= 1
        file.write_bytes(data)
        inspect(path)  # sizes agree
        with pytest.raises(CorruptDataError, match="checksum"):
            inspect(path, verify=True)
        data[data.index(needle[1:]) - 1] ^= 1
        file.write_bytes(data)


def test_deepspeed_that_is_not_installed_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zero" / "tag").mkdir(parents=True)
    torch.save({}, tmp_path / "zero" / "tag" / "mp_rank_00_model_states.pt")
    torch.save({}, tmp_path / "zero" / "tag" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    monkeypatch.setattr(deepspeed, "installed", lambda name: False)
    assert inspect(tmp_path / "zero")["tags"] == ["tag"]
    with pytest.raises(MissingDependencyError, match="pip install"):
        convert(tmp_path / "zero", tmp_path / "x")
    shutil.rmtree(tmp_path / "zero")
    assert list(tmp_path.iterdir()) == []


def test_a_deepspeed_file_without_weights_is_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "zero" / "tag").mkdir(parents=True)
    torch.save({}, tmp_path / "zero" / "tag" / "mp_rank_00_model_states.pt")
    with pytest.raises(CorruptDataError, match="no key 'module'"):
        convert(tmp_path / "zero", tmp_path / "x")
