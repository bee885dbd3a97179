"""What each member of `Fabric` does, in one process. What is refused: `test_checks.py`. Several ranks: tests/integration/fabric.

Long because each member has its group of tests here, in the order of the class.
"""

import cProfile
import os
import pstats
import random
import signal
import sys
import threading
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.core.errors import ConfigError, StateError
from leyden.fabric import CompilePolicy, Fabric, is_wrapped, seed_everything
from leyden.fabric.accelerators import Accelerator
from leyden.fabric.loggers.logger import Logger
from leyden.fabric.plugins import DoublePrecision, MixedPrecision
from leyden.fabric.strategies import SingleDeviceStrategy
from leyden.fabric.utilities import AttributeDict


def one(**arguments: Any) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, **arguments)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def sgd(module: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=lr)


class Elsewhere(Accelerator):
    """A vendor's device that every machine has: the meta device."""

    name = "meta"

    def setup_device(self, device: torch.device) -> None:
        assert device.type == "meta"

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("meta")]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True


def elsewhere() -> Fabric:
    return Fabric(accelerator=Elsewhere(), devices=1)


class Recorder(Logger):
    """A logger of the user's own: it gets numbers, and gets them at once."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Any], int | None]] = []

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((dict(metrics), step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


# -- where the process stands --------------------------------------------------------------------------------------


def test_one_device_is_rank_zero_of_one():
    fabric = one()
    assert (fabric.global_rank, fabric.local_rank, fabric.node_rank, fabric.world_size) == (0, 0, 0, 1)
    assert fabric.is_global_zero
    assert fabric.device == torch.device("cpu")
    assert fabric.accelerator.name == "cpu"
    assert type(fabric.strategy) is SingleDeviceStrategy
    assert fabric.precision == "32-true"


def test_the_default_is_one_process_on_this_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert Fabric().world_size == 1


def test_the_constructor_starts_nothing():
    before = threading.active_count()
    fabric = Fabric(accelerator="cpu", devices=2, strategy="fsdp")
    assert not fabric.launched
    assert not torch.distributed.is_initialized()
    assert threading.active_count() == before


def test_the_first_use_launches_one_device():
    fabric = one()
    assert not fabric.launched
    fabric.setup(net())
    assert fabric.launched


def test_launch_without_function_goes_on_and_may_be_repeated():
    fabric = one()
    assert fabric.launch() is None
    assert fabric.launch() is None
    assert fabric.launched


def test_launch_runs_the_function_with_fabric_first():
    fabric = one()
    assert fabric.launch(lambda fabric, a, b=0: (fabric.launched, a, b), 1, b=2) == (True, 1, 2)
    assert fabric.launch(lambda fabric: "again") == "again"


def test_an_overridden_run_launches_first():
    class Mine(Fabric):
        def run(self, value: int, *, times: int = 1) -> tuple[bool, int]:
            return self.launched, value * times

    fabric = Mine(accelerator="cpu", devices=1)
    assert not fabric.launched
    assert fabric.run(3, times=2) == (True, 6)
    with pytest.raises(StateError, match="for subclasses"):
        one().run()


def test_the_mesh_and_the_store_exist_on_one_device():
    fabric = one()
    assert fabric.mesh.size("dp") == 1
    fabric.store.set("key", "value")
    assert fabric.store.get("key") == b"value"
    assert fabric.store is fabric.store


# -- set-up --------------------------------------------------------------------------------------------------------


def test_setup_returns_what_it_was_given():
    fabric = one()
    assert is_wrapped(fabric.setup(net()))
    module = net()
    first, second = sgd(module[0]), torch.optim.AdamW(module[2].parameters())
    model, *optimizers = fabric.setup(module, first, second)
    assert [optimizer.optimizer for optimizer in optimizers] == [first, second]
    assert [isinstance(optimizer, kind) for optimizer, kind in zip(optimizers, (torch.optim.SGD, torch.optim.AdamW), strict=True)] == [
        True
    ] * 2
    assert model.module is module


def test_setup_returns_the_scheduler_last():
    module = net()
    optimizer = sgd(module)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    model, optimizer, same = one().setup(module, optimizer, scheduler=scheduler)
    assert same is scheduler
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_the_two_steps_are_setup():
    fabric = one()
    model = fabric.setup_module(net())
    optimizer = fabric.setup_optimizers(sgd(model))
    assert isinstance(optimizer, torch.optim.SGD)
    several = fabric.setup_optimizers(sgd(model), sgd(model))
    assert isinstance(several, tuple)
    assert len(several) == 2
    before = model.module[-1].bias.clone()  # has a gradient of one whatever the weights: units of a ReLU may all be off
    fabric.backward(model(torch.ones(1, 4)).sum())
    optimizer.step()
    assert not torch.equal(before, model.module[-1].bias)


def test_a_facade_loop_trains_like_the_raw_one():
    x, y = torch.randn(16, 4), torch.randn(16, 2)
    torch.manual_seed(1)
    raw, wrapped = net(), net()
    wrapped.load_state_dict(raw.state_dict())
    fabric = one()
    model, optimizer = fabric.setup(wrapped, sgd(wrapped))
    raw_optimizer = sgd(raw)
    for _ in range(3):
        for module, stepper, backward in ((raw, raw_optimizer, torch.Tensor.backward), (model, optimizer, fabric.backward)):
            stepper.zero_grad()
            backward(nn.functional.mse_loss(module(x), y))
            stepper.step()
    assert all(torch.equal(a, b) for a, b in zip(raw.parameters(), model.parameters(), strict=True))


def test_move_to_device_moves_in_place_and_can_be_left_out():
    fabric = elsewhere()
    kept, moved = net(), net()
    assert fabric.setup_module(kept, move_to_device=False).module[0].weight.device.type == "cpu"
    fabric.setup_module(moved)
    assert moved[0].weight.device.type == "meta"


def test_parameters_on_several_devices_warn():
    module = net()
    module[2].to("meta")
    with pytest.warns(UserWarning, match="has parameters on different devices"), pytest.raises(NotImplementedError):
        one().setup(module)


def test_a_compiled_module_is_compiled_again_around_the_result():
    fabric, module = one(), net()
    model = fabric.setup(torch.compile(module, backend="eager"))
    assert type(model._forward_module).__name__ == "OptimizedModule"
    assert model.module is module
    assert list(model.state_dict()) == list(net().state_dict())
    assert is_wrapped(torch.compile(model, backend="eager"))


def test_without_reapply_the_users_own_compilation_stays():
    compiled = torch.compile(net(), backend="eager")
    model = one().setup(compiled, _reapply_compile=False)
    assert model._forward_module is compiled
    assert list(model.state_dict()) == list(net().state_dict())


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it itself
def test_the_compile_policy_compiles_blocks_or_the_model():
    blocks = one(compile=CompilePolicy("blocks", backend="eager")).setup(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    assert all(block._compiled_call_impl is not None for block in blocks.module)
    whole = one(compile=CompilePolicy("model", backend="eager")).setup(net())
    assert type(whole._forward_module).__name__ == "OptimizedModule"
    assert whole(torch.ones(2, 4)).shape == (2, 2)
    assert list(whole.state_dict()) == list(net().state_dict())


class Lightning(nn.Module):
    """As a LightningModule looks to Fabric: it has `_fabric`, step methods and hooks."""

    def __init__(self) -> None:
        super().__init__()
        self._fabric: Any = None
        self._fabric_optimizers: Any = []
        self.layer = nn.Linear(4, 2)
        self.heard: list[str] = []

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch).sum()

    def on_train_start(self) -> None:
        self.heard.append("train start")

    def on_after_optimizer_step(self, strategy: Any, optimizer: Any) -> None:
        self.heard.append(type(optimizer).__name__)


def test_a_module_that_knows_fabric_is_told_and_hears_callbacks():
    fabric, module = one(), Lightning()
    model, optimizer = fabric.setup(module, sgd(module))
    assert module._fabric is fabric
    assert module._fabric_optimizers == [optimizer]
    fabric.call("on_train_start")
    fabric.backward(model.training_step(torch.ones(1, 4)))
    optimizer.step()
    assert module.heard == ["train start", "SGD"]


def test_callbacks_hear_of_set_up_and_of_each_step():
    heard: list[tuple[str, Any]] = []

    class Listener:
        def on_after_setup(self, fabric: Fabric, module: nn.Module) -> None:
            heard.append(("setup", module))

        def on_after_optimizer_step(self, strategy: Any, optimizer: Any) -> None:
            heard.append(("step", optimizer))

    fabric, module = one(callbacks=Listener()), net()
    inner = sgd(module)
    model, optimizer = fabric.setup(module, inner)
    fabric.backward(model(torch.ones(1, 4)).sum())
    optimizer.step()
    assert heard == [("setup", model), ("step", inner)]


def test_loaders_are_wrapped_one_or_several():
    fabric, data = one(), TensorDataset(torch.arange(6.0))
    loader = fabric.setup_dataloaders(DataLoader(data, batch_size=2))
    assert is_wrapped(loader)
    assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    several = fabric.setup_dataloaders(DataLoader(data), DataLoader(data), use_distributed_sampler=False, move_to_device=False)
    assert isinstance(several, list)
    assert [len(each) for each in several] == [6, 6]


def test_a_stateful_loader_is_taken_as_it_is():
    class Counting:
        def __init__(self) -> None:
            self.at = 0

        def __iter__(self) -> Any:
            while self.at < 3:
                self.at += 1
                yield torch.tensor(self.at)

        def state_dict(self) -> dict[str, int]:
            return {"at": self.at}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.at = state["at"]

    assert [int(number) for number in one().setup_dataloaders(Counting())] == [1, 2, 3]


def test_two_fabrics_in_one_process_share_it():
    first, second = one(), one()
    model = first.setup(net())
    assert second.setup_dataloaders(DataLoader(range(2), batch_size=2)) is not None
    assert second.broadcast(first.world_size) == 1
    with pytest.raises(ConfigError, match="passed only once"):
        second.setup(model)


# -- contexts ------------------------------------------------------------------------------------------------------


def test_init_module_builds_in_the_precision_and_skips_initialisers():
    with one(precision="bf16-true").init_module():
        assert nn.Linear(4, 2).weight.dtype is torch.bfloat16
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with one().init_module(empty_init=True):
        layer = nn.Linear(4, 2)
    assert layer.weight.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before), "an initialiser drew random numbers"
    with one().init_module(empty_init=False):
        nn.Linear(4, 2)
    assert not torch.equal(torch.get_rng_state(), before)


def test_sharded_model_is_a_deprecated_name():
    with pytest.warns(DeprecationWarning, match="init_module"), one(precision="64-true").sharded_model():
        assert nn.Linear(1, 1).weight.dtype is torch.float64


def test_init_tensor_gives_the_device_and_the_dtype():
    with elsewhere().init_tensor():
        assert torch.ones(1).device.type == "meta"
    with one(precision="bf16-true").init_tensor():
        assert torch.ones(1).dtype is torch.bfloat16
    assert torch.ones(1).dtype is torch.float32


def test_autocast_is_the_forward_context():
    with one(precision="bf16-mixed").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
    with one(precision="64-true").autocast():
        assert torch.ones(1).dtype is torch.float64
    with one().autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


def test_to_device_moves_modules_in_place_and_tensors_in_collections():
    fabric, module = elsewhere(), net()
    assert fabric.to_device(module) is module
    assert module[0].weight.device.type == "meta"
    moved = fabric.to_device({"x": [torch.ones(1)], "name": "kept", "number": 3})
    assert moved["x"][0].device.type == "meta"
    assert (moved["name"], moved["number"]) == ("kept", 3)
    assert fabric.to_device("text") == "text"


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16), ("bf16-mixed", torch.float32)])
def test_a_step_in_each_precision(precision, dtype):
    fabric, module = one(precision=precision), net()
    model, optimizer = fabric.setup(module, sgd(module))
    assert module[0].weight.dtype is dtype
    output = model(torch.ones(2, 4))
    assert output.dtype is torch.float32
    before = module[0].weight.clone()
    fabric.backward(output.sum())
    optimizer.step()
    assert not torch.equal(before, module[0].weight)


def test_a_precision_object_may_be_a_plugin():
    assert one(plugins=DoublePrecision()).precision == "64-true"
    assert one(plugins=[MixedPrecision("bf16-mixed", "cpu")]).precision == "bf16-mixed"


# -- the loop ------------------------------------------------------------------------------------------------------


def scaled(init_scale: float = 4.0) -> Fabric:
    return one(plugins=MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=init_scale)))


def ready(fabric: Fabric, gradient: float = 3.0) -> tuple[Any, Any]:
    """Return a model and an optimizer with all eight gradients at `gradient`."""
    module = nn.Linear(4, 2, bias=False)
    model, optimizer = fabric.setup(module, sgd(module))
    fabric.backward(model(torch.ones(1, 4)).sum() * gradient)
    return model, optimizer


@pytest.mark.parametrize("make", [one, scaled])
def test_clipping_by_norm_returns_the_norm_before(make):
    model, optimizer = ready(fabric := make())
    norm = fabric.clip_gradients(model, optimizer, max_norm=1.0)
    assert norm.item() == pytest.approx(3.0 * 8**0.5, rel=1e-3)
    assert norm.shape == ()
    assert model.weight.grad.norm().item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("norm_type", ["inf", float("inf")], ids=["word", "number"])
def test_the_norm_may_be_the_largest_element(norm_type):
    model, optimizer = ready(fabric := one())
    assert fabric.clip_gradients(model, optimizer, max_norm=1.0, norm_type=norm_type).item() == pytest.approx(3.0)
    assert model.weight.grad.max().item() == pytest.approx(1.0)


@pytest.mark.parametrize("make", [one, scaled])
def test_clipping_by_value_returns_nothing(make):
    model, optimizer = ready(fabric := make())
    assert fabric.clip_gradients(model, optimizer, clip_val=0.5) is None
    assert model.weight.grad.tolist() == [[0.5] * 4] * 2


def test_the_optimizer_may_be_unwrapped():
    model, optimizer = ready(fabric := one())
    assert fabric.clip_gradients(model.module, optimizer.optimizer, max_norm=1.0).item() > 1


def test_backward_passes_arguments_on():
    model, _ = ready(fabric := one(), gradient=0.0)
    fabric.backward(model(torch.ones(1, 4)), torch.full((1, 2), 2.0), retain_graph=False)
    assert model.weight.grad.tolist() == [[2.0] * 4] * 2


def test_no_backward_sync_does_nothing_on_one_device():
    fabric, module = one(), net()
    model = fabric.setup(module)
    with fabric.no_backward_sync(model), fabric.no_backward_sync(model, enabled=False):
        fabric.backward(model(torch.ones(1, 4)).sum())
    assert module[0].weight.grad is not None
    with fabric.no_backward_sync(torch.compile(model, backend="eager")):
        pass


def test_two_optimizers_share_one_scale():
    """The scale is updated between steps, never between the optimizers of one: else the second's gradients are off by the factor."""
    fabric = scaled()
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    one_model, one_optimizer = fabric.setup(first, sgd(first, lr=1.0))
    two_model, two_optimizer = fabric.setup(second, sgd(second, lr=1.0))
    before = second.weight.item()
    fabric.backward(one_model(torch.ones(1, 1)).sum() + two_model(torch.ones(1, 1)).sum())
    first.weight.grad.fill_(float("inf"))
    one_optimizer.step()
    two_optimizer.step()
    assert (one_optimizer.last_step_skipped, two_optimizer.last_step_skipped) == (True, False)
    assert before - second.weight.item() == pytest.approx(1.0, rel=1e-3)


# -- collectives of one --------------------------------------------------------------------------------------------


def test_collectives_of_one_return_what_they_get():
    fabric, data = one(), {"a": torch.tensor([1.0, 2.0]), "b": ("text", [torch.tensor(3)])}
    assert fabric.all_gather(data)["a"] is data["a"]
    assert fabric.all_reduce(data, reduce_op="sum")["b"] == ("text", [torch.tensor(3)])
    assert fabric.broadcast(data) is data
    fabric.barrier("end")
    with fabric.rank_zero_first(), fabric.rank_zero_first(local=True):
        pass


def test_numbers_become_tensors_also_on_one_device():
    fabric = one()
    assert fabric.all_reduce({"loss": 1.5, "name": "x"})["loss"].item() == 1.5
    assert fabric.all_gather([2])[0].item() == 2


def test_the_mean_of_integers_is_a_float_also_on_one_device():
    with pytest.warns(UserWarning, match="mean"):
        assert one().all_reduce(torch.tensor(3)).dtype is torch.float32


# -- print, call, log ----------------------------------------------------------------------------------------------


def test_print_prints(capsys):
    one().print("loss", 3, sep="=", end="!")
    assert capsys.readouterr().out == "loss=3!"


def test_call_runs_every_callback_in_order_and_drops_what_it_does_not_take():
    heard: list[Any] = []

    class First:
        def on_step(self, loss: float) -> None:
            heard.append(("first", loss))

    class Second:
        def on_step(self, *args: Any, **kwargs: Any) -> None:
            heard.append(("second", args, kwargs))

    class Silent: ...

    fabric = one(callbacks=[First(), Silent(), Second()])
    fabric.call("on_step", loss=1.0, step=2)
    fabric.call("on_step", 3.0)
    fabric.call("on_nothing")
    assert heard == [("first", 1.0), ("second", (), {"loss": 1.0, "step": 2}), ("first", 3.0), ("second", (3.0,), {})]


def test_a_hook_whose_signature_cannot_be_read_gets_every_keyword():
    class Builtin:
        seen: dict[str, Any] = {}  # noqa: RUF012 - filled by the test
        on_step = seen.update

    one(callbacks=Builtin()).call("on_step", loss=1.0, step=2)
    assert Builtin.seen == {"loss": 1.0, "step": 2}


def test_a_hook_that_is_no_function_is_skipped_with_a_warning():
    class Odd:
        on_step = "text"

    with pytest.warns(UserWarning, match="Skipping the callback `Odd.on_step`"):
        one(callbacks=[Odd()]).call("on_step")


def test_callbacks_come_from_entry_points_too(tmp_path, monkeypatch):
    (tmp_path / "plugged.py").write_text("class Plugged: ...\ndef one(): return Plugged()\ndef two(): return [Plugged(), Plugged()]\n")
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[leyden.fabric.callbacks]\na = plugged:one\n[lightning.fabric.callbacks_factory]\nb = plugged:two\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = object()
    try:
        found = one(callbacks=mine)._callbacks
    finally:
        sys.modules.pop("plugged", None)
    assert found[0] is mine
    assert [type(callback).__name__ for callback in found[1:]] == ["Plugged"] * 3


def test_loggers_get_numbers():
    first, second = Recorder(), Recorder()
    fabric = one(loggers=[first, second])
    assert fabric.logger is first
    assert fabric.loggers == [first, second]
    fabric.log("loss", torch.tensor([1.5]), step=3)
    fabric.log_dict({"a": 1, "b": torch.tensor(2.0, requires_grad=True)})
    assert first.rows == second.rows == [({"loss": 1.5}, 3), ({"a": 1, "b": 2.0}, None)]
    assert all(type(value) in (int, float) for metrics, _ in first.rows for value in metrics.values())
    assert one(loggers=first).loggers == [first]


def test_a_logger_needs_nothing_but_log_metrics(tmp_path):
    class Foreign:
        rows: list[Any] = []  # noqa: RUF012 - a stand-in of a user

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            self.rows.append((metrics, step))

    fabric = one(loggers=Foreign())
    fabric.log("loss", torch.tensor(1.0), step=1)
    fabric.save(tmp_path / "a.ckpt", {"step": 1})
    assert Foreign.rows == [({"loss": 1.0}, 1)]


def test_without_loggers_logging_does_nothing():
    one().log("loss", 1.0)


# -- seeds, checkpoints, stopping ----------------------------------------------------------------------------------


def test_seed_everything_is_a_static_method_that_returns_the_seed():
    assert Fabric.seed_everything(3, verbose=False) == 3
    first = (random.random(), torch.rand(1).item())
    assert one().seed_everything(3, workers=False, verbose=False) == 3
    assert (random.random(), torch.rand(1).item()) == first
    assert seed_everything(4, verbose=False) == 4
    assert os.environ["PL_GLOBAL_SEED"] == "4"


@pytest.fixture(autouse=True)
def seed_of_its_own(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")


def test_a_state_comes_back_and_the_rest_is_returned(tmp_path):
    fabric, module = one(), net()
    model, optimizer = fabric.setup(module, torch.optim.AdamW(module.parameters()))
    fabric.backward(model(torch.ones(1, 4)).sum())
    optimizer.step()
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    fabric.save(tmp_path / "a.ckpt", AttributeDict(model=model, optimizer=optimizer, step=7, note="n"))
    optimizer.step()
    state = {"model": model, "optimizer": optimizer, "step": 0}
    assert fabric.load(tmp_path / "a.ckpt", state) == {"note": "n"}
    assert state["step"] == 7
    assert state["model"] is model, "objects are restored in place"
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert set(fabric.load(tmp_path / "a.ckpt")) == {"model", "optimizer", "step", "note"}


def test_a_filter_chooses_entries_and_an_empty_entry_is_absent(tmp_path):
    fabric, model = one(), net()
    keep_bias = {"model": lambda name, value: name.endswith("bias"), "other": lambda name, value: False}
    fabric.save(tmp_path / "a.ckpt", {"model": model, "other": net(), "step": 1}, filter=keep_bias)
    loaded = fabric.load(tmp_path / "a.ckpt")
    assert list(loaded["model"]) == ["0.bias", "2.bias"]
    assert "other" not in loaded


def test_an_asynchronous_save_is_there_after_waiting(tmp_path):
    fabric = one()
    fabric.save(tmp_path / "a.ckpt", {"step": 3}, blocking=False)
    fabric.wait_for_saves()
    assert fabric.load(tmp_path / "a.ckpt") == {"step": 3}


def test_a_bare_state_dict_loads_into_a_wrapped_module_and_optimizer(tmp_path):
    fabric, module, source = one(), net(), net()
    model, optimizer = fabric.setup(module, sgd(module, lr=0.5))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    torch.save(sgd(source, lr=0.125).state_dict(), tmp_path / "optimizer.pt")
    fabric.load_raw(tmp_path / "model.pt", model)
    fabric.load_raw(tmp_path / "optimizer.pt", optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True))
    assert optimizer.param_groups[0]["lr"] == 0.125


@contextmanager
def stopping(fabric: Fabric) -> Any:
    """Put the handlers back afterwards."""
    try:
        yield
    finally:
        if fabric._stops is not None:
            fabric._stops.close()


def test_sigterm_becomes_a_stop_at_the_next_boundary():
    before = signal.getsignal(signal.SIGTERM)
    fabric = one()
    with stopping(fabric):
        assert fabric.stop_requested() is None
        os.kill(os.getpid(), signal.SIGTERM)
        stop = fabric.stop_requested()
        assert stop is not None
        assert (stop.reason, stop.signal, stop.exit_code) == ("SIGTERM", signal.SIGTERM, 143)
        assert fabric.stop_requested() == stop
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_the_user_still_runs(monkeypatch):
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        fabric = one()
        with stopping(fabric):
            assert fabric.stop_requested() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert fabric.stop_requested() is not None
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_variables_replace_arguments_with_a_warning(monkeypatch):
    monkeypatch.setenv("LT_PRECISION", "64-true")
    with pytest.warns(UserWarning, match="LT_PRECISION"):
        assert one(precision="bf16-mixed").precision == "64-true"
    assert one().precision == "64-true"
    monkeypatch.setenv("LEYDEN_FABRIC_PRECISION", "bf16-true")
    assert one().precision == "bf16-true"


def test_the_command_line_joins_in_the_constructor(monkeypatch):
    monkeypatch.setenv("LT_CLI_USED", "1")
    monkeypatch.setenv("LT_DEVICES", "1")
    monkeypatch.setenv("LT_ACCELERATOR", "cpu")
    assert Fabric().launched


# -- the price -----------------------------------------------------------------------------------------------------


def calls_per_step(step: Any) -> float:
    def calls(count: int) -> int:
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(count):
            step()
        profile.disable()
        return pstats.Stats(profile).total_calls

    calls(2)
    return (calls(30) - calls(10)) / 20


def test_a_step_of_the_whole_facade_costs_at_most_21_calls_more_than_the_raw_loop():
    x, y = torch.randn(32, 32), torch.randint(0, 2, (32,))

    def step_of(model: Any, optimizer: Any, backward: Any) -> Any:
        def step() -> None:
            optimizer.zero_grad()
            backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()

        return step

    module = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))
    raw = calls_per_step(step_of(module, sgd(module), lambda loss: loss.backward()))
    fabric = one()
    ours = calls_per_step(step_of(*fabric.setup(module, sgd(module)), fabric.backward))
    assert ours <= raw + 21, f"{ours} calls per step against {raw}"
