"""Loading a checkpoint takes at most 1.2 times what reading a safetensors file of the same weights takes, and no second copy.

A model of 1 GB. What is loaded was written just before by another process, so it lies in the page cache for everybody: what
is compared is the work, not the disk, nor the import of anybody's reader. The fastest of three
loads counts. Memory is the peak of a process of its own in the first, less what it had before the model was built, so the
model itself counts: 1.0 is perfect.

Sharded, each of two ranks loads its half; the yardstick is reading a safetensors file with that half.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Benchmark, Comparison, Variant, main
from benchmarks.large import bytes_of_stack, peak_bytes, resident_bytes, stack
from benchmarks.ranks import on_ranks, slowest

WIDTH = 5792  # 8 layers of 5792² float32 numbers are 1.07 GB
LOADS = 3
Measured = dict[str, float]


def cost(before: int, total: int, load: Callable[[], object], is_right: Callable[[], bool]) -> Measured:
    """Return the wall time of the fastest of three `load()`s, the peak of memory over `total` bytes, and the bytes read.

    Args:
        before: The memory before the model was built.
        total: The bytes of the model, or of the shard.
        load: Loads everything; nothing of it was loaded before.
        is_right: Whether the weights are those of the file; asked after the first.

    Raises:
        RuntimeError: They are not.
    """
    read_before = _read_bytes()
    times = [_seconds(load)]
    read, peak = _read_bytes() - read_before, peak_bytes() - before
    if not is_right():
        raise RuntimeError("the weights in memory are not those of the file")
    times += [_seconds(load) for _ in range(LOADS - 1)]
    return {"seconds": min(times), "first_seconds": times[0], "peak": peak / total, "read": read / total}


def _seconds(load: Callable[[], object]) -> float:
    start = time.perf_counter()
    load()
    return time.perf_counter() - start


def _read_bytes() -> int:
    """Return how many bytes this process has read by system calls (mapped pages are not among them)."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def blank(width: int, rows: int | None = None) -> Any:
    """Return the model with zeros, so that what is loaded can be told from what was there."""
    import torch

    model = stack(width, rows=rows)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def is_filled(model: Any, width: int) -> bool:
    """Return whether a model's weights are those of `stack(width)`."""
    return all(bool((_own(p)[:: max(width // 8, 1)] == (number + 1) / width).all()) for number, p in enumerate(model.parameters()))


def _own(parameter: Any) -> Any:
    local = getattr(parameter, "to_local", None)
    return (parameter if local is None else local()).detach()


# -- one process -------------------------------------------------------------------------------------------------------


def write_safetensors(folder: str, width: int) -> None:
    """Write the model's weights with the safetensors library."""
    from safetensors.torch import save_file

    save_file(stack(width).state_dict(), f"{folder}/model.safetensors")


def write_file(folder: str, width: int) -> None:
    """Write a checkpoint in one file, as Leyden's Fabric does where nothing is sharded."""
    from leyden.fabric import Fabric

    Fabric(accelerator="cpu", devices=1).save(f"{folder}/checkpoint", {"model": stack(width)}, format="file")


def write_directory(folder: str, width: int) -> None:
    """Write a checkpoint directory with Leyden's Fabric."""
    from leyden.fabric import Fabric

    Fabric(accelerator="cpu", devices=1).save(f"{folder}/checkpoint", {"model": stack(width)}, format="directory")


def write_with_lightning(folder: str, width: int) -> None:
    """Write a checkpoint with Lightning's Fabric."""
    from lightning.fabric import Fabric

    Fabric(accelerator="cpu", devices=1).save(f"{folder}/checkpoint", {"model": stack(width)})


def load_safetensors(folder: str, width: int) -> Measured:
    """Read a safetensors file into the model, with the library's own lines."""
    from safetensors.torch import load_file

    before = resident_bytes()
    model = blank(width)
    return cost(
        before,
        bytes_of_stack(width),
        lambda: model.load_state_dict(load_file(f"{folder}/model.safetensors")),
        lambda: is_filled(model, width),
    )


def _load(fabric: Any, folder: str, width: int) -> Measured:
    before = resident_bytes()
    model = blank(width)
    return cost(
        before,
        bytes_of_stack(width),
        lambda: fabric.load(f"{folder}/checkpoint", {"model": model}),
        lambda: is_filled(model, width),
    )


def load_with_leyden(folder: str, width: int) -> Measured:
    """Load a checkpoint of either kind with Leyden's Fabric."""
    import leyden.fabric.checkpoint.saver  # noqa: F401 - what the first load imports
    from leyden.fabric import Fabric

    return _load(Fabric(accelerator="cpu", devices=1), folder, width)


def load_with_lightning(folder: str, width: int) -> Measured:
    """Load a checkpoint with Lightning's Fabric."""
    from lightning.fabric import Fabric

    return _load(Fabric(accelerator="cpu", devices=1), folder, width)


def loading(write: Callable[[str, int], object], load: Callable[[str, int], Measured], width: int = WIDTH) -> Callable[[], Measured]:
    """Return a worker that writes in another process, and loads in its own.

    Args:
        write: Writes into a folder.
        load: Loads from it and measures.
        width: The width of the layers.
    """

    def run() -> Measured:
        with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
            code = f"from benchmarks import fabric_load; fabric_load.{write.__name__}({folder!r}, {width})"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            return load(folder, width)

    return run


# -- two ranks ---------------------------------------------------------------------------------------------------------


def write_shards(folder: str, width: int) -> Measured:
    """Write a sharded directory, on a rank."""
    fabric = _fsdp()
    fabric.save(f"{folder}/checkpoint", {"model": fabric.setup(stack(width))})
    return {}


def load_shards(folder: str, width: int) -> Measured:
    """Load a sharded directory, on a rank."""
    fabric = _fsdp()
    import torch.distributed.checkpoint  # noqa: F401 - what the first load imports

    import leyden.fabric.checkpoint.saver  # noqa: F401 - as above

    model = fabric.setup(blank(width))
    # The model was whole until it was sharded, so a peak up to here says nothing about loading.
    _forget_the_peak()
    before = resident_bytes() - bytes_of_stack(width) // 2
    return cost(
        before,
        bytes_of_stack(width) // 2,
        lambda: fabric.load(f"{folder}/checkpoint", {"model": model}),
        lambda: is_filled(model, width),
    )


def _fsdp() -> Any:
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="fsdp")
    fabric.launch()
    return fabric


def _forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak; Linux


def write_half(folder: str, width: int) -> Measured:
    """Write a rank's half of the weights with the safetensors library."""
    import os

    from safetensors.torch import save_file

    save_file(stack(width, rows=width // 2).state_dict(), f"{folder}/{os.environ['RANK']}.safetensors")
    return {}


def load_half(folder: str, width: int) -> Measured:
    """Read a rank's half of the weights with the library's own lines."""
    import os

    import torch.distributed as dist
    from safetensors.torch import load_file

    dist.init_process_group("gloo")
    before = resident_bytes()
    model = blank(width, rows=width // 2)
    dist.barrier()
    result = cost(
        before,
        bytes_of_stack(width) // 2,
        lambda: model.load_state_dict(load_file(f"{folder}/{os.environ['RANK']}.safetensors")),
        lambda: is_filled(model, width),
    )
    dist.destroy_process_group()
    return result


def loading_on_ranks(
    write: Callable[[str, int], Measured], load: Callable[[str, int], Measured], width: int = WIDTH
) -> Callable[[], Measured]:
    """Return a worker that writes on two ranks, and loads on two others.

    Args:
        write: Writes into a folder.
        load: Loads from it and measures.
        width: The width of the layers.
    """

    def run() -> Measured:
        with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
            on_ranks(write, folder, width)
            return slowest(on_ranks(load, folder, width))

    return run


BENCHMARK = Benchmark(
    claim="loading 1 GB takes at most 1.2 times a read of safetensors, sharded 1.3 times, and no second copy of the weights",
    variants={
        "safetensors": Variant(run=loading(write_safetensors, load_safetensors)),
        "leyden file": Variant(run=loading(write_file, load_with_leyden)),
        "leyden directory": Variant(run=loading(write_directory, load_with_leyden)),
        "lightning": Variant(run=loading(write_with_lightning, load_with_lightning), peer="lightning"),
        "safetensors on 2 ranks": Variant(run=loading_on_ranks(write_half, load_half), cores=2),
        "leyden on 2 ranks": Variant(run=loading_on_ranks(write_shards, load_shards), cores=2),
    },
    comparisons=[
        Comparison(of="leyden file", to="safetensors", limit=1.2),
        Comparison(of="leyden directory", to="safetensors", limit=1.2),
        Comparison(of="lightning", to="safetensors"),
        Comparison(of="leyden file", metric="peak", limit=1.1),
        Comparison(of="leyden directory", metric="peak", limit=1.1),
        Comparison(of="safetensors", metric="peak"),
        Comparison(of="lightning", metric="peak"),
        Comparison(of="leyden on 2 ranks", to="safetensors on 2 ranks", limit=1.3),
        Comparison(of="leyden on 2 ranks", metric="peak", limit=1.2),
        Comparison(of="leyden on 2 ranks", metric="read", limit=1.01),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_load"))
