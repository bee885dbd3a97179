"""The strategies by name: ours with their presets, registered ones, and those of entry points in `leyden.fabric.strategies`."""

from typing import Any

from leyden.fabric.registry import Registry

_PACKAGE = "leyden.fabric.strategies"
_DDP_STARTS = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}


class StrategyRegistry(Registry):
    """Names of strategies.

    Example:
        >>> STRATEGY_REGISTRY.entry("ddp_spawn").options["start_method"]
        'spawn'
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("strategy", "leyden.fabric.strategies", **options)

    def available_strategies(self) -> list[str]:
        """Return the names of the strategies, sorted, those of entry points included."""
        self.discover()
        return list(self)


STRATEGY_REGISTRY = StrategyRegistry()


def _register_ddp() -> None:
    for name, start_method in _DDP_STARTS.items():
        target, text = f"{_PACKAGE}.ddp:DDPStrategy", f"replicas, gradients averaged; ranks started by {start_method}"
        STRATEGY_REGISTRY.register(name, target, text, start_method=start_method)
        for word, find in (("true", True), ("false", False)):
            STRATEGY_REGISTRY.register(
                f"{name}_find_unused_parameters_{word}",
                target,
                f"{text}; find_unused_parameters={find}",
                start_method=start_method,
                find_unused_parameters=find,
            )


def _register_deepspeed() -> None:
    offload = {"offload_optimizer": True, "offload_parameters": True}
    nvme = {"remote_device": "nvme", "offload_params_device": "nvme", "offload_optimizer_device": "nvme"}
    presets: dict[str, tuple[str, dict[str, Any]]] = {
        "deepspeed": ("DeepSpeed ZeRO, stage 2", {}),
        "deepspeed_stage_1": ("ZeRO: optimizer states sharded", {"stage": 1}),
        "deepspeed_stage_1_offload": ("… and kept on the CPU", {"stage": 1, "offload_optimizer": True}),
        "deepspeed_stage_2": ("ZeRO: gradients sharded too", {"stage": 2}),
        "deepspeed_stage_2_offload": ("… optimizer on the CPU", {"stage": 2, "offload_optimizer": True}),
        "deepspeed_stage_3": ("ZeRO: parameters sharded too", {"stage": 3}),
        "deepspeed_stage_3_offload": ("… optimizer and parameters on the CPU", {"stage": 3, **offload}),
        "deepspeed_stage_3_offload_nvme": ("… on an NVMe disk", {"stage": 3, **offload, **nvme}),
    }
    for name, (text, options) in presets.items():
        STRATEGY_REGISTRY.register(name, f"{_PACKAGE}.deepspeed:DeepSpeedStrategy", text, **options)


STRATEGY_REGISTRY.register("single_device", f"{_PACKAGE}.single:SingleDeviceStrategy", "one process, one device")
_register_ddp()
STRATEGY_REGISTRY.register("fsdp", f"{_PACKAGE}.fsdp:FSDPStrategy", "parameters, gradients and optimizer states sharded")
STRATEGY_REGISTRY.register("fsdp_cpu_offload", f"{_PACKAGE}.fsdp:FSDPStrategy", "… and kept on the CPU", cpu_offload=True)
STRATEGY_REGISTRY.register(
    "model_parallel", f"{_PACKAGE}.model_parallel:ModelParallelStrategy", "data and tensor parallel; needs parallelize_fn"
)
_register_deepspeed()
