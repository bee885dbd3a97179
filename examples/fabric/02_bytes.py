"""A byte-level language model on real text: the source files of this Python's own standard library.

    python examples/fabric/02_bytes.py
    python examples/fabric/02_bytes.py --devices 2 --strategy fsdp

The text is written once as tokens, and streamed from then on. Prints bits per byte on held-out text beside the entropy of single
bytes (what a model without context could reach), writes a sample, and shows that the checkpoint, whatever its layout, becomes one
file that plain torch reads.
"""

import argparse
import math
import sysconfig
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from leyden.data import StreamingDataLoader, StreamingDataset, TokensLoader, optimize
from leyden.fabric import CheckpointFolder, Fabric
from leyden.fabric.checkpoint.convert import consolidate
from leyden.fabric.loggers import CSVLogger

WIDTH, HEADS, LAYERS, CONTEXT = 96, 4, 2, 96


class Block(nn.Module):
    """One transformer layer, pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend to the past, then think about it."""
        batch, time, width = x_BTD.shape
        q, k, v = self.qkv(self.norm1(x_BTD)).view(batch, time, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        y_BHTd = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.proj(y_BHTd.transpose(1, 2).reshape(batch, time, width))
        return x_BTD + self.mlp(self.norm2(x_BTD))


class ByteModel(nn.Module):
    """Predicts the next byte from up to 96 bytes before it."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.positions = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits: (batch * time, 256)."""
        positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        return self.head(self.norm(self.blocks(self.bytes(tokens_BT) + self.positions(positions))).flatten(0, 1))


def document(file: str) -> NDArray[np.uint8]:
    """Return the tokens of a file: its bytes."""
    return np.frombuffer(Path(file).read_bytes(), np.uint8)


def standard_library(folder: str) -> tuple[StreamingDataset, StreamingDataset]:
    """Return windows of the library's top-level modules by name: nine tenths to learn from, the last to test on.

    The first call writes the tokens, all ranks together; later ones find them.
    """
    files = sorted(map(str, Path(sysconfig.get_path("stdlib")).glob("*.py")))
    optimize(document, files, folder, item_loader=TokensLoader(), num_workers=0, block_bytes="64KiB")
    windows = StreamingDataset(folder, item_loader=TokensLoader(CONTEXT + 1), shuffle=True)
    cut = windows.num_rows * 9 // 10
    return windows.subset(slice(cut)), windows.subset(slice(cut, None))


def loss_of(model: nn.Module, window_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next byte, in nats."""
    window_BT = window_BT.long()
    return F.cross_entropy(model(window_BT[:, :-1]), window_BT[:, 1:].flatten())


def learning_rate(step: int, steps: int) -> float:
    """Warm up over a tenth, then fall along a cosine to a tenth."""
    warmup = steps // 10
    return min((step + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup))))


def entropy_of_bytes(text: Tensor) -> float:
    """Return the entropy of single bytes, in bits."""
    share = torch.bincount(text.flatten().long(), minlength=256) / text.numel()
    return -(share[share > 0] * share[share > 0].log2()).sum().item()


@torch.no_grad()
def sample(model: nn.Module, prompt: bytes, count: int) -> str:
    """Return `count` bytes drawn after the prompt."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor(list(prompt))
    for _ in range(count):
        logits = model(tokens[None, -CONTEXT:])[-1]
        tokens = torch.cat([tokens, torch.multinomial(logits.softmax(-1), 1, generator=generator)])
    return bytes(tokens.tolist()).decode(errors="replace")


@torch.no_grad()
def bits_per_byte(model: nn.Module, windows: Tensor) -> float:
    """Return the mean loss on the first 1,024 windows, in bits."""
    parts = windows[:1024].split(64)
    return sum(loss_of(model, part).item() for part in parts) / len(parts) / math.log(2)


def write_with_plain_torch(checkpoint: Path, file: Path) -> None:
    """Load a checkpoint of any layout without Fabric, and print a sample."""
    if checkpoint.is_dir():
        file.unlink(missing_ok=True)  # of an earlier run; nothing is ever overwritten
        checkpoint = consolidate(checkpoint, file)
    plain = ByteModel()
    plain.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    print(f"{checkpoint}: read by plain torch; it writes:\n{sample(plain, b'def ', 200)}")


def main(args: argparse.Namespace) -> None:
    """Train, test, sample, consolidate."""
    logger = CSVLogger(args.out, name="", version=args.name, resume=args.resume)
    fabric = Fabric(accelerator="cpu", devices=args.devices, strategy=args.strategy, loggers=logger)
    fabric.launch()
    fabric.seed_everything(42, verbose=False)
    train, test = standard_library(f"{args.out}/text")
    held_out = test.take(slice(None))
    fabric.print(f"streaming {train.num_rows:,} windows of {CONTEXT + 1} tokens from {args.out}/text")

    model = ByteModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, args.steps))
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(StreamingDataLoader(train, global_batch_size=16, drop_last=True))

    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader, "step": 0}
    checkpoints = CheckpointFolder(fabric, Path(args.out) / args.name / "checkpoints", keep_last=2)
    if args.resume and checkpoints.resume(state):
        fabric.print(f"resumed at step {state['step']}")

    batches = iter(loader)
    while state["step"] < args.steps:
        optimizer.zero_grad()
        loss = loss_of(model, next(batches))
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        schedule.step()
        state["step"] += 1
        bits = fabric.all_reduce(loss.detach()) / math.log(2)
        fabric.log("bits_per_byte", bits, step=state["step"])
        if state["step"] % 20 == 0 or state["step"] == args.steps:
            checkpoints.save(state, step=state["step"])
            done = 30 * state["step"] // args.steps
            fabric.print(
                f"[{'#' * done}{'.' * (30 - done)}] step {state['step']:3d}/{args.steps}  {bits.item():.3f} bits per byte", flush=True
            )

    bits = bits_per_byte(model, held_out)
    fabric.log("held_out_bits_per_byte", bits, step=args.steps)
    logger.finalize("success")
    fabric.print(f"held out: {bits:.3f} bits per byte; single bytes: {entropy_of_bytes(held_out):.3f}")

    fabric.wait_for_saves()
    fabric.barrier()
    if fabric.is_global_zero:
        write_with_plain_torch(Path(checkpoints.latest()), Path(args.out) / args.name / "model.ckpt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", default="runs/bytes")
    parser.add_argument("--name", default="fabric")
    parser.add_argument("--resume", action="store_true")
    main(parser.parse_args())
