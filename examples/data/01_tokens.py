"""Text becomes tokens once, and is streamed into training from then on: the source files of Python's own standard library.

    python examples/data/01_tokens.py
    python examples/data/01_tokens.py --context 128        # another window of the same tokens: nothing is written again

`optimize` writes the tokens of all files one after another; `TokensLoader(block_size)` says only when they are read how long a
window is. Run it twice: the second time `optimize` finds that the same work has been done.
"""

import argparse
import math
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import leyden.data as ld


def tokens_of(file: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the document of a file; a real tokenizer would be called here."""
    yield np.frombuffer(Path(file).read_bytes(), np.uint8)


class Model(nn.Module):
    """Predicts the next byte with a recurrent layer."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.bytes, self.memory, self.head = nn.Embedding(256, width), nn.GRU(width, width, batch_first=True), nn.Linear(width, 256)

    def bits_per_byte(self, window_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy of each next byte."""
        window_BT = window_BT.long()
        logits = self.head(self.memory(self.bytes(window_BT[:, :-1]))[0])
        return F.cross_entropy(logits.flatten(0, 1), window_BT[:, 1:].flatten()) / math.log(2)


@torch.no_grad()
def evaluate(model: Model, loader: ld.StreamingDataLoader) -> float:
    """Return the mean bits per byte."""
    losses = [model.bits_per_byte(window).item() for window in loader]
    return sum(losses) / len(losses)


def main(args: argparse.Namespace) -> tuple[float, float]:
    """Prepare, train, evaluate; return held-out bits per byte before and after."""
    torch.manual_seed(0)
    files = sorted(map(str, Path(sysconfig.get_path("stdlib")).glob("*.py")))
    folder = Path(args.out) / "tokens"
    report = ld.optimize(tokens_of, files, str(folder), num_workers=args.workers, item_loader=ld.TokensLoader(), block_bytes="64KiB")
    print(f"{report.num_rows} documents, {report.num_bytes:,} bytes in {report.num_chunks} chunk(s), {report.seconds:.1f} s")

    windows = ld.StreamingDataset(folder, item_loader=ld.TokensLoader(block_size=args.context + 1), shuffle=True)
    train, held_out = ld.train_test_split(windows, splits=[0.95, 0.05])
    loader = ld.StreamingDataLoader(train, batch_size=32, num_workers=args.workers, drop_last=True)
    held_out_loader = ld.StreamingDataLoader(held_out.subset(slice(0, 512)), batch_size=64, shuffle=False)
    print(f"{len(windows):,} windows of {args.context + 1} tokens; {len(loader):,} batches an epoch")

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    before = evaluate(model, held_out_loader)
    for step, window in zip(range(1, args.steps + 1), loader, strict=False):
        optimizer.zero_grad()
        loss = model.bits_per_byte(window)
        loss.backward()
        optimizer.step()
        if step % max(1, args.steps // 5) == 0:
            print(f"step {step:3d}/{args.steps}  {loss.item():.3f} bits per byte")
    after = evaluate(model, held_out_loader)
    print(f"held out: {before:.3f} bits per byte before, {after:.3f} after; where the loader stands: {loader.state_dict()['consumed']}")
    loader.close()
    return before, after


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="runs/data")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
