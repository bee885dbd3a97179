"""What the benchmarks of data share: the data itself, made once, and the CPU time of a process with all that it started.

Everything lies below `.cache/benchmark-data`, so the second round finds it there; a dataset is written by whoever reads it.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / ".cache/benchmark-data"
ROWS, LENGTH = 30_000, 2048  # token samples, and tokens in each
BATCH = {"tokens": 16, "images": 32, "records": 64}


def made(name: str, make: Callable[[str], object]) -> str:
    """Return the folder of that name, having called `make(folder)` if it is not there yet.

    Args:
        name: The folder's name.
        make: Fills the folder; one that is interrupted is made again.
    """
    final = FOLDER / name
    if not final.exists():
        partial = final.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(str(partial))
        partial.rename(final)
    return str(final)


def token_file() -> str:
    """Return the path of `int32 (rows, length)` tokens as a `.npy` file."""

    def make(folder: str) -> None:
        import numpy as np

        generator = np.random.default_rng(7)
        np.save(f"{folder}/tokens.npy", generator.integers(0, 50_000, (ROWS, LENGTH), dtype=np.int32))

    return f"{made('tokens', make)}/tokens.npy"


def token_rows(index: int) -> Any:
    """Return row `index` of the token file as `int32 (length,)`: what the writers of datasets are given as their function."""
    import numpy as np

    global _tokens  # noqa: PLW0603 - a worker process maps the file once
    if _tokens is None:
        _tokens = np.load(token_file(), mmap_mode="r")
    return np.array(_tokens[index])


_tokens: Any = None


def record(index: int) -> dict[str, Any]:
    """Return record `index`: an id, a score, a label, a text of 55 bytes and 16 numbers.

    Args:
        index: Its number.
    """
    import numpy as np

    vector = np.full(16, index, dtype=np.float32)
    return {"id": index, "score": index / 7, "label": index % 10, "text": f"{index:055d}", "vector": vector}


def photograph(index: int) -> bytes:
    """Return a JPEG file of 256 x 256 pixels with broad shapes and some noise, so that decoding costs what it does in life.

    Args:
        index: Its number.
    """
    import io

    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(index)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, dtype=np.int16) + generator.integers(-12, 12, (256, 256, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def photographs(count: int) -> str:
    """Return a folder with that many JPEG files, `00000.jpg` and so on.

    Args:
        count: How many.
    """

    def make(folder: str) -> None:
        for index in range(count):
            Path(folder, f"{index:05d}.jpg").write_bytes(photograph(index))

    return made(f"photographs-{count}", make)


def epoch(loader: Iterable[Any], rows_of: Callable[[Any], int], rows: int, *, warm: int = 1) -> dict[str, float]:
    """Return CPU `seconds` of this process and all it started, and `wall` seconds, of one epoch after the untimed ones.

    Args:
        loader: Gives batches, each time from the start.
        rows_of: How many samples a batch has; called for the untimed epochs only.
        rows: How many an epoch must have.
        warm: The number of untimed epochs.
    """
    for _ in range(warm):
        found = sum(rows_of(batch) for batch in loader)
        if found != rows:
            raise RuntimeError(f"an epoch had {found:,} samples instead of {rows:,}")
    cpu, wall = tree_seconds(), time.perf_counter()
    for _batch in loader:
        pass
    return {"seconds": tree_seconds() - cpu, "wall": time.perf_counter() - wall}


def tree_seconds() -> float:
    """Return the CPU seconds, user and system, of this process and of everything that it started, living or waited for."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(folder.name))
                ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        total += ticks.get(process, 0)
        waiting += children.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")
