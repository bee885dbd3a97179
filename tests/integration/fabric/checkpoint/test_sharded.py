"""Sharded checkpoints on real gloo ranks: saved under one mesh, loaded under another, into one process, and back.

Long because all journeys share one network and what fills and compares it.
"""

import os
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from leyden.core.errors import ConfigError, CorruptDataError, StorageError
from leyden.fabric import Fabric, rng
from leyden.fabric.checkpoint import layout, saver
from leyden.fabric.checkpoint.folder import CheckpointFolder
from tests.support.ranks import run_ranks
from tests.support.sharded_ranks import ShardedRanks

TORCHRUN = {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}


def launched(strategy: Any) -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy=strategy)
    fabric.launch()
    return fabric


class Net(nn.Module):
    """Uneven and tiny parameters, a tie, a buffer, a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.scale = nn.Parameter(torch.ones(1))  # of two ranks, one has nothing
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        x = self.embed(tokens)
        for layer in self.layers:
            x = torch.tanh(layer(x)) * self.scale
        return self.head(self.frozen(x))


def build(seed: int) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = Net()
    decay = [parameter for parameter in net.parameters() if parameter.ndim > 1 and parameter.requires_grad]
    rest = [parameter for parameter in net.parameters() if parameter.ndim == 1 and parameter.requires_grad]
    return net, torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-2)


def tokens(step: int) -> torch.Tensor:
    return torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(step))


def train(fabric: Fabric, state: dict[str, Any], steps: int) -> None:
    for _ in range(steps):
        state["optimizer"].zero_grad()
        fabric.backward(state["model"](tokens(state["step"])).square().mean())
        state["optimizer"].step()
        state["step"] += 1


def setup(fabric: Fabric, seed: int) -> dict[str, Any]:
    model, optimizer = fabric.setup(*build(seed))
    return {"model": model, "optimizer": optimizer, "step": 0}


def whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def contents(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return model and optimizer whole and by name, the same for every strategy and world size."""
    found = {name: whole(value).clone() for name, value in state["model"].state_dict().items()}
    names = {id(parameter): name for name, parameter in state["model"].module.named_parameters()}
    optimizer = state["optimizer"].optimizer
    for parameter, values in optimizer.state.items():
        found |= {f"{names[id(parameter)]}/{name}": whole(value).clone() for name, value in values.items()}
    for group in optimizer.param_groups:
        found |= {f"{names[id(parameter)]}/decay": torch.tensor(group["weight_decay"]) for parameter in group["params"]}
    return found


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def save_everywhere(folder: str, strategy: str) -> dict[str, torch.Tensor]:
    fabric = launched(strategy)
    state = setup(fabric, seed=1)
    train(fabric, state, 2)
    fabric.save(f"{folder}/auto", state)
    fabric.save(f"{folder}/file", state, format="file")
    wanted = contents(state)
    fabric.save(f"{folder}/async", state, blocking=False)
    train(fabric, state, 1)  # never reaches the file
    fabric.wait_for_saves()
    return wanted


def load_everywhere(folder: str, strategy: str) -> list[dict[str, torch.Tensor]]:
    fabric = launched(strategy)
    found = []
    for name in ("auto", "file", "async"):
        state = setup(fabric, seed=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # another world size: random generators start anew
            assert fabric.load(f"{folder}/{name}", state) == {}
        assert state["step"] == 2
        found.append(contents(state))
    return found


Contents = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """A folder that two fsdp ranks saved, and what they held."""
    folder = tmp_path_factory.mktemp("sharded")
    return folder, run_ranks(save_everywhere, 2, args=(str(folder), "fsdp"), env=TORCHRUN)[0]


@pytest.mark.parametrize(("loaded_as", "loaded_on"), [("fsdp", 2), ("auto", 1), ("ddp", 2), ("fsdp", 3)])
def test_what_two_shards_saved_loads_anyhow(sharded: tuple[Path, Contents], loaded_as: str, loaded_on: int) -> None:
    folder, wanted = sharded
    for found in run_ranks(load_everywhere, loaded_on, args=(str(folder), loaded_as), env=TORCHRUN):
        for each in found:
            assert_same(each, wanted)


@pytest.mark.parametrize(("saved_as", "saved_on"), [("auto", 1), ("ddp", 2)])
def test_what_replicas_saved_loads_into_shards(tmp_path: Path, saved_as: str, saved_on: int) -> None:
    wanted = run_ranks(save_everywhere, saved_on, args=(str(tmp_path), saved_as), env=TORCHRUN)
    assert (tmp_path / "auto").is_file()
    for found in run_ranks(load_everywhere, 2, args=(str(tmp_path), "fsdp"), env=TORCHRUN):
        for each in found:
            assert_same(each, wanted[0])


def test_without_a_state_everything_is_whole_and_plain(sharded: tuple[Path, Contents]) -> None:
    folder, wanted = sharded
    for name in ("auto", "async", "file"):
        saved = saver.read(folder / name)
        assert saved.keys() == {"model", "optimizer", "step"}
        assert saved["model"].keys() == {key for key in wanted if "/" not in key}
        for key, value in saved["model"].items():
            assert torch.equal(value, wanted[key]), key
        net, optimizer = build(seed=5)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])  # torch's own form: any loop can go on
        assert optimizer.param_groups[1]["weight_decay"] == 0.0
        assert torch.equal(optimizer.state[net.scale]["exp_avg"], wanted["scale/exp_avg"])


def test_the_files_are_plain_and_each_tensor_is_stored_once(sharded: tuple[Path, Contents]) -> None:
    folder = sharded[0] / "auto"
    index = layout.read_index(folder)
    assert index.aliases == {"model.head.weight": "model.embed.weight"}
    keys = [key for shard in (folder / "shards").iterdir() for key in load_file(shard)]
    assert sorted(keys) == sorted(chunk.key for tensor in index.tensors.values() for chunk in tensor.chunks)
    assert len(set(keys)) == len(keys)
    assert index.tensors["optimizer.state.layers.0.weight.exp_avg"].shape == (6, 6)
    assert torch.load(folder / "train.pt", weights_only=True)["optimizers"]["optimizer"]["param_groups"]["scale"]["weight_decay"] == 0.0
    meta = layout.read_meta(folder)
    assert (meta.layout, meta.strategy, meta.world_size, meta.mesh) == ("sharded", "fsdp", 2, {"axes": ["dp_shard"], "sizes": [2]})
    assert meta.files.keys() == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"meta.json"}


# -- any mesh, any placement -------------------------------------------------------------------------------------------


def any_mesh(seed: int, folder: str) -> int:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    draw, strategy = random.Random(seed), ShardedRanks()
    meshes = [init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2)), init_device_mesh("cpu", (4, 1))]
    shapes = [tuple(draw.randint(1, 9) for _ in range(draw.randint(1, 3))) for _ in range(6)]
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=generator) for shape in shapes]

    def placed(values: list[torch.Tensor]) -> nn.ParameterList:
        parameters = []
        for value in values:
            mesh = draw.choice(meshes)
            placements = [draw.choice([Replicate(), *(Shard(dim) for dim in range(value.ndim))]) for _ in range(mesh.ndim)]
            parameters.append(nn.Parameter(distribute_tensor(value, mesh, placements) if draw.random() < 0.9 else value.clone()))
        return nn.ParameterList(parameters)

    for number in range(6):
        path = f"{folder}/{number}"
        saver.write(path, {"model": placed(values)}, strategy=strategy, blocking=number % 2 == 0, format="file" if number == 4 else "auto")
        into = placed([torch.zeros_like(value) for value in values])
        saver.read(path, {"model": into}, strategy=strategy)
        for value, parameter in zip(values, into, strict=True):
            assert torch.equal(whole(parameter), value)
    return len(shapes)


@pytest.mark.parametrize("seed", range(2))
def test_any_mesh_and_placement_loads_into_any_other(tmp_path: Path, seed: int) -> None:
    run_ranks(any_mesh, 4, args=(seed, str(tmp_path)))
    model = saver.read(tmp_path / "0")["model"]
    assert torch.equal(model["0"], saver.read(tmp_path / "4")["model"]["0"])


# -- ranks of their own ------------------------------------------------------------------------------------------------


class Place:
    per_rank = True

    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def own_states(folder: str, strategy: str) -> list[float]:
    fabric = launched(strategy)
    fabric.seed_everything(7 + fabric.global_rank, verbose=False)
    state = {**setup(fabric, seed=1), "place": Place(fabric.global_rank)}
    torch.manual_seed(fabric.global_rank)
    fabric.save(f"{folder}/saved", state)
    drawn = float(torch.rand(()))
    other = {**setup(fabric, seed=1), "place": Place(-1)}
    fabric.load(f"{folder}/saved", other)
    assert other["place"].value == fabric.global_rank
    assert float(torch.rand(())) == drawn
    return [drawn]


def other_world(folder: str, strategy: str) -> tuple[float, int, list[str]]:
    fabric = launched(strategy)
    state = {**setup(fabric, seed=1), "place": Place(-1)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fabric.load(f"{folder}/saved", state)
    return float(torch.rand(())), state["place"].value, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_every_rank_gets_its_own_generators_and_places_back(tmp_path: Path, strategy: str) -> None:
    run_ranks(own_states, 2, args=(str(tmp_path), strategy), env=TORCHRUN)
    three = run_ranks(other_world, 3, args=(str(tmp_path), strategy), env=TORCHRUN)
    assert [rank[1] for rank in three] == [0, 1, -1]
    for number, (drawn, _, messages) in enumerate(three):
        torch.manual_seed(rng.fold(7, "elastic", 0, number))
        assert drawn == float(torch.rand(()))
        assert any("random generators start anew" in message for message in messages) == (number == 0)
        assert any(f"rank {number} finds no state there" in message for message in messages) == (number == 2)


# -- faults ------------------------------------------------------------------------------------------------------------


def one_rank_fails(folder: str, failing: int) -> list[str]:
    from leyden.core.failpoints import armed

    fabric = launched("fsdp")
    state = setup(fabric, seed=1)
    checkpoints = CheckpointFolder(fabric, folder)
    checkpoints.save(state, step=1, blocking=True)
    messages = []
    for blocking in (True, False):
        train(fabric, state, 1)
        with armed("checkpoint.in_file=enospc" if fabric.global_rank == failing else ""):
            try:
                checkpoints.save(state, step=2, blocking=blocking)
                fabric.wait_for_saves()
            except StorageError as error:
                messages.append(str(error))
    assert state["step"] == 2
    assert checkpoints.resume(state)
    assert state["step"] == 0
    checkpoints.save(state, step=3)
    fabric.wait_for_saves()
    return messages


@pytest.mark.parametrize("failing", [0, 1])
def test_a_full_disk_on_one_rank_is_an_error_on_all(tmp_path: Path, failing: int) -> None:
    messages = run_ranks(one_rank_fails, 2, args=(str(tmp_path), failing), env=TORCHRUN)
    assert [len(each) for each in messages] == [2, 2]
    assert all("No space left on device" in message for each in messages for message in each)
    assert all(f"rank {failing} failed to" in message for message in messages[1 - failing])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001", "step-00000003"]


def unequal_architecture(folder: str) -> list[str]:
    fabric = launched("fsdp")
    fabric.save(f"{folder}/saved", setup(fabric, seed=1))
    state = setup(fabric, seed=2)
    before = contents(state)
    other = fabric.setup_module(nn.Sequential(nn.Linear(3, 3)))
    messages = []
    for wrong in ({**state, "model": other}, {**state, "absent": 1}):
        try:
            fabric.load(f"{folder}/saved", wrong)
        except (ConfigError, KeyError) as error:
            messages.append(str(error))
    shard = Path(folder) / "saved" / "shards" / "shard-00001.safetensors"
    fabric.barrier()
    if fabric.global_rank == 0:
        shard.write_bytes(shard.read_bytes()[:-8])
    fabric.barrier()
    try:
        fabric.load(f"{folder}/saved", state)
    except CorruptDataError as error:
        messages.append(str(error))
    assert_same(contents(state), before)
    return messages


def test_a_failed_load_is_an_error_on_all_ranks_and_changes_nothing(tmp_path: Path) -> None:
    for messages in run_ranks(unequal_architecture, 2, args=(str(tmp_path),), env=TORCHRUN):
        assert len(messages) == 3
        assert "missing in the checkpoint: 0.weight, 0.bias" in messages[0]
        assert "does not hold 'absent'" in messages[1]
        assert "shard-00001.safetensors has" in messages[2]


# -- raw weights -------------------------------------------------------------------------------------------------------


def load_raw(folder: str, name: str) -> dict[str, torch.Tensor]:
    fabric = launched("fsdp")
    state = setup(fabric, seed=2)
    fabric.load_raw(f"{folder}/{name}", state["model"])
    return {key: whole(value) for key, value in state["model"].state_dict().items()}


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_raw_weights_are_cut_into_shards(tmp_path: Path, name: str) -> None:
    from safetensors.torch import save_file

    net, _ = build(seed=4)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    save_file({key: value.clone() for key, value in net.state_dict().items()}, tmp_path / "model.safetensors")
    for found in run_ranks(load_raw, 2, args=(str(tmp_path), name), env=TORCHRUN):
        assert_same(found, dict(net.state_dict()))


def strided(folder: str) -> dict[str, torch.Tensor]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    strategy = ShardedRanks()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp_shard", "tp"))

    def build() -> nn.Sequential:
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 6))
        parallelize_module(net, mesh["tp"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
        return fully_shard(net, mesh=mesh["dp_shard"])

    net = build()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    saver.write(f"{folder}/saved", {"model": net, "optimizer": optimizer}, strategy=strategy)
    other = build()
    moments = torch.optim.AdamW(other.parameters())
    saver.read(f"{folder}/saved", {"model": other, "optimizer": moments}, strategy=strategy)
    flat = fully_shard(nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 6)), mesh=init_device_mesh("cpu", (4,)))
    saver.read(f"{folder}/saved", {"model": flat}, strategy=strategy)
    for name, value in net.state_dict().items():
        assert torch.equal(whole(other.state_dict()[name]), whole(value))
        assert torch.equal(whole(flat.state_dict()[name]), whole(value))
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(whole(optimizer.state[mine]["exp_avg"]), whole(moments.state[theirs]["exp_avg"]))
    return {name: whole(value) for name, value in net.state_dict().items()}


def test_tensor_parallel_inside_fsdp_is_cut_and_joined_right(tmp_path: Path) -> None:
    wanted = run_ranks(strided, 4, args=(str(tmp_path),))[0]
    assert_same(saver.read(tmp_path / "saved")["model"], wanted)


# -- values that are sharded ---------------------------------------------------------------------------------------


def average_of(model: Any) -> dict[str, Any]:
    """Return what an average of weights keeps: a plain dictionary, sharded as the weights are."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class Averaged:
    """An object that keeps one."""

    def __init__(self, model: Any) -> None:
        self.shadow = average_of(model)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow = state["shadow"]


class OwnAverage(Averaged):
    """Of each rank its own."""

    per_rank = True


def with_averages(fabric: Fabric, seed: int) -> dict[str, Any]:
    state = setup(fabric, seed)
    average = average_of(state["model"])
    # Deeper down beside a live object, in a tuple, and under an object of its own.
    several = {"of": [average_of(state["model"])], "last": (average["embed.weight"],), "optimizer": state.pop("optimizer")}
    return state | {
        "average": average,
        "several": several,
        "object": Averaged(state["model"]),
        "own": OwnAverage(state["model"]),
        "decay": 0.9,
    }


def save_averages(folder: str, strategy: str) -> Contents:
    fabric = launched(strategy)
    state = with_averages(fabric, seed=1)
    for format in ("auto", "file"):
        fabric.save(f"{folder}/{format}", state, format=format)
    fabric.save(f"{folder}/async", state, blocking=False)
    fabric.wait_for_saves()
    return {name: whole(value) for name, value in state["average"].items()}


def load_averages(folder: str, strategy: str) -> list[Contents]:
    fabric = launched(strategy)
    found = []
    for name in ("auto", "file", "async"):
        state = with_averages(fabric, seed=2)
        live = state["model"].state_dict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # another world size: random generators start anew
            fabric.load(f"{folder}/{name}", state)
        averages = [state["average"], state["several"]["of"][0], state["object"].shadow]
        if fabric.world_size == 2:
            averages.append(state["own"].shadow)  # there is one of each rank that saved
        for average in averages:
            assert type(average["embed.weight"]) is type(live["embed.weight"])
            for key, value in average.items():
                assert getattr(value, "placements", None) == getattr(live[key], "placements", None), key
            found.append({key: whole(value) for key, value in average.items()})
        assert torch.equal(whole(state["several"]["last"][0]), found[-1]["embed.weight"])
        assert getattr(state["several"]["last"][0], "placements", None) == getattr(live["embed.weight"], "placements", None)
    return found


@pytest.mark.parametrize(("loaded_as", "loaded_on"), [("fsdp", 2), ("fsdp", 3), ("auto", 1)])
def test_a_dictionary_of_shards_comes_back_as_the_live_one_is_cut(averages: tuple[Path, Contents], loaded_as: str, loaded_on: int) -> None:
    folder, wanted = averages
    for found in run_ranks(load_averages, loaded_on, args=(str(folder), loaded_as), env=TORCHRUN):
        for each in found:
            assert_same(each, wanted)


@pytest.fixture(scope="module")
def averages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """A folder where two fsdp ranks saved averages of their weights, and these."""
    folder = tmp_path_factory.mktemp("averages")
    return folder, run_ranks(save_averages, 2, args=(str(folder), "fsdp"), env=TORCHRUN)[0]


# -- weights that a forward left whole -----------------------------------------------------------------------------


def save_after_a_forward(folder: str) -> Contents:
    fabric = launched("fsdp")
    state = setup(fabric, seed=1)
    train(fabric, state, 1)
    wanted = without_count(contents(state))
    state = {"optimizer": state["optimizer"], "model": state["model"]}
    assert state["model"](tokens(0)).requires_grad  # no backward will free the root
    fabric.save(f"{folder}/saved", state)
    train(fabric, {**state, "step": 1}, 1)
    before = state["model"](tokens(0))
    fabric.load(f"{folder}/saved", state)
    assert not torch.equal(state["model"](tokens(0)), before), "what was whole is gathered again"
    fabric.save(f"{folder}/again", state)
    assert_same(without_count(contents(state)), wanted)
    return wanted


def without_count(found: Contents) -> Contents:
    """Leave out the number of forwards, of which this counts more than were trained on."""
    return {name: value for name, value in found.items() if name != "seen"}


def test_what_a_forward_left_whole_is_saved_and_loaded_as_shards(tmp_path: Path) -> None:
    wanted = run_ranks(save_after_a_forward, 2, args=(str(tmp_path),), env=TORCHRUN)[0]
    for name, value in without_count(saver.read(tmp_path / "again")["model"]).items():
        assert torch.equal(value, wanted[name]), name
