"""A transformer that reads bytes, trained on real text: the source files of this Python's own standard library.

    python examples/trainer/04_language_model.py
    python examples/trainer/04_language_model.py --steps 1000 --devices 2 --strategy fsdp

Steps are counted instead of epochs, gradients clipped, the learning rate warmed up; the loss on held-out text is logged as bits per
byte beside the entropy of single bytes, which is what a model without context could reach.
"""

import argparse
import math
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from leyden.trainer import LightningModule, Trainer, seed_everything
from leyden.trainer.callbacks import LearningRateMonitor, ModelCheckpoint
from leyden.trainer.loggers import CSVLogger

CONTEXT = 64


class Block(nn.Module):
    """One transformer layer, pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Attend to the past, then think about it."""
        batch, time, width = x_BTC.shape
        q, k, v = self.qkv(self.norm1(x_BTC)).view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y_BHTd = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTC = x_BTC + self.proj(y_BHTd.transpose(1, 2).reshape(batch, time, width))
        return x_BTC + self.mlp(self.norm2(x_BTC))


class ByteModel(LightningModule):
    """Predicts the next byte from up to 64 bytes before it."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2, lr: float = 4e-3, warmup: int = 20) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.bytes, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)
        self.example_input_array = torch.zeros(1, CONTEXT, dtype=torch.long)  # the summary shows sizes and FLOPs for it

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits: (batch, time, 256)."""
        positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        return self.head(self.norm(self.blocks(self.bytes(tokens_BT) + self.positions(positions))))

    def bits_per_byte(self, window_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy of each next byte."""
        logits = self(window_BT[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), window_BT[:, 1:].flatten()) / math.log(2)

    def training_step(self, window_BT: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch of windows."""
        loss = self.bits_per_byte(window_BT)
        self.log("train/bits", loss, prog_bar=True)
        return loss

    def validation_step(self, window_BT: Tensor, batch_idx: int) -> None:
        """Log the loss on held-out text."""
        self.log("val/bits", self.bits_per_byte(window_BT), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> dict[str, object]:
        """Return AdamW, warmed up, then falling along a cosine to a tenth."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        warmup, steps = self.hparams.warmup, self.trainer.max_steps

        def factor(step: int) -> float:
            along = max(0, step - warmup) / max(1, steps - warmup)
            return min((step + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * along)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def write(self, prompt: bytes, count: int) -> str:
        """Return `count` bytes drawn after the prompt."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.tensor(list(prompt))
        for _ in range(count):
            likely = self(tokens[None, -CONTEXT:])[0, -1].softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(likely, 1, generator=generator)])
        return bytes(tokens.tolist()).decode(errors="replace")


class Windows(Dataset[Tensor]):
    """The text cut into windows of context + 1 bytes."""

    def __init__(self, text: Tensor) -> None:
        self.windows = text[: len(text) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        return self.windows[index].long()


def standard_library() -> tuple[Tensor, Tensor]:
    """Return the bytes of the library's top-level modules: nine tenths to learn from, the last to test on."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8)
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def entropy_of_bytes(text: Tensor) -> float:
    """Return the entropy of single bytes, in bits."""
    share = torch.bincount(text.long(), minlength=256) / len(text)
    return -(share[share > 0] * share[share > 0].log2()).sum().item()


def main(args: argparse.Namespace) -> tuple[float, float]:
    """Train; return bits per byte on held-out text, and the entropy of its bytes."""
    seed_everything(7, verbose=False)
    train, held_out = standard_library()
    saver = ModelCheckpoint(every_n_train_steps=max(1, args.steps // 4), monitor="val/bits", save_last=True)
    trainer = Trainer(
        accelerator="cpu",
        devices=args.devices,
        strategy=args.strategy,
        max_steps=args.steps,
        gradient_clip_val=1.0,
        val_check_interval=max(1, args.steps // 4),
        check_val_every_n_epoch=None,
        limit_val_batches=10,
        log_every_n_steps=5,
        callbacks=[saver, LearningRateMonitor()],
        logger=CSVLogger(args.out, name="language_model"),
    )
    batch_size = 16 // trainer.world_size
    model = ByteModel()
    trainer.fit(
        model,
        DataLoader(Windows(train), batch_size=batch_size, shuffle=True, drop_last=True),
        DataLoader(Windows(held_out), batch_size=32),
    )
    bits, without_context = trainer.callback_metrics["val/bits"].item(), entropy_of_bytes(held_out)
    trainer.print(f"held out: {bits:.3f} bits per byte; single bytes: {without_context:.3f}; {saver.best_model_path}")
    if trainer.is_global_zero:
        writer = ByteModel.load_from_checkpoint(saver.best_model_path)  # of any strategy
        print(writer.write(b"def ", 160))
    return bits, without_context


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
