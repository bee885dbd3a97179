"""DeepSpeed's ZeRO folders, merged by DeepSpeed's own script in a process of its own.

Only that script knows how ZeRO cut the parameters of each version. It unpickles the folder's files for real, so a warning
says that a DeepSpeed folder has to be trusted. The copy of the script that DeepSpeed puts into the folder is never run.
"""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from leyden.core.errors import CorruptDataError, MissingDependencyError
from leyden.core.optional import installed
from leyden.core.settings import environment
from leyden.fabric.checkpoint.restricted import read_torch
from leyden.fabric.checkpoint.single_file import write_dict

_SCRIPT = """
import sys
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
import torch
state = get_fp32_state_dict_from_zero_checkpoint(sys.argv[1], **({"tag": sys.argv[3]} if sys.argv[3] else {}))
torch.save({name: tensor.detach().clone() for name, tensor in state.items()}, sys.argv[2])
"""
_WRAPPERS = ("_forward_module.", "module.")
# What DeepSpeed's engine itself puts into `mp_rank_00_model_states.pt`; the rest is the user's.
_ENGINE_KEYS = frozenset(
    {
        "module", "buffer_names", "optimizer", "param_shapes", "frozen_param_shapes", "shared_params", "frozen_param_fragments",
        "lr_scheduler", "data_sampler", "random_ltd", "sparse_tensor_module_names", "skipped_steps", "global_steps",
        "global_samples", "dp_world_size", "mp_world_size", "ds_config", "ds_version", "num_experts", "checkpoint_parallel_dimensions",
    }
)  # fmt: skip


def merge(folder: Path, scratch: Path, *, rest: Path | None = None, key: str = "model") -> Path:
    """Merge a folder's shards into one file with the weights in float32 and the user's own values.

    Args:
        folder: The folder above the tag's.
        scratch: Where to write.
        rest: Our `train.pt`, if Leyden wrote the folder: holds the user's values instead.
        key: The key of the weights.

    Returns:
        The file.

    Raises:
        MissingDependencyError: DeepSpeed is not installed.
        CorruptDataError: Its script failed; holds the end of what it said.
    """
    states = sorted(folder.glob("*/*_model_states.pt"))
    tag = "" if (folder / "latest").is_file() else states[-1].parent.name
    # Without ZeRO (stage 0) nothing is cut up: the first rank's file holds the weights, and nothing in it needs to run.
    is_cut = any(folder.glob("*/*_optim_states.pt"))
    weights = _merged_by_deepspeed(folder, scratch / "weights.pt", tag) if is_cut else {}
    weights = _whole_weights_of(states[-1]) | weights
    whole = {_bare(name): value.float() if value.is_floating_point() else value for name, value in weights.items()}
    content = {**user_values(folder, tag, rest), key: whole}
    merged = scratch / "merged.ckpt"
    write_dict(merged, content)
    return merged


def _whole_weights_of(file: Path) -> dict[str, Any]:
    """Return the weights that a rank's file holds whole: all of them below stage 3.

    DeepSpeed's script knows those that are trained; of stage 1 it leaves frozen ones out.
    """
    content = read_torch(file)
    if not isinstance(content, dict) or "module" not in content:
        raise CorruptDataError(f"{file} holds no weights: it has no key 'module', where DeepSpeed puts them.")
    stage = (content.get("ds_config") or {}).get("zero_optimization", {}).get("stage", 0)
    return content["module"] if int(stage) < 3 else {}  # of stage 3 it holds placeholders


def _merged_by_deepspeed(folder: Path, weights: Path, tag: str) -> dict[str, Any]:
    if not installed("deepspeed"):
        raise MissingDependencyError(
            f"{folder} holds DeepSpeed's shards, which its own script merges, and deepspeed is not installed. "
            'Install it with: DS_BUILD_OPS=0 pip install --no-build-isolation "leyden[deepspeed]"',
            name="deepspeed",
        )
    warnings.warn(f"DeepSpeed's reader runs the pickles in {folder}. Only convert folders that you trust.", stacklevel=4)
    environ = {**environment(), "DS_ACCELERATOR": environment().get("DS_ACCELERATOR", "cpu")}
    result = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", _SCRIPT, str(folder), str(weights), tag], env=environ, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        tail = (result.stderr or result.stdout).strip().splitlines()[-3:]
        raise CorruptDataError(f"DeepSpeed could not merge {folder}: {' '.join(tail)}")
    return read_torch(weights)


def user_values(folder: Path, tag: str, rest: Path | None = None) -> dict[str, Any]:
    """Return what a folder holds beside the engine's own states, without running anything in it."""
    if rest is not None and rest.is_file():
        return {key: value for key, value in read_torch(rest).get("values", {}).items() if value is not None}
    name = tag or (folder / "latest").read_text(encoding="utf-8").strip()
    states = sorted((folder / Path(name).name).glob("*_model_states.pt"))
    return {key: value for key, value in read_torch(states[0]).items() if key not in _ENGINE_KEYS} if states else {}


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name
