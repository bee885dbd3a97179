"""Random numbers: one seed per run, streams derived from it, and states that a checkpoint can keep.

All ranks share the run's seed, so that they initialise the same weights. Whatever must differ (a worker, a position in
an epoch, an initialiser) takes its own stream from `fold(seed, *words)`, which depends on nothing but its arguments.
The seed lives in environment variables, because that is what child processes of any kind inherit.
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

MIN_SEED, MAX_SEED = 0, 2**32 - 1  # what numpy's global generator takes
_SETTING, _DOCUMENTED, _WORKERS_SETTING, _WORKERS = "LEYDEN_GLOBAL_SEED", "PL_GLOBAL_SEED", "LEYDEN_SEED_WORKERS", "PL_SEED_WORKERS"


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:  # noqa: FBT001, FBT002 - the documented signature
    """Seed `random`, numpy and torch (every device), and remember the seed for child processes.

    Args:
        seed: From 0 to 2**32 - 1. `None`: the one in `LEYDEN_GLOBAL_SEED` or `PL_GLOBAL_SEED`, else 0.
        workers: Whether loaders seed their workers, for those who read `PL_SEED_WORKERS`.
        verbose: Whether to log the seed.

    Returns:
        The seed.

    Raises:
        ConfigError: The seed is out of bounds, or the variable holds no whole number.
    """
    seed = run_seed() if seed is None else _checked(seed)
    if seed is None:
        seed = 0
        if verbose:
            rank_zero_warn("No seed found, seed set to 0", stacklevel=5)
    if verbose:
        rank_zero_info("Seed set to %d", seed)
    environ = settings.environment()
    environ[_DOCUMENTED], environ[_WORKERS] = str(seed), str(int(workers))
    for ours, documented in ((_SETTING, _DOCUMENTED), (_WORKERS_SETTING, _WORKERS)):
        if ours in environ:  # it is read first, so it must not contradict
            environ[ours] = environ[documented]
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def reset_seed() -> None:
    """Seed again with what `seed_everything` was given; nothing happens if it was never called."""
    seed = run_seed()
    if seed is not None:
        seed_everything(seed, workers=settings.get(_WORKERS_SETTING), verbose=False)


def run_seed() -> int | None:
    """Return the seed of this run, or `None` if nobody set one.

    Raises:
        ConfigError: The variable holds no whole number from 0 to 2**32 - 1.
    """
    variable = settings.source(_SETTING)
    if variable is None:
        return None
    try:
        return _checked(settings.get(_SETTING))
    except ConfigError as error:
        raise ConfigError(
            f"Invalid seed specified via {variable}: {settings.environment()[variable]!r}. Accepted: a whole number from "
            f"{MIN_SEED} to {MAX_SEED}. Set it (export {variable}=42) or remove it (unset {variable})."
        ) from error


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ConfigTypeError(f"seed={seed!r} is of type {type(seed).__name__}; a seed is an int: seed_everything(42).")
    seed = int(seed)
    if not MIN_SEED <= seed <= MAX_SEED:
        raise ConfigError(f"seed={seed} is not in bounds: numpy takes {MIN_SEED} to {MAX_SEED}. Use seed={abs(seed) % (MAX_SEED + 1)}.")
    return seed


def fold(seed: int, *words: int | str) -> int:
    """Return the seed (64 bits) of the stream that `words` name under `seed`: the same on every machine.

    Example:
        >>> fold(42, "worker", 0) != fold(42, "worker", 1)
        True
    """
    # ascii() of the tuple is unambiguous, and stable over Python versions where repr() of new characters is not.
    text = ascii((int(seed), *(word if isinstance(word, str) else int(word) for word in words)))
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest(), "big")


def seed_stream(seed: int) -> None:
    """Start this process's CPU generators (torch, random, numpy if it is imported) at a 64-bit seed.

    What workers do before every batch; accelerators are left alone, unlike in `torch.manual_seed`.
    """
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed & MAX_SEED)  # one word: two take seven times as long (30 µs)


def pl_worker_init_function(worker_id: int, rank: int | None = None) -> None:
    """Seed a loader's worker process: distinct for each base seed, worker and rank. A `worker_init_fn`.

    Args:
        worker_id: The worker's number.
        rank: The global rank of the process that owns the loader; `None`: `rank_zero_only.rank`.
    """
    info = torch.utils.data.get_worker_info()
    base = (torch.initial_seed() if info is None else info.seed) - worker_id
    seed_stream(fold(base, "worker", worker_id, rank_zero_only.rank if rank is None else rank))


@contextmanager
def isolate_rng(include_cuda: bool = True) -> Iterator[None]:  # noqa: FBT001, FBT002 - the documented signature
    """Leave the random generators after the block as they were before it.

    Args:
        include_cuda: Whether accelerators' generators too (those in use; none is initialised for this).

    Example:
        >>> with isolate_rng():
        ...     noise = torch.rand(3)
        >>> bool((noise == torch.rand(3)).all())
        True
    """
    devices = _devices_in_use() if include_cuda else []
    state = capture()
    accelerators = [_accelerator_state(device) for device in devices]
    try:
        yield
    finally:
        restore(state)
        for device, kept in zip(devices, accelerators, strict=True):
            _set_accelerator_state(device, kept)


def capture(device: torch.device | str | None = None) -> dict[str, Any]:
    """Return the state of this process's generators: torch, `random`, numpy if imported, and `device`'s own.

    It is made of tensors and plain values (about 13 KB), so `torch.load(weights_only=True)` reads it.

    Args:
        device: This process's accelerator, if it has one.
    """
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": _python_state(random.getstate())}
    if numpy := sys.modules.get("numpy"):
        state["numpy"] = _packed(numpy.random.get_state(legacy=False))
    place = torch.device(device or "cpu")
    if place.type not in _WITHOUT_GENERATOR:
        state["accelerator"] = {"type": place.type, "state": _accelerator_state(place)}
    return state


def restore(state: dict[str, Any], device: torch.device | str | None = None) -> None:
    """Set the generators to what `capture` returned; an accelerator's only on a device of the same type.

    Args:
        state: What `capture` returned.
        device: This process's accelerator, if it has one.
    """
    torch.set_rng_state(state["torch"].cpu())
    random.setstate(_of_python_state(state["python"]))
    if "numpy" in state:
        import numpy  # function-level: only where the saved process had imported it too

        numpy.random.set_state(_unpacked(state["numpy"]))
    place, kept = torch.device(device or "cpu"), state.get("accelerator")
    if kept is not None and kept["type"] == place.type:
        _set_accelerator_state(place, kept["state"].cpu())


def is_generator(value: object) -> bool:
    """Return whether `value` is a generator of its own: torch's, numpy's or `random`'s."""
    if isinstance(value, (torch.Generator, random.Random)):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.random.Generator, numpy.random.RandomState))


def capture_generator(generator: Any) -> Any:
    """Return the state of one generator object, as `capture` returns those of the process."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return _python_state(generator.getstate())
    return _packed(generator.get_state(legacy=False) if hasattr(generator, "get_state") else generator.bit_generator.state)


def restore_generator(generator: Any, state: Any) -> None:
    """Set one generator object to what `capture_generator` returned."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        generator.setstate(_of_python_state(state))
    elif hasattr(generator, "set_state"):  # numpy's older RandomState
        generator.set_state(_unpacked(state))
    else:
        generator.bit_generator.state = _unpacked(state)


def _python_state(state: tuple[Any, ...]) -> dict[str, Any]:
    version, internal, gauss = state
    return {"version": version, "internal": torch.tensor(internal), "gauss": gauss}


def _of_python_state(state: dict[str, Any]) -> tuple[Any, ...]:
    return state["version"], tuple(state["internal"].tolist()), state["gauss"]


_WITHOUT_GENERATOR = ("cpu", "meta")


def _packed(value: Any) -> Any:
    """Return numpy's state with its array as an int64 tensor, which a restricted unpickler accepts."""
    if isinstance(value, dict):
        return {key: _packed(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return torch.tensor(value) if isinstance(value, list) and max(value) < 2**63 else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unpacked(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _devices_in_use() -> list[torch.device]:
    devices: list[torch.device] = []
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind)
        if module.is_available() and module.is_initialized():
            devices += [torch.device(kind, index) for index in range(module.device_count())]
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    return devices


def _accelerator_state(device: torch.device) -> torch.Tensor:
    module = torch.get_device_module(device)
    return module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)


def _set_accelerator_state(device: torch.device, state: torch.Tensor) -> None:
    module = torch.get_device_module(device)
    if device.type == "mps":
        module.set_rng_state(state)
    else:
        module.set_rng_state(state, device)
