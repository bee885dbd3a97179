"""A mixture of two datasets whose weights change in the middle of the run; broken off after that, and resumed from a state.

    python examples/data/04_mixture.py

Code and documentation of Python's standard library, as tokens. Who comes next is a function of seed, weights and position alone, so
the state is some hundred bytes of JSON, and holds the change of weights too: whoever resumes need not know of it.
"""

import argparse
import ast
import json
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import leyden.data as ld

CODE, PROSE = 0, 1
Batch = dict[str, Tensor]


def code_of(file: str) -> NDArray[np.uint8]:
    """Return the bytes of a file."""
    return np.frombuffer(Path(file).read_bytes(), np.uint8)


def prose_of(file: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the documentation of each function and class of a file."""
    for node in ast.walk(ast.parse(Path(file).read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield np.frombuffer(f"{text}\n\n".encode(), np.uint8)


def labelled(tokens: Tensor, source: int) -> dict[str, Any]:
    """Say which dataset a window is from: each dataset has a transform of its own."""
    return {"source": source, "tokens": tokens}


def loader_of(out: Path, steps: int) -> tuple[ld.CombinedStreamingDataset, ld.StreamingDataLoader]:
    """Return the mixture and its loader: four fifths code, for `steps` batches; documentation, if it runs out, begins anew."""
    parts = [
        ld.StreamingDataset(
            out / name, item_loader=ld.TokensLoader(block_size=65), shuffle=True, transform=partial(labelled, source=source)
        )
        for name, source in (("code", CODE), ("prose", PROSE))
    ]
    mix = ld.CombinedStreamingDataset(parts, weights=[0.8, 0.2], iterate_over_all=False, repeat=True, epoch_size=32 * steps)
    return mix, ld.StreamingDataLoader(mix, batch_size=32)


def share_of_code(batches: list[Batch]) -> float:
    """Return how much of some batches is code."""
    return (torch.cat([batch["source"] for batch in batches]) == CODE).float().mean().item()


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Write both datasets, mix them, change the weights, resume; return shares and whether the rest was the same."""
    out, steps = Path(args.out), args.steps
    files = sorted(map(str, Path(sysconfig.get_path("stdlib")).glob("*.py")))
    for name, function in (("code", code_of), ("prose", prose_of)):
        report = ld.optimize(function, files, str(out / name), num_workers=args.workers, item_loader=ld.TokensLoader())
        print(f"{name}: {report.num_rows:,} documents, {report.num_bytes:,} bytes")

    mix, loader = loader_of(out, steps)
    batches: list[Batch] = []
    state = ""
    for batch in loader:
        batches.append(batch)  # a step of training would be here
        if len(batches) == steps // 2:
            mix.set_weights([0.25, 0.75])  # holds from the next batch on
        if len(batches) == steps * 3 // 4:
            state = json.dumps(loader.state_dict())
    shares = share_of_code(batches[: steps // 2]), share_of_code(batches[steps // 2 :])
    print(f"code: {shares[0]:.1%} of the first half, {shares[1]:.1%} of the second, of {len(batches)} batches")

    _, resumed = loader_of(out, steps)  # as a new process would, with the weights of the beginning
    resumed.load_state_dict(json.loads(state))
    rest = list(resumed)
    is_same = len(rest) == steps - steps * 3 // 4 and all(
        torch.equal(one["tokens"], other["tokens"]) for one, other in zip(rest, batches[-len(rest) :], strict=True)
    )
    print(f"resumed from {len(state)} bytes: {len(rest)} batches, {'the same' if is_same else 'others'}, bit for bit")
    return {"shares": shares, "is_same": is_same, "state_bytes": len(state)}


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="runs/data")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
