"""DeepSpeed on two real gloo ranks: every ZeRO stage trains as one process does, is saved, and goes on from there bit for bit.

DeepSpeed takes seconds to import, so one pair of ranks does everything and leaves a report; the tests read it.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from leyden.core.errors import LeydenError
from leyden.core.optional import installed
from leyden.fabric import Fabric
from leyden.fabric.checkpoint.convert import convert
from leyden.fabric.precision import DeepSpeedPrecision
from leyden.fabric.strategies import DeepSpeedStrategy
from tests.support.ranks import run_ranks

pytestmark = [
    pytest.mark.skipif(not installed("deepspeed"), reason="deepspeed is not installed: docs/howto/deepspeed.md has the command"),
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

STAGES = (0, 1, 2, 3)
STEPS, HALF = 6, 3
TORCHRUN = {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}


class Net(nn.Module):
    """An MLP for digits of 8 by 8 with what goes wrong elsewhere: a parameter of the root, a frozen part, a tie, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])
        self.layers[1].bias = self.layers[0].bias
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Linear(64, 64).requires_grad_(False)
        self.head = nn.Linear(64, 10)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        for layer in self.layers:
            x = torch.tanh(layer(x)) * self.scale
        return self.head(self.frozen(x))

    def score(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(x), y)


def build(seed: int = 0) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = Net()
    return net, torch.optim.AdamW([parameter for parameter in net.parameters() if parameter.requires_grad], lr=1e-2)


def batch(step: int, part: int, rank: int, world_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + part)
    x, y = torch.rand(16, 64, generator=generator), torch.randint(10, (16,), generator=generator)
    return x[rank::world_size], y[rank::world_size]


def train(fabric: Fabric, model: Any, optimizer: Any, start: int, stop: int) -> list[float]:
    """Two batches per step; the second goes through a marked method."""
    losses = []
    for step in range(start, stop):
        optimizer.zero_grad()
        total = torch.zeros(())
        for part in range(2):
            x, y = batch(step, part, fabric.global_rank, fabric.world_size)
            loss = model.score(x, y) if part else nn.functional.cross_entropy(model(x), y)
            fabric.backward(loss / 2)
            total += loss.detach() / 2
        optimizer.step()
        losses.append(float(fabric.all_reduce(total)))
    return losses


def set_up(fabric: Fabric, seed: int = 0) -> tuple[Any, Any]:
    model, optimizer = fabric.setup(*build(seed))
    model.mark_forward_method("score")
    return model, optimizer


def weights(fabric: Fabric, model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in fabric.strategy.get_module_state_dict(model.module).items()}


def refused(function: Any, *args: Any, **kwargs: Any) -> str:
    try:
        function(*args, **kwargs)
    except LeydenError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def launched(**options: Any) -> Fabric:
    world_size = int(os.environ["WORLD_SIZE"])
    fabric = Fabric(accelerator="cpu", devices=world_size, strategy=DeepSpeedStrategy(**options))
    fabric.launch()
    return fabric


def report_of_stage(stage: int, folder: Path) -> dict[str, Any]:
    fabric = launched(stage=stage)
    model, optimizer = set_up(fabric)
    fabric.backward(1000 * model(batch(9, 9, 0, 1)[0]).sum())  # gradients that nobody steps on: train() clears them first
    report: dict[str, Any] = {"names": sorted(weights(fabric, model))}
    losses = train(fabric, model, optimizer, 0, HALF)
    path = folder / f"stage-{stage}"
    fabric.save(path, {"model": model, "optimizer": optimizer, "step": HALF, "note": {"a": [1, 2]}})
    report["losses"] = losses + train(fabric, model, optimizer, HALF, STEPS)
    report["weights"] = weights(fabric, model)

    fabric.load(path, {"model": model, "optimizer": optimizer})  # into the engine that went on
    report["again"] = train(fabric, model, optimizer, HALF, STEPS)

    fresh = launched(stage=stage)
    model, optimizer = set_up(fresh, seed=7)
    state = {"model": model, "optimizer": optimizer, "step": 0}
    report["remainder"] = fresh.load(path, state)
    report["step"] = state["step"]
    report["resumed"] = train(fresh, model, optimizer, HALF, STEPS)

    fresh.load(folder / "plain.ckpt", {"model": model})  # what one process saved
    report["plain"] = weights(fresh, model)
    train(fresh, model, optimizer, 0, 1)
    moved = {name: float((value - report["plain"][name]).abs().max()) for name, value in weights(fresh, model).items()}
    report["moved"] = max(distance for name, distance in moved.items() if name != "seen")
    fresh.load(path, {"model": model})  # the engine's weights alone
    report["alone"] = weights(fresh, model)

    report["optimizer of others"] = refused(fresh.load, folder / "plain.ckpt", {"model": model, "optimizer": optimizer}, restore_rng=False)
    small = fresh.setup(nn.Linear(2, 1))
    report["other model"] = refused(fresh.load, path, {"model": small})
    report["two models"] = refused(fresh.save, folder / "no", {"model": model, "small": small})
    report["inference"] = tuple(small(torch.ones(3, 2)).shape), refused(fresh.backward, small(torch.ones(3, 2)).sum(), model=small)
    report["state_dict"] = refused(model.state_dict)
    return report


def report_of_the_rest(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = {}
    sharded = launched(precision=DeepSpeedPrecision("bf16-mixed"), stage=3)
    with sharded.init_module():
        net = Net()
    report["shards at birth"] = net.head.weight.numel()
    model, optimizer = sharded.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2))
    model.mark_forward_method("score")
    report["bf16"] = train(sharded, model, optimizer, 0, 2)
    report["bf16 dtypes"] = str(model(torch.ones(1, 64)).dtype), str(weights(sharded, model)["head.weight"].dtype)

    config = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}, "gradient_clipping": 1e-3}
    clipped = launched(config=config)
    net, optimizer = build()
    optimizer = torch.optim.SGD(optimizer.param_groups[0]["params"], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, optimizer, returned = clipped.setup(net, optimizer, scheduler=scheduler)
    report["offload"] = [str(each.message) for each in caught if "DeepSpeedCPUAdam" in str(each.message)]
    model.mark_forward_method("score")
    clipped.backward(1000 * model(batch(9, 9, 0, 1)[0]).sum())
    optimizer.zero_grad()  # gradients that nobody stepped on are gone
    train(clipped, model, optimizer, 0, 1)
    report["clipped"] = weights(clipped, model)
    report["scheduler"] = returned is scheduler, optimizer.param_groups[0]["lr"]

    engine = model._forward_module
    engine.save_checkpoint(str(folder / "foreign"), tag="checkpoint", client_state={"epoch": 3, "note": "theirs"})
    state = {"model": model, "epoch": 0}
    report["foreign"] = clipped.load(folder / "foreign", state), state["epoch"]
    return report


def report_of_a_life(store: Path) -> list[float]:
    dist.init_process_group("gloo", store=dist.FileStore(str(store), 2), rank=int(os.environ["RANK"]), world_size=2)
    fabric = launched(stage=1)
    model, optimizer = set_up(fabric)
    losses = train(fabric, model, optimizer, 0, 1)
    fabric.strategy.teardown()
    dist.destroy_process_group()
    return losses


def everything(folder: str) -> dict[Any, Any]:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    reports: dict[Any, Any] = {stage: report_of_stage(stage, Path(folder)) for stage in STAGES}
    reports["rest"] = report_of_the_rest(Path(folder))
    dist.destroy_process_group()
    reports["lives"] = [report_of_a_life(Path(folder) / name) for name in ("first", "second")]
    return reports


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process without DeepSpeed: the same global batches, float32."""
    folder = tmp_path_factory.mktemp("deepspeed")
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = set_up(fabric, seed=3)
    fabric.save(folder / "plain.ckpt", {"model": model, "optimizer": optimizer})
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    model, optimizer = set_up(fabric)
    return {"folder": folder, "plain": plain, "losses": train(fabric, model, optimizer, 0, STEPS), "weights": model.state_dict()}


@pytest.fixture(scope="module")
def reports(alone: dict[str, Any]) -> list[dict[int, Any]]:
    return run_ranks(everything, 2, args=(str(alone["folder"]),), env=TORCHRUN, timeout=220)


@pytest.fixture(params=STAGES, ids=lambda stage: f"stage-{stage}")
def report(request: pytest.FixtureRequest, reports: list[dict[int, Any]]) -> dict[str, Any]:
    return reports[0][request.param]


def test_every_stage_trains_as_one_process_does(report, alone):
    assert report["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for name, value in alone["weights"].items():
        if name != "seen":  # it counts forwards, also the one whose gradients were cleared
            torch.testing.assert_close(report["weights"][name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_ranks_see_the_same_losses(reports):
    for stage in STAGES:
        assert reports[0][stage]["losses"] == reports[1][stage]["losses"]


def test_a_saved_engine_goes_on_bit_for_bit(report):
    assert report["again"] == report["losses"][HALF:]
    assert report["resumed"] == report["losses"][HALF:]
    assert report["step"] == HALF
    assert report["remainder"] == {"note": {"a": [1, 2]}}


def test_weights_of_another_strategy_load_at_every_stage(report, alone):
    assert report["names"] == sorted(alone["plain"])
    for name, value in alone["plain"].items():
        assert torch.equal(report["plain"][name], value), name


def test_loaded_weights_are_those_that_the_next_step_starts_from(report):
    assert 0 < report["moved"] < 0.1  # one step of AdamW moves a weight by about lr = 0.01; a step of stale copies by more


def test_weights_alone_load_without_the_optimizer(report, reports):
    assert not torch.equal(report["alone"]["scale"], report["weights"]["scale"])
    for name, value in reports[1][0]["alone"].items():
        torch.testing.assert_close(report["alone"][name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_a_checkpoint_is_published_with_meta_and_the_engines_files(alone, reports):
    folder = alone["folder"] / "stage-2"
    assert sorted(path.name for path in folder.iterdir()) == ["deepspeed", "meta.json", "ranks", "train.pt"]
    assert (folder / "deepspeed" / "checkpoint" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").is_file()
    assert not list(alone["folder"].glob("*.tmp-*"))


def test_what_an_engine_cannot_do_is_refused_on_all_ranks(reports):
    for stage in STAGES:
        for report in (each[stage] for each in reports):
            if stage:
                assert "UnsupportedError" in report["optimizer of others"]
            assert report["two models"].startswith("ConfigError: DeepSpeed can save exactly one model at a time")
            assert "does not fit the checkpoint; nothing was changed" in report["other model"]
            assert report["inference"][0] == (3, 1)
            assert "set up for training" in report["inference"][1]
            assert ("StateError: ZeRO stage 3 keeps" in report["state_dict"]) is (stage == 3)


def test_weights_are_cut_as_they_are_built_and_compute_in_bfloat16(reports, alone):
    rest = reports[0]["rest"]
    assert rest["shards at birth"] == 0
    assert rest["bf16"] == pytest.approx([2.3, 2.3], rel=0.2)  # other initial weights: log(10) ± what training moves
    assert rest["bf16 dtypes"] == ("torch.float32", "torch.bfloat16")


def test_gradients_are_clipped_by_the_configuration_and_cleared_by_zero_grad(reports):
    net, optimizer = build()
    for part in range(2):
        x, y = batch(0, part, 0, 1)
        (nn.functional.cross_entropy(net(x), y) / 2).backward()
    parameters = optimizer.param_groups[0]["params"]
    nn.utils.clip_grad_norm_(parameters, 1e-3)
    torch.optim.SGD(parameters, lr=1.0).step()
    for name, value in net.state_dict().items():
        if name != "seen":  # it counts forwards, also the one whose gradients were cleared
            torch.testing.assert_close(reports[0]["rest"]["clipped"][name], value, rtol=0, atol=2e-7, msg=name)


def test_offloading_a_torch_optimizer_names_the_faster_one(reports):
    assert len(reports[0]["rest"]["offload"]) == 1


def test_the_engine_steps_the_scheduler(reports):
    assert reports[0]["rest"]["scheduler"] == (True, 0.5)


def test_a_folder_that_deepspeed_itself_wrote_loads(reports):
    remainder, epoch = reports[0]["rest"]["foreign"]
    assert epoch == 3
    assert remainder["note"] == "theirs"
    assert "module" not in remainder
    assert "ds_config" not in remainder


@pytest.mark.parametrize("stage", STAGES)
def test_an_engines_weights_convert_to_one_file(stage, alone, reports, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="DeepSpeed's reader runs the pickles")
        convert(alone["folder"] / f"stage-{stage}", tmp_path / "model.ckpt")
    converted = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert (converted["step"], converted["note"]) == (HALF, {"a": [1, 2]})
    for name, value in reports[0][stage]["alone"].items():
        assert torch.equal(converted["model"][name], value), name


def test_a_group_that_was_torn_down_is_forgotten(reports, alone):
    first, second = reports[0]["lives"]
    assert first == second == pytest.approx(alone["losses"][:1], rel=1e-5)
