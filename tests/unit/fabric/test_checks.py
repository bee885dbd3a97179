"""What `Fabric` refuses, with the words users search for. Arguments of the constructor: `test_arguments.py`."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from leyden.core.errors import CheckpointKeyError, ConfigError, ConfigTypeError, NotFoundError, StateError, UnsupportedError
from leyden.fabric import Fabric
from leyden.fabric.checks import accepted, non_finite
from leyden.fabric.loggers import CSVLogger
from leyden.fabric.plugins import MixedPrecision
from leyden.fabric.strategies import DDPStrategy


def one(**arguments: Any) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, **arguments)


def sgd(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=0.1)


# -- launching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [3, "train", object()])
def test_what_cannot_be_called_is_not_launched(function):
    with pytest.raises(ConfigTypeError, match=r"needs a callable, such as `fabric.launch\(train\)`"):
        one().launch(function)


def test_a_function_without_argument_is_refused():
    with pytest.raises(ConfigTypeError, match=r"`launch\(train\)`: the function needs to take at least one argument, the Fabric object"):
        one().launch(train)


def train() -> None: ...


def test_a_builtin_is_launched():
    assert one().launch(max, [1, 2], key=id) is not None


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_spawn_and_fork_need_a_function(strategy):
    with pytest.raises(ConfigTypeError, match=r"needs to be called with a function: `.launch\(function\)`"):
        Fabric(accelerator="cpu", devices=2, strategy=strategy).launch()


def test_the_command_line_has_launched_already(monkeypatch):
    monkeypatch.setenv("LT_CLI_USED", "1")
    monkeypatch.setenv("LT_DEVICES", "1")
    fabric = Fabric(accelerator="cpu")
    with pytest.raises(StateError, match="launched through the CLI"):
        fabric.launch()

    class Mine(Fabric):
        def run(self) -> None: ...

    with pytest.raises(ConfigTypeError, match=r"Overriding `Fabric.run\(\)` and launching from the CLI is not allowed"):
        Mine(accelerator="cpu")


def test_the_command_line_and_the_code_must_agree(monkeypatch):
    monkeypatch.setenv("LT_CLI_USED", "1")
    monkeypatch.setenv("LT_DEVICES", "1")
    monkeypatch.setenv("LT_PRECISION", "bf16-mixed")
    with pytest.raises(ConfigError, match="precision='64-true', which conflicts with --precision=bf16-mixed"):
        Fabric(accelerator="cpu", precision="64-true")
    assert Fabric(accelerator="cpu", precision="bf16-mixed").precision == "bf16-mixed"


NEEDS_LAUNCH = {
    "setup": lambda fabric: fabric.setup(nn.Linear(1, 1)),
    "setup_module": lambda fabric: fabric.setup_module(nn.Linear(1, 1)),
    "setup_optimizers": lambda fabric: fabric.setup_optimizers(sgd(nn.Linear(1, 1))),
    "setup_dataloaders": lambda fabric: fabric.setup_dataloaders(DataLoader(range(2))),
    "init_module": lambda fabric: fabric.init_module(),
    "all_gather": lambda fabric: fabric.all_gather(1),
    "all_reduce": lambda fabric: fabric.all_reduce(1),
    "broadcast": lambda fabric: fabric.broadcast(1),
    "barrier": lambda fabric: fabric.barrier(),
    "rank_zero_first": lambda fabric: fabric.rank_zero_first(),
    "save": lambda fabric: fabric.save("x.ckpt", {}),
    "load": lambda fabric: fabric.load("x.ckpt"),
    "load_raw": lambda fabric: fabric.load_raw("x.pt", nn.Linear(1, 1)),
    "store": lambda fabric: fabric.store,
    "stop_requested": lambda fabric: fabric.stop_requested(),
}


@pytest.mark.parametrize("name", NEEDS_LAUNCH)
def test_several_devices_need_a_launch_first(name):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    with pytest.raises(StateError, match=r"you must call `.launch\(\)` or use the CLI: `leyden fabric run --help`"):
        NEEDS_LAUNCH[name](fabric)


def test_what_needs_no_other_rank_works_before_launch(capsys):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.print("hello")
    fabric.call("on_start")
    assert (fabric.global_rank, fabric.device.type, fabric.precision) == (0, "cpu", "32-true")
    assert capsys.readouterr().out == "hello\n"
    with pytest.raises(StateError, match="has not joined its process group"):
        fabric.mesh  # noqa: B018 - the access is the test


# -- set-up --------------------------------------------------------------------------------------------------------


def test_a_module_is_set_up_once():
    fabric, module = one(), nn.Linear(1, 1)
    model, optimizer = fabric.setup(module, sgd(module))
    for again in (model, torch.compile(model, backend="eager")):
        with pytest.raises(ConfigError, match="A model should be passed only once to the `setup` method"):
            fabric.setup(again)
    with pytest.raises(ConfigError, match="A model should be passed only once"):
        fabric.setup_module(model)
    with pytest.raises(ConfigError, match="An optimizer should be passed only once"):
        fabric.setup(nn.Linear(1, 1), optimizer)
    with pytest.raises(ConfigError, match="An optimizer should be passed only once"):
        fabric.setup_optimizers(optimizer)


def test_what_is_no_module_or_optimizer_is_refused_by_its_type():
    module = nn.Linear(1, 1)
    with pytest.raises(ConfigTypeError, match=r"takes a torch.nn.Module first, not SGD"):
        one().setup(sgd(module), module)
    scheduler = torch.optim.lr_scheduler.StepLR(sgd(module), step_size=1)
    with pytest.raises(ConfigTypeError, match=r"not StepLR. Pass a scheduler as scheduler="):
        one().setup(module, sgd(module), scheduler)


def test_a_scheduler_without_its_optimizer_is_refused():
    module = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="needs the scheduler's optimizer"):
        one().setup(module, scheduler=torch.optim.lr_scheduler.StepLR(sgd(module), step_size=1))


def test_setting_up_nothing_is_refused():
    with pytest.raises(ConfigError, match="`setup_optimizers` requires at least one optimizer"):
        one().setup_optimizers()
    with pytest.raises(ConfigError, match="`setup_dataloaders` requires at least one dataloader"):
        one().setup_dataloaders()


def test_meta_parameters_are_set_up_in_two_steps():
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    optimizer = sgd(module)
    with pytest.raises(StateError, match=r"model = fabric.setup_module\(model\); optimizer = fabric.setup_optimizers"):
        one().setup(module, optimizer)
    with pytest.raises(StateError, match=r"meta-device parameters. Build it after `model = fabric.setup_module\(model\)`"):
        one().setup_optimizers(optimizer)


def test_a_loader_is_set_up_once_and_must_be_one():
    fabric = one()
    loader = fabric.setup_dataloaders(DataLoader(range(3)))
    with pytest.raises(ConfigError, match="A dataloader should be passed only once"):
        fabric.setup_dataloaders(loader)
    for value in (range(3), [DataLoader(range(3))], None):
        with pytest.raises(ConfigTypeError, match="Only PyTorch DataLoader are currently supported in `setup_dataloaders`"):
            fabric.setup_dataloaders(value)


# -- the loop ------------------------------------------------------------------------------------------------------


def test_clipping_takes_exactly_one_of_two():
    fabric, module = one(), nn.Linear(1, 1)
    model, optimizer = fabric.setup(module, sgd(module))
    with pytest.raises(ConfigError, match="Only one of `clip_val` or `max_norm` can be set"):
        fabric.clip_gradients(model, optimizer, clip_val=1.0, max_norm=1.0)
    with pytest.raises(ConfigError, match="You have to specify either `clip_val` or `max_norm`"):
        fabric.clip_gradients(model, optimizer)


def broken() -> tuple[Fabric, Any, Any]:
    """Return a model of 14 parameters, seven of them with gradients that are not finite."""
    fabric, module = one(), nn.Sequential(*[nn.Linear(1, 1) for _ in range(7)])
    model, optimizer = fabric.setup(module, sgd(module))
    for name, parameter in module.named_parameters():
        parameter.grad = torch.full_like(parameter, float("nan") if name.endswith("bias") else 1.0)
    return fabric, model, optimizer


def test_gradients_that_are_not_finite_are_named():
    fabric, model, optimizer = broken()
    with pytest.raises(StateError, match=r"not finite.*: 0\.bias, 1\.bias, 2\.bias, 3\.bias, 4\.bias …\. Pass error_if_nonfinite=False"):
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
    assert not torch.isfinite(fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False))


def test_five_names_need_no_dots():
    module = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(5)])
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    assert "3.weight, 4.weight. Pass" in non_finite(module, 2.0)
    assert "none on this rank" in non_finite(nn.Linear(1, 1), 2.0)


def test_clipping_past_an_optimizer_that_unscales_is_unsupported():
    fabric, module = one(plugins=MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))), nn.Linear(1, 1)
    model, optimizer = fabric.setup(module, torch.optim.AdamW(module.parameters(), fused=True))
    with pytest.raises(UnsupportedError, match="fused=False"):
        fabric.clip_gradients(model, optimizer, max_norm=1.0)


def test_gradient_sync_needs_a_module_that_was_set_up():
    with (
        pytest.raises(ConfigTypeError, match=r"set up the model first.*model = fabric.setup\(model, ...\)"),
        one().no_backward_sync(nn.Linear(1, 1)),
    ):
        pass


def test_a_tensor_of_several_elements_is_no_scalar():
    with pytest.raises(ConfigError, match=r"log\('loss'\): a tensor of shape \(2,\) cannot be converted to a scalar\."):
        one().log("loss", torch.ones(2))
    with pytest.raises(ConfigError, match=r"cannot be converted to a scalar\."):
        one().log_dict({"a": 1.0, "b": torch.ones(0)})


def test_the_logger_of_none_is_a_state_error():
    assert one().loggers == []
    with pytest.raises(StateError, match=r"has no logger. Pass one: Fabric\(loggers="):
        one().logger  # noqa: B018 - the access is the test


def test_an_unknown_reduction_is_refused_also_on_one_device():
    with pytest.raises(ConfigError, match="Did you mean 'sum'"):
        one().all_reduce(torch.ones(1), reduce_op="sun")


def test_an_unknown_axis_is_refused_also_on_one_device():
    fabric = one()
    assert fabric.all_reduce(2.0, group="dp").item() == 2.0
    for collective in (fabric.all_reduce, fabric.all_gather):
        with pytest.raises(ConfigError, match=r"mesh axis 'dp_shrad' does not exist\. Did you mean 'dp_shard'"):
            collective(2.0, group="dp_shrad")


def test_keywords_only_by_position_are_dropped():
    def hook(loss: float, /, *, step: int) -> None: ...

    assert accepted(hook, {"loss": 1.0, "step": 2, "more": 3}) == {"step": 2}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_bounds_is_refused(seed):
    with pytest.raises(ConfigError, match="is not in bounds"):
        Fabric.seed_everything(seed)


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_state_must_be_a_dictionary(tmp_path):
    fabric = one()
    with pytest.raises(ConfigTypeError, match="should be a dictionary of names to objects, not Linear"):
        fabric.save(tmp_path / "a.ckpt", nn.Linear(1, 1))
    fabric.save(tmp_path / "a.ckpt", {})
    with pytest.raises(ConfigTypeError, match="should be a dictionary of objects to restore, not Linear"):
        fabric.load(tmp_path / "a.ckpt", nn.Linear(1, 1))


def test_filters_must_fit_the_state(tmp_path):
    fabric, state = one(), {"model": nn.Linear(1, 1)}
    with pytest.raises(ConfigTypeError, match="should be a dictionary, one function per key"):
        fabric.save(tmp_path / "a.ckpt", state, filter=lambda name, value: True)
    with pytest.raises(ConfigTypeError, match=r"filter\['model'\] should be a function \(name, value\) -> bool, not str"):
        fabric.save(tmp_path / "a.ckpt", state, filter={"model": "bias"})
    with pytest.raises(ConfigError, match=r"'modle', which is not in state\. Did you mean 'model'"):
        fabric.save(tmp_path / "a.ckpt", state, filter={"modle": lambda name, value: True})
    assert not (tmp_path / "a.ckpt").exists()


def test_a_missing_key_is_named_unless_it_may_be_missing(tmp_path):
    fabric, other = one(), nn.Linear(1, 1)
    fabric.save(tmp_path / "a.ckpt", {"model": nn.Linear(1, 1), "step": 1})
    with pytest.raises(CheckpointKeyError, match="extra"):
        fabric.load(tmp_path / "a.ckpt", {"model": other, "extra": 0})
    state = {"step": 0, "extra": 0}
    assert set(fabric.load(tmp_path / "a.ckpt", state, strict=False)) == {"model"}
    assert state == {"step": 1, "extra": 0}


def test_a_checkpoint_that_is_not_there_says_what_is(tmp_path):
    fabric = one()
    fabric.save(tmp_path / "step-1.ckpt", {"step": 1})
    with pytest.raises(NotFoundError, match=r"step-1\.ckpt"):
        fabric.load(tmp_path / "step-2.ckpt")


def test_what_a_strategy_brings_along_is_not_given_again():
    with pytest.raises(ConfigError, match="strategy class"):
        Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(parallel_devices=[torch.device("cpu")] * 2))


@pytest.mark.parametrize("loggers", ["csv", [3], [CSVLogger]])
def test_what_is_no_logger_is_refused_at_once(loggers):
    with pytest.raises(ConfigTypeError, match="expected a logger object"):
        Fabric(accelerator="cpu", devices=1, loggers=loggers)
