"""DeepSpeed's configuration, as rules of dictionaries: from documented arguments, from a file, and made to agree with the loop.

A Fabric loop decides itself when it steps and on what batch. So `complete` fills in what DeepSpeed insists on knowing and
refuses what contradicts the loop or has no effect. Nothing here imports deepspeed.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError, listed

VARIABLE = "LEYDEN_DEEPSPEED_CONFIG"
DOCUMENTATION = "https://www.deepspeed.ai/docs/config-json/"
OFFLOAD_DEVICES = ("cpu", "nvme")
HALF_SECTIONS = {"16-true": "fp16", "16-mixed": "fp16", "bf16-true": "bf16", "bf16-mixed": "bf16"}
# What DeepSpeed's file may call `bf16`.
_OLD_NAMES = {"bfloat16": "bf16"}
# The arguments that make a configuration, with their documented defaults; a configuration of one's own replaces them all.
OPTIONS: dict[str, Any] = {
    "zero_optimization": True,
    "stage": 2,
    "remote_device": None,
    "offload_optimizer": False,
    "offload_parameters": False,
    "offload_params_device": "cpu",
    "nvme_path": "/local_nvme",
    "params_buffer_count": 5,
    "params_buffer_size": 100_000_000,
    "max_in_cpu": 1_000_000_000,
    "offload_optimizer_device": "cpu",
    "optimizer_buffer_count": 4,
    "block_size": 1_048_576,
    "queue_depth": 8,
    "single_submit": False,
    "overlap_events": True,
    "thread_count": 1,
    "pin_memory": False,
    "sub_group_size": 1_000_000_000_000,
    "contiguous_gradients": True,
    "overlap_comm": True,
    "allgather_partitions": True,
    "reduce_scatter": True,
    "allgather_bucket_size": 200_000_000,
    "reduce_bucket_size": 200_000_000,
    "zero_allow_untested_optimizer": True,
    "partition_activations": False,
    "cpu_checkpointing": False,
    "contiguous_memory_optimization": False,
    "synchronize_checkpoint_boundary": False,
}
_IN_EVERY_CASE = ("remote_device",)  # an argument of `zero.Init`, not a key of the configuration


def given_config(config: Mapping[str, Any] | str | Path | None, environ: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return the configuration that was given as an argument or named by the environment; `None` if there is none.

    Args:
        config: A dictionary, or the path of a JSON file.
        environ: The environment; this process's if absent.

    Raises:
        ConfigTypeError: Something else was given, or the file holds something else.
        ConfigError: There is no such file, or it is no JSON.

    Example:
        >>> given_config({"zero_optimization": {"stage": "auto"}}, {})
        {'zero_optimization': {}}
    """
    name = "config"
    if config is None:
        config = settings.get(VARIABLE, environ)
        name = settings.source(VARIABLE, environ) or VARIABLE
    if config is None:
        return None
    if isinstance(config, (str, Path)):
        path = Path(config).expanduser()
        if not path.is_file():
            raise ConfigError(f"{name}={str(config)!r}: there is no such file. Pass a JSON file as in {DOCUMENTATION}, or a dictionary.")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{name}={str(path)!r} is no JSON: {error}. Mend the file; {DOCUMENTATION} lists its keys.") from error
    if not isinstance(config, Mapping):
        raise ConfigTypeError(f"{name} should be a dictionary or the path of a JSON file that holds one, not {type(config).__name__}.")
    return _without_auto({_OLD_NAMES.get(key, key): copy.deepcopy(value) for key, value in config.items()})


def from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that the documented arguments stand for.

    Raises:
        ConfigTypeError: `stage` is no integer.
        ConfigError: A stage or device that does not exist, or an offload that the stage cannot do.
    """
    check_options(options)
    config: dict[str, Any] = {
        "activation_checkpointing": {
            "partition_activations": options["partition_activations"],
            "cpu_checkpointing": options["cpu_checkpointing"],
            "contiguous_memory_optimization": options["contiguous_memory_optimization"],
            "synchronize_checkpoint_boundary": options["synchronize_checkpoint_boundary"],
        },
        "zero_allow_untested_optimizer": options["zero_allow_untested_optimizer"],
    }
    if options["zero_optimization"]:
        config["zero_optimization"] = _zero_section(options)
        if "nvme" in (options["offload_params_device"], options["offload_optimizer_device"], options["remote_device"]):
            aio = ("block_size", "queue_depth", "single_submit", "overlap_events", "thread_count")
            config["aio"] = {name: options[name] for name in aio}
    return config


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse stages, devices and offloads that do not exist or do not go together.

    Raises:
        ConfigTypeError: `stage` is no integer.
        ConfigError: The others.
    """
    stage = options["stage"]
    if isinstance(stage, bool) or not isinstance(stage, int):
        raise ConfigTypeError(f"DeepSpeedStrategy(stage={stage!r}): expected one of 0, 1, 2, 3.")
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"DeepSpeedStrategy(stage={stage}): ZeRO has the stages 0, 1, 2, 3.")
    for name in ("offload_params_device", "offload_optimizer_device"):
        if options[name] not in OFFLOAD_DEVICES:
            raise ConfigError(f"DeepSpeedStrategy({name}={options[name]!r}): accepted are {listed(OFFLOAD_DEVICES)}.")
    if options["remote_device"] not in (None, *OFFLOAD_DEVICES):
        raise ConfigError(f"DeepSpeedStrategy(remote_device={options['remote_device']!r}): accepted are None, {listed(OFFLOAD_DEVICES)}.")
    for name, least in (("offload_parameters", 3), ("offload_optimizer", 1)):
        if options[name] and (stage < least or not options["zero_optimization"]):
            shown = stage if options["zero_optimization"] else "0 (zero_optimization=False)"
            raise ConfigError(f"DeepSpeedStrategy({name}=True) has no effect at stage {shown}: it needs stage={least} or more.")
    if options["offload_optimizer"] and options["offload_optimizer_device"] == "nvme" and stage < 3:
        raise ConfigError(f'DeepSpeedStrategy(offload_optimizer_device="nvme") needs stage=3, not {stage}. Or offload to the CPU.')


def _zero_section(options: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "stage",
        "contiguous_gradients",
        "overlap_comm",
        "allgather_partitions",
        "reduce_scatter",
        "allgather_bucket_size",
        "reduce_bucket_size",
        "sub_group_size",
    )
    zero = {name: options[name] for name in names}
    if options["offload_parameters"]:
        zero["offload_param"] = {
            "device": options["offload_params_device"],
            "nvme_path": options["nvme_path"],
            "buffer_count": options["params_buffer_count"],
            "buffer_size": options["params_buffer_size"],
            "max_in_cpu": options["max_in_cpu"],
            "pin_memory": options["pin_memory"],
        }
    if options["offload_optimizer"]:
        zero["offload_optimizer"] = {
            "device": options["offload_optimizer_device"],
            "nvme_path": options["nvme_path"],
            "buffer_count": options["optimizer_buffer_count"],
            "pin_memory": options["pin_memory"],
        }
    return zero


def refuse_options_beside(config: Mapping[str, Any] | None, options: Mapping[str, Any], name: str = "config") -> None:
    """Refuse arguments that a configuration of one's own makes void.

    Raises:
        ConfigError: There are some.
    """
    if config is None:
        return
    void = {key: value for key, value in options.items() if value != OPTIONS[key] and key not in _IN_EVERY_CASE}
    if void:
        given = ", ".join(f"{key}={value!r}" for key, value in void.items())
        raise ConfigError(f"DeepSpeedStrategy({given}) has no effect beside {name}, which says it all. Write it there, or drop {name}.")


def complete(
    config: Mapping[str, Any], *, precision: str, world_size: int, loss_scaling: Mapping[str, Any], batch_size: int | None
) -> dict[str, Any]:
    """Return what DeepSpeed is started with: precision and batch sizes filled in, and everything in agreement with the loop.

    Args:
        config: From `given_config` or `from_options`.
        precision: The precision's full name.
        world_size: How many ranks.
        loss_scaling: The `fp16` section's options, used if there is no such section.
        batch_size: The batch of one rank, for DeepSpeed's own throughput log only.

    Raises:
        ConfigError: The configuration contradicts the loop, the precision or the number of ranks.

    Example:
        >>> done = complete({}, precision="bf16-mixed", world_size=2, loss_scaling={}, batch_size=None)
        >>> done["train_batch_size"], done["bf16"]
        (2, {'enabled': True})
    """
    done = copy.deepcopy(dict(config))
    _agree_on_steps(done)
    _agree_on_batches(done, world_size, batch_size)
    _agree_on_precision(done, precision, loss_scaling)
    zero = done.setdefault("zero_optimization", {"stage": 0})
    if zero.get("stage", 0) < 2:
        # These reduce at the step, when the loop has no more to accumulate: there is no backward left to overlap with.
        zero["overlap_comm"] = False
    if "offload_optimizer" in zero:
        done.setdefault("zero_force_ds_cpu_optimizer", False)  # the user's optimizer runs on the CPU too; a warning tells the faster one
    done.setdefault("zero_allow_untested_optimizer", True)
    done.setdefault("gradient_clipping", 0.0)  # DeepSpeed would clip to 1.0 where nobody asked for it
    return done


def stage_of(config: Mapping[str, Any]) -> int:
    """Return the ZeRO stage of a configuration.

    Example:
        >>> stage_of({"zero_optimization": {"stage": 3}}), stage_of({})
        (3, 0)
    """
    return int(config.get("zero_optimization", {}).get("stage", 0))


def without_zero(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration for inference: below stage 3 there is nothing to shard without an optimizer."""
    if stage_of(config) == 3:
        return dict(config)
    return {**config, "zero_optimization": {"stage": 0, "overlap_comm": False}}


def check_sections(config: Mapping[str, Any], *, has_optimizer: bool, has_scheduler: bool) -> None:
    """Refuse sections for objects that `setup` gets.

    Raises:
        ConfigError: An `optimizer` section, or a `scheduler` section beside a scheduler.
    """
    if "optimizer" in config:
        way = "`setup` was given one too" if has_optimizer else "`setup` without an optimizer makes a model for inference"
        raise ConfigError(f"the DeepSpeed config has an 'optimizer' section, but {way}. Drop the section: fabric.setup(model, optimizer).")
    if "scheduler" in config and (has_scheduler or not has_optimizer):
        way = "`setup` was given one too" if has_scheduler else "`setup` without an optimizer makes a model for inference"
        raise ConfigError(f"the DeepSpeed config has a 'scheduler' section, but {way}. Drop one of the two.")


def _agree_on_steps(config: dict[str, Any]) -> None:
    steps = config.get("gradient_accumulation_steps", 1)
    if steps != 1:
        raise ConfigError(
            f"the DeepSpeed config has gradient_accumulation_steps={steps!r}, but the loop decides when to step: call fabric.backward() "
            "several times before optimizer.step(). Drop the key, or set it to 1."
        )
    if config.get("managed_gradient_accumulation", False) is not False:
        raise ConfigError(
            "the DeepSpeed config has managed_gradient_accumulation=true, but the loop decides when to step. "
            "Drop the key, or set it to false."
        )
    config["gradient_accumulation_steps"] = 1
    config["managed_gradient_accumulation"] = False


def _agree_on_batches(config: dict[str, Any], world_size: int, batch_size: int | None) -> None:
    micro, whole = config.get("train_micro_batch_size_per_gpu"), config.get("train_batch_size")
    for key, value in (("train_micro_batch_size_per_gpu", micro), ("train_batch_size", whole)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"the DeepSpeed config has {key}={value!r}; it should be an int > 0, or absent: the loop decides.")
    if batch_size is not None and micro not in (None, batch_size):
        raise ConfigError(
            f"logging_batch_size_per_gpu={batch_size}, but the DeepSpeed config has train_micro_batch_size_per_gpu={micro}. "
            "Drop one of the two."
        )
    micro = micro or batch_size
    if whole is not None and micro is None:
        micro = max(1, whole // world_size)
    micro = micro or 1
    if whole not in (None, micro * world_size):
        raise ConfigError(
            f"the DeepSpeed config has train_batch_size={whole}, but {world_size} rank(s) times a batch of {micro} make "
            f"{micro * world_size}. Drop train_batch_size: the loaders decide what a batch is."
        )
    config["train_micro_batch_size_per_gpu"], config["train_batch_size"] = micro, micro * world_size


def _agree_on_precision(config: dict[str, Any], precision: str, loss_scaling: Mapping[str, Any]) -> None:
    wanted = HALF_SECTIONS.get(precision)
    for section in ("fp16", "bf16"):
        enabled = config.get(section, {}).get("enabled")
        if enabled and section != wanted:
            fitting = [name for name, of in HALF_SECTIONS.items() if of == section]
            raise ConfigError(
                f"precision={precision!r}, but the DeepSpeed config enables {section!r}. "
                f"Use precision={fitting[-1]!r}, or drop the section."
            )
        if enabled is False and section == wanted:
            raise ConfigError(f"precision={precision!r}, but the DeepSpeed config disables {section!r}. Drop {section}.enabled.")
    if precision == "64-true":
        raise UnsupportedError("precision='64-true' does not go with DeepSpeed. Use precision='32-true', or another strategy.")
    if wanted is not None:
        section = {**(loss_scaling if wanted == "fp16" else {}), **config.get(wanted, {}), "enabled": True}
        config[wanted] = section


def _without_auto(value: Any) -> Any:
    """Leave out what others than DeepSpeed fill in (`"auto"`): the defaults, or what `complete` knows, take its place."""
    if isinstance(value, Mapping):
        return {key: _without_auto(inner) for key, inner in value.items() if inner != "auto"}
    return value
