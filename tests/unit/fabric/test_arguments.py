"""From arguments, environment and machine to a plan: a table for each rule, for machines we do not have.

Long because the rules are one table each, and belong side by side.
"""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnavailableError, UnsupportedError
from leyden.fabric.accelerators import CPUAccelerator, CUDAAccelerator
from leyden.fabric.arguments import Plan, Probe, RawArguments, probe_machine, resolve
from leyden.fabric.checkpoint.plugin import CheckpointIO
from leyden.fabric.environments.kubeflow import KubeflowEnvironment
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.environments.slurm import SLURMEnvironment
from leyden.fabric.environments.torchrun import TorchElasticEnvironment
from leyden.fabric.precision.double import DoublePrecision
from leyden.fabric.precision.mixed import MixedPrecision
from leyden.fabric.precision.precision import Precision
from leyden.fabric.precision.registry import PRECISION_REGISTRY, check_name, full_name, register_precision, remove_precision
from leyden.fabric.strategies.ddp import DDPStrategy
from leyden.fabric.strategies.fsdp import FSDPStrategy
from leyden.fabric.strategies.model_parallel import ModelParallelStrategy
from leyden.fabric.strategies.registry import STRATEGY_REGISTRY
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support import launchers

LAPTOP = Probe(device_counts={"cpu": 1, "cuda": 0, "mps": 0, "xpu": 0})
SERVER = Probe(device_counts={"cpu": 1, "cuda": 4, "mps": 0, "xpu": 0}, current="cuda")
ONE_GPU = Probe(device_counts={"cpu": 1, "cuda": 1, "mps": 0, "xpu": 0}, current="cuda")
MAC = Probe(device_counts={"cpu": 1, "cuda": 0, "mps": 1, "xpu": 0}, current="mps")
CPU, GPU = torch.device("cpu"), [torch.device("cuda", index) for index in range(8)]


class MemoryCheckpoints(CheckpointIO):
    def save_checkpoint(self, checkpoint, path, storage_options=None): ...
    def load_checkpoint(self, path, map_location=None, weights_only=None):
        return {}

    def remove_checkpoint(self, path): ...


def plan(probe: Probe = LAPTOP, environ: dict[str, str] | None = None, **arguments: object) -> Plan:
    return resolve(RawArguments(**arguments), environ or {}, probe)


def refusal(error: type[Exception], probe: Probe = LAPTOP, environ: dict[str, str] | None = None, **arguments: object) -> str:
    with pytest.raises(error) as found:
        plan(probe, environ, **arguments)
    return str(found.value)


# -- devices and accelerators ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "arguments", "devices", "strategy"),
    [
        pytest.param(LAPTOP, {}, [CPU], SingleDeviceStrategy, id="laptop"),
        pytest.param(SERVER, {}, GPU[:4], DDPStrategy, id="server"),
        pytest.param(ONE_GPU, {}, GPU[:1], SingleDeviceStrategy, id="one GPU"),
        pytest.param(MAC, {}, [torch.device("mps", 0)], SingleDeviceStrategy, id="mac"),
        pytest.param(SERVER, {"accelerator": "cpu"}, [CPU], SingleDeviceStrategy, id="cpu of a server"),
        pytest.param(LAPTOP, {"devices": 3}, [CPU] * 3, DDPStrategy, id="three processes"),
        pytest.param(SERVER, {"accelerator": "GPU", "devices": 2}, GPU[:2], DDPStrategy, id="two GPUs"),
        pytest.param(SERVER, {"devices": "1,3"}, [GPU[1], GPU[3]], DDPStrategy, id="two ids"),
        pytest.param(SERVER, {"devices": [2]}, [GPU[2]], SingleDeviceStrategy, id="one id"),
        pytest.param(SERVER, {"devices": -1}, GPU[:4], DDPStrategy, id="all"),
        pytest.param(SERVER, {"strategy": "single_device"}, GPU[:1], SingleDeviceStrategy, id="one of four"),
        pytest.param(SERVER, {"strategy": "DDP", "devices": 1}, GPU[:1], DDPStrategy, id="ddp on one"),
        pytest.param(LAPTOP, {"accelerator": None}, [CPU], SingleDeviceStrategy, id="None is auto"),
        pytest.param(SERVER, {"accelerator": CPUAccelerator()}, [CPU], SingleDeviceStrategy, id="accelerator object"),
    ],
)
def test_devices_and_strategy_are_found(probe, arguments, devices, strategy):
    found = plan(probe, **arguments)
    assert found.devices == devices
    assert type(found.strategy) is strategy
    assert found.num_ranks == len(devices)


def test_several_nodes_are_parallel_even_with_one_device_each():
    found = plan(LAPTOP, {"MASTER_PORT": "29400"}, num_nodes=2)
    assert isinstance(found.strategy, DDPStrategy)
    assert (found.num_nodes, found.num_ranks, found.strategy.num_nodes) == (2, 2, 2)


@pytest.mark.parametrize("devices", [None, True, 1.5, {1}], ids=repr)
def test_devices_of_other_types_are_refused(devices):
    assert repr(devices) in refusal(ConfigTypeError, devices=devices)


def test_zero_devices_is_refused():
    assert "not a valid input" in refusal(ConfigError, devices=0)


def test_more_gpus_than_there_are_is_refused_with_those_present():
    assert "[0, 1, 2, 3]" in refusal(ConfigError, SERVER, devices=5)


@pytest.mark.parametrize("num_nodes", [0, -1])
def test_less_than_one_node_is_refused(num_nodes):
    assert "int > 0" in refusal(ConfigError, num_nodes=num_nodes)


@pytest.mark.parametrize("num_nodes", [True, 1.0, "2", None], ids=repr)
def test_nodes_are_an_integer(num_nodes):
    assert "int > 0" in refusal(ConfigTypeError, num_nodes=num_nodes)


def test_an_absent_accelerator_is_unavailable():
    assert "Available are 'cpu'" in refusal(UnavailableError, accelerator="cuda")


def test_this_machine_can_be_planned_for(monkeypatch):
    found = resolve(RawArguments(accelerator="cpu"))
    assert found.devices == [CPU]
    assert not probe_machine().interactive


def test_a_misspelled_setting_is_reported(monkeypatch):
    monkeypatch.setenv("LEYDEN_FABRIC_PRECISON", "bf16-mixed")
    with pytest.warns(UserWarning, match="Did you mean 'LEYDEN_FABRIC_PRECISION'"):
        resolve(RawArguments(accelerator="cpu"))


# -- notebooks ---------------------------------------------------------------------------------------------------


def test_a_notebook_takes_one_of_several_gpus_and_says_so(caplog):
    with caplog.at_level("INFO"):
        found = plan(replace(SERVER, interactive=True))
    assert found.devices == GPU[:1]
    assert "devices=4 for all" in caplog.text


def test_a_notebook_forks_where_several_are_asked_for():
    found = plan(replace(SERVER, interactive=True), devices=2)
    assert found.strategy.start_method == "fork"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "ddp_spawn"])
def test_a_notebook_cannot_start_a_script_again(strategy):
    assert 'strategy="ddp_notebook"' in refusal(ConfigError, replace(LAPTOP, interactive=True), strategy=strategy, devices=2)


def test_cuda_that_was_used_is_not_forked():
    probe = replace(SERVER, cuda_initialised=True)
    assert "restart the kernel" in refusal(StateError, probe, strategy="ddp_fork", devices=2)
    assert plan(probe, strategy="ddp_fork", accelerator="cpu", devices=2).devices == [CPU, CPU]


def test_a_platform_without_fork_spawns():
    assert 'strategy="ddp_spawn"' in refusal(ConfigError, replace(LAPTOP, fork_available=False), strategy="ddp_fork", devices=2)


def test_started_ranks_need_no_start_method():
    probe = replace(SERVER, interactive=True, fork_available=False)
    assert plan(probe, launchers.torchrun(0), strategy="ddp").num_ranks == 4


# -- launchers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "environment"),
    [
        pytest.param(launchers.torchrun(3, world_size=8, per_node=4), TorchElasticEnvironment, id="torchrun"),
        pytest.param(launchers.slurm(3, world_size=8, per_node=4), SLURMEnvironment, id="slurm"),
    ],
)
@pytest.mark.parametrize("probe", [LAPTOP, SERVER], ids=["cpu", "gpu"])
def test_untouched_devices_and_nodes_follow_the_launcher(environ, environment, probe):
    found = plan(probe, environ)
    assert isinstance(found.environment, environment)
    assert (len(found.devices), found.num_nodes, found.num_ranks) == (4, 2, 8)
    assert isinstance(found.strategy, DDPStrategy)
    assert found.strategy.global_rank == 3


def test_an_explicit_agreement_with_the_launcher_is_taken():
    assert plan(SERVER, launchers.torchrun(0, world_size=8, per_node=4), devices=4, num_nodes=2).num_ranks == 8


def test_disagreement_with_the_launcher_has_both_products():
    text = refusal(ConfigError, SERVER, launchers.torchrun(0, world_size=8, per_node=4), devices=2)
    assert "devices=2 * num_nodes=2 = 4" in text
    assert "started 8 (4 per node * 2 nodes)" in text


def test_a_rank_that_sees_one_gpu_uses_the_first():
    found = plan(ONE_GPU, launchers.slurm(1, world_size=4, per_node=4))
    assert found.devices == [GPU[0]] * 4
    assert plan(ONE_GPU, launchers.slurm(1, world_size=4, per_node=4), devices=[0, 1, 2, 3]).devices == [GPU[0]] * 4
    assert found.strategy.root_device == GPU[0]


def test_one_gpu_is_not_shared_by_ranks_we_start_ourselves():
    assert "[1] are not there" in refusal(ConfigError, ONE_GPU, devices=2)


def test_one_rank_of_a_launcher_is_single():
    assert isinstance(plan(LAPTOP, launchers.torchrun(0, world_size=1, per_node=1)).strategy, SingleDeviceStrategy)


def test_several_nodes_by_hand_need_a_port():
    assert "MASTER_PORT" in refusal(ConfigError, num_nodes=2)


def test_a_plugin_environment_is_taken_as_it_is():
    mine = KubeflowEnvironment(environ=launchers.kubeflow(2))
    found = plan(LAPTOP, plugins=mine)
    assert found.environment is mine is found.strategy.cluster_environment
    assert (len(found.devices), found.num_nodes) == (1, 4)


# -- variables ---------------------------------------------------------------------------------------------------

VARIABLES = [
    ("LT_ACCELERATOR", "cpu", {"accelerator": "cuda"}, lambda found: found.accelerator.name == "cpu"),
    ("LT_STRATEGY", "fsdp", {"strategy": "ddp"}, lambda found: isinstance(found.strategy, FSDPStrategy)),
    ("LT_DEVICES", "2", {"devices": 3}, lambda found: len(found.devices) == 2),
    ("LT_NUM_NODES", "2", {"num_nodes": 3}, lambda found: found.num_nodes == 2),
    ("LT_PRECISION", "bf16-true", {"precision": "64-true"}, lambda found: found.precision.precision == "bf16-true"),
]


@pytest.mark.parametrize(("name", "value", "other", "holds"), VARIABLES, ids=[row[0] for row in VARIABLES])
class TestVariables:
    port: ClassVar[dict[str, str]] = {"MASTER_PORT": "29400"}

    def test_replaces_an_untouched_argument_silently(self, name, value, other, holds):
        assert holds(plan(SERVER, {**self.port, name: value}))

    def test_our_own_name_wins(self, name, value, other, holds):
        ours = name.replace("LT_", "LEYDEN_FABRIC_")
        assert holds(plan(SERVER, {**self.port, name: str(*other.values()), ours: value}))

    def test_replaces_an_explicit_argument_with_a_warning(self, name, value, other, holds):
        with pytest.warns(UserWarning, match=f"is replaced by the environment variable {name}='?{value}'?"):
            assert holds(plan(SERVER, {**self.port, name: value}, **other))

    def test_the_command_line_does_not_contradict_the_code(self, name, value, other, holds):
        text = refusal(ConfigError, SERVER, {**self.port, name: value, "LT_CLI_USED": "1"}, **other)
        assert repr(*other.values()) in text
        assert f"--{name[3:].lower().replace('_', '-')}={value}" in text


@pytest.mark.parametrize(
    ("variable", "arguments"),
    [
        ({"LT_DEVICES": "2"}, {"devices": 2}),
        ({"LT_DEVICES": "0,2"}, {"devices": [0, 2]}),
        ({"LT_DEVICES": "1,"}, {"devices": [1]}),
        ({"LT_ACCELERATOR": "cuda"}, {"accelerator": "CUDA"}),
        ({"LT_ACCELERATOR": "cuda"}, {"accelerator": None}),
        ({"LT_STRATEGY": "ddp"}, {"strategy": "ddp"}),
        ({"LT_PRECISION": "16-true"}, {"precision": "16-true"}),
    ],
    ids=repr,
)
def test_the_command_line_may_say_the_same(variable, arguments):
    plan(SERVER, {**variable, "LT_CLI_USED": "1"}, **arguments)  # warnings are errors


def test_a_variable_that_is_no_number_is_named():
    assert "LT_NUM_NODES='two'" in refusal(ConfigError, environ={"LT_NUM_NODES": "two"})


# -- plug-ins ----------------------------------------------------------------------------------------------------


def test_plugins_find_their_places():
    precision, checkpoints, environment = DoublePrecision(), MemoryCheckpoints(), LightningEnvironment(environ={})
    found = plan(plugins=[checkpoints, precision, environment])
    assert found.precision is precision is found.strategy.precision
    assert found.checkpoint_io is checkpoints is found.strategy.checkpoint_io
    assert found.environment is environment is found.strategy.cluster_environment


@pytest.mark.parametrize("plugin", ["ddp", 3, object, CPUAccelerator()], ids=["text", "number", "class", "accelerator"])
def test_plugins_of_no_kind_are_refused(plugin):
    assert "Accepted are objects of Precision, CheckpointIO, ClusterEnvironment" in refusal(ConfigTypeError, plugins=[plugin])


def test_two_plugins_of_a_kind_are_refused():
    assert "two of Precision" in refusal(ConfigError, plugins=[Precision(), DoublePrecision()])
    assert "two of CheckpointIO" in refusal(ConfigError, plugins=[MemoryCheckpoints(), MemoryCheckpoints()])


def test_a_precision_and_its_plugin_are_one_too_many():
    assert "choose one" in refusal(ConfigError, precision="bf16-mixed", plugins=DoublePrecision())


# -- strategies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start_method"), [("ddp", "popen"), ("ddp_spawn", "spawn"), ("ddp_fork", "fork"), ("ddp_notebook", "fork")]
)
def test_ddp_presets_start_as_they_say(name, start_method):
    found = plan(strategy=name, devices=2).strategy
    assert isinstance(found, DDPStrategy)
    assert found.start_method == start_method
    assert found.parallel_devices == [CPU, CPU]


@pytest.mark.parametrize("base", ["ddp", "ddp_spawn", "ddp_fork", "ddp_notebook"])
@pytest.mark.parametrize(("suffix", "value"), [("true", True), ("false", False)])
def test_ddp_presets_find_unused_parameters_as_they_say(base, suffix, value):
    entry = STRATEGY_REGISTRY.entry(f"{base}_find_unused_parameters_{suffix}")
    assert entry.options["find_unused_parameters"] is value
    assert entry.options["start_method"] == STRATEGY_REGISTRY.entry(base).options["start_method"]
    assert isinstance(plan(strategy=entry.name, devices=2).strategy, DDPStrategy)


@pytest.mark.parametrize("name", ["fsdp", "FSDP", "fsdp_cpu_offload"])
def test_fsdp_runs_on_the_cpu_too(name):
    assert isinstance(plan(strategy=name, devices=2).strategy, FSDPStrategy)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deepspeed", {}),
        ("deepspeed_stage_1", {"stage": 1}),
        ("deepspeed_stage_1_offload", {"stage": 1, "offload_optimizer": True}),
        ("deepspeed_stage_2", {"stage": 2}),
        ("deepspeed_stage_2_offload", {"stage": 2, "offload_optimizer": True}),
        ("deepspeed_stage_3", {"stage": 3}),
        ("deepspeed_stage_3_offload", {"stage": 3, "offload_optimizer": True, "offload_parameters": True}),
    ],
)
def test_deepspeed_presets_have_their_stages(name, options):
    entry = STRATEGY_REGISTRY.entry(name)
    assert entry.options == options
    assert entry.target == "leyden.fabric.strategies.deepspeed:DeepSpeedStrategy"


def test_deepspeed_on_nvme_offloads_everything_there():
    options = STRATEGY_REGISTRY.entry("deepspeed_stage_3_offload_nvme").options
    assert options["stage"] == 3
    assert {value for key, value in options.items() if key.endswith("device")} == {"nvme"}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("dp", "ddp"),
        ("fsdp_native", "fsdp"),
        ("ddp_sharded", "fsdp"),
        ("ddp_sharded_spawn", "fsdp"),
        ("horovod", "ddp"),
        ("colossalai", "fsdp or deepspeed"),
        ("tpu", "TPUs are not supported"),
        ("xla", "TPUs are not supported"),
        ("xla_fsdp", "TPUs are not supported"),
    ],
)
def test_strategies_of_other_days_name_their_replacement(name, instead):
    text = refusal(ConfigError, strategy=name)
    assert f"strategy={name!r}" in text
    assert instead in text


def test_an_unknown_strategy_gets_the_closest():
    assert "Did you mean 'fsdp'?" in refusal(ConfigError, strategy="fdsp")


@pytest.mark.parametrize("strategy", [None, 3, DDPStrategy], ids=["None", "number", "class"])
def test_strategies_of_other_types_are_refused(strategy):
    assert "or a Strategy" in refusal(ConfigTypeError, strategy=strategy)


def test_model_parallel_by_name_shows_the_constructor():
    assert "ModelParallelStrategy(parallelize_fn=my_function)" in refusal(ConfigError, strategy="model_parallel")


def test_parallel_strategies_do_not_run_on_mps():
    assert "one device" in refusal(ConfigError, MAC, strategy="ddp")


def test_one_device_is_not_several():
    assert "runs on one device" in refusal(ConfigError, strategy="single_device", devices=2)
    assert "runs on one device" in refusal(ConfigError, environ={"MASTER_PORT": "1"}, strategy="single_device", num_nodes=2)


def test_a_registered_strategy_is_found_in_any_case():
    STRATEGY_REGISTRY.register("mine", DDPStrategy, start_method="spawn")
    try:
        assert plan(strategy="MINE", devices=2).strategy.start_method == "spawn"
        assert "mine" in STRATEGY_REGISTRY.available_strategies()
    finally:
        STRATEGY_REGISTRY.remove("mine")


@pytest.mark.parametrize(
    ("strategy", "arguments", "name", "argument"),
    [
        (lambda: DDPStrategy(accelerator=CPUAccelerator()), {"accelerator": "cpu"}, "accelerator", "accelerator"),
        (lambda: DDPStrategy(precision=Precision()), {"precision": "32-true"}, "precision", "precision"),
        (lambda: DDPStrategy(precision=Precision()), {"plugins": Precision()}, "precision", "plugins"),
        (lambda: DDPStrategy(checkpoint_io=MemoryCheckpoints()), {"plugins": MemoryCheckpoints()}, "checkpoint_io", "plugins"),
        (
            lambda: DDPStrategy(cluster_environment=LightningEnvironment(environ={})),
            {"plugins": LightningEnvironment(environ={})},
            "cluster_environment",
            "plugins",
        ),
        (lambda: DDPStrategy(parallel_devices=[CPU, CPU]), {"devices": 2}, "parallel_devices", "devices"),
    ],
    ids=["accelerator", "precision", "precision plug-in", "checkpoint_io", "cluster_environment", "parallel_devices"],
)
def test_what_the_strategy_carries_is_not_given_again(strategy, arguments, name, argument):
    text = refusal(ConfigError, strategy=strategy(), **arguments)
    assert text == f"{name} set through both strategy class and {argument}, choose one."


def test_what_the_strategy_carries_is_used():
    precision, checkpoints, environment = DoublePrecision(), MemoryCheckpoints(), LightningEnvironment(environ={})
    accelerator = CPUAccelerator()
    strategy = DDPStrategy(accelerator, [CPU, CPU], environment, checkpoints, precision)
    found = plan(SERVER, strategy=strategy)
    assert found.strategy is strategy
    assert (found.accelerator, found.environment, found.checkpoint_io, found.precision) == (
        accelerator,
        environment,
        checkpoints,
        precision,
    )
    assert found.devices == [CPU, CPU]


def test_devices_of_the_strategy_imply_the_accelerator():
    assert isinstance(plan(SERVER, strategy=SingleDeviceStrategy("cpu")).accelerator, CPUAccelerator)
    found = plan(SERVER, strategy=DDPStrategy(parallel_devices=[GPU[1], GPU[2]]))
    assert isinstance(found.accelerator, CUDAAccelerator)
    assert found.devices == [GPU[1], GPU[2]]


def test_devices_of_the_strategy_contradict_another_accelerator():
    assert "runs on cpu" in refusal(ConfigError, SERVER, strategy=SingleDeviceStrategy("cpu"), accelerator="cuda")
    assert "runs on cpu" in refusal(ConfigError, SERVER, strategy=DDPStrategy(CUDAAccelerator(), [CPU]))


def test_a_device_of_the_strategy_is_one_device():
    assert plan(SERVER, strategy=SingleDeviceStrategy("cuda:2"), devices=1).devices == [GPU[2]]
    assert "runs on cuda:2 alone" in refusal(ConfigError, SERVER, strategy=SingleDeviceStrategy("cuda:2"), devices=2)


def test_the_strategy_is_configured():
    strategy = FSDPStrategy()
    found = plan(SERVER, {"MASTER_PORT": "29400"}, strategy=strategy, devices=2, num_nodes=3, precision="bf16-mixed")
    assert found.strategy is strategy
    assert (strategy.accelerator, strategy.precision, strategy.cluster_environment) == (
        found.accelerator,
        found.precision,
        found.environment,
    )
    assert (strategy.num_nodes, strategy.parallel_devices) == (3, GPU[:2])


def test_the_single_device_is_the_one_that_was_asked_for():
    assert plan(SERVER, devices=[3]).strategy.root_device == GPU[3]


# -- precision ---------------------------------------------------------------------------------------------------

PARALLELIZE = {"parallelize_fn": lambda module, device_mesh: module}
KINDS = {
    "plain": DDPStrategy,
    "fsdp": FSDPStrategy,
    "model_parallel": lambda: ModelParallelStrategy(**PARALLELIZE),
}
TABLE = {  # name → class by kind; None = does not go together
    "32-true": {"plain": "Precision", "fsdp": "FSDPPrecision", "model_parallel": "Precision"},
    "16-true": {"plain": "HalfPrecision", "fsdp": "FSDPPrecision", "model_parallel": "HalfPrecision"},
    "bf16-true": {"plain": "HalfPrecision", "fsdp": "FSDPPrecision", "model_parallel": "HalfPrecision"},
    "64-true": {"plain": "DoublePrecision", "fsdp": None, "model_parallel": None},
    "bf16-mixed": {"plain": "MixedPrecision", "fsdp": "FSDPPrecision", "model_parallel": "MixedPrecision"},
    "16-mixed": {"plain": "MixedPrecision", "fsdp": "FSDPPrecision", "model_parallel": None},
}


@pytest.mark.filterwarnings("ignore:.*GradScaler.*:UserWarning")  # the GPUs of this machine are invented
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TABLE)
def test_precision_and_strategy_go_together_or_are_refused(name, kind):
    expected = TABLE[name][kind]
    if expected is None:
        assert f"precision={name!r} does not go with the {kind} strategy" in refusal(
            ConfigError, SERVER, strategy=KINDS[kind](), precision=name
        )
        return
    found = plan(SERVER, strategy=KINDS[kind](), precision=name)
    assert type(found.precision).__name__ == expected
    assert found.precision.precision == name
    assert found.strategy.precision is found.precision


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("plain", set()),
        ("fsdp", {"64-true", "transformer-engine", "transformer-engine-float16"}),
        ("model_parallel", {"64-true", "16-mixed", "transformer-engine", "transformer-engine-float16"}),
        ("deepspeed", {"64-true", "float8", "transformer-engine", "transformer-engine-float16"}),
    ],
)
def test_every_cell_of_the_table(kind, refused):
    for name in PRECISION_REGISTRY:
        if name in refused:
            with pytest.raises(UnsupportedError, match="Use precision="):
                check_name(name, kind)
        else:
            check_name(name, kind)


@pytest.mark.parametrize(
    ("short", "full"), [(32, "32-true"), ("32", "32-true"), (64, "64-true"), ("64", "64-true"), (16, "16-mixed")], ids=repr
)
def test_short_names(short, full, recwarn):
    assert full_name(short) == full


@pytest.mark.parametrize(("short", "full"), [("16", "16-mixed"), ("bf16", "bf16-mixed")])
def test_short_names_that_are_a_guess_warn_with_the_full_one(short, full):
    with pytest.warns(UserWarning, match=f"write precision='{full}'"):
        assert full_name(short) == full


def test_an_unknown_precision_gets_the_closest_and_all():
    text = refusal(ConfigError, precision="bf16-mixd")
    assert "Did you mean 'bf16-mixed'?" in text
    assert all(repr(name) in text for name in TABLE)


@pytest.mark.parametrize("precision", [True, 16.0, DoublePrecision(), ["16-mixed"]], ids=["bool", "float", "object", "list"])
def test_precisions_of_other_types_are_refused(precision):
    assert "goes into plugins" in refusal(ConfigTypeError, precision=precision)


@pytest.mark.parametrize("strategy", ["auto", "fsdp"])
def test_float16_on_the_cpu_becomes_bfloat16_with_a_warning(strategy):
    with pytest.warns(UserWarning, match='"bf16-mixed" is used instead'):
        assert plan(strategy=strategy, precision="16-mixed").precision.precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("strategy", "plugin"),
    [
        (KINDS["fsdp"], DoublePrecision()),
        (KINDS["fsdp"], MixedPrecision("bf16-mixed", "cpu")),
        (KINDS["model_parallel"], DoublePrecision()),
        (KINDS["model_parallel"], MixedPrecision("16-mixed", "cpu")),
    ],
    ids=["fsdp double", "fsdp mixed", "model_parallel double", "model_parallel float16"],
)
def test_precision_plugins_that_do_not_fit_are_refused(strategy, plugin):
    assert f"{type(plugin).__name__} does not go with" in refusal(UnsupportedError, strategy=strategy(), plugins=plugin)


def test_a_precision_of_the_users_own_goes_with_every_strategy():
    class Mine(Precision):
        pass

    for strategy in KINDS.values():
        assert isinstance(plan(strategy=strategy(), plugins=Mine()).precision, Mine)


def test_a_registered_precision_is_made_from_the_plan():
    class Mine(Precision):
        def __init__(self, device):
            self.device = device

    register_precision("mine", lambda context: Mine(context.device), aliases=["my-own"])
    try:
        for name in ("mine", "MINE", "my-own"):
            assert plan(SERVER, precision=name).precision.device == GPU[0]
        with pytest.raises(ConfigError, match="registered already"):
            register_precision("other", lambda context: Precision(), aliases=["my-own"])
        register_precision("wrong", lambda context: 3)
        assert "should return a Precision" in refusal(ConfigTypeError, precision="wrong")
    finally:
        for name in ("mine", "wrong"):
            if name in PRECISION_REGISTRY:
                remove_precision(name)
    assert "'my-own' is not known" in refusal(ConfigError, precision="my-own")
