"""`01_digits_raw.py` with five lines of Fabric: the same loop on any device, with any strategy.

python examples/fabric/00_five_lines.py
"""

import json
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric import Fabric
from leyden.fabric.loading import EpochSampler


def main(out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Train for ten epochs and write the loss of each step to `out`."""
    images, labels = load_digits(return_X_y=True)
    torch.set_default_dtype(dtype)
    x, y = torch.tensor(images / 16, dtype=dtype), torch.tensor(labels)

    fabric = Fabric(accelerator="cpu")
    fabric.launch()
    torch.manual_seed(42)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    train = TensorDataset(x[:1500], y[:1500])
    loader = DataLoader(train, batch_size=60, sampler=EpochSampler(len(train), shuffle=True, seed=42))
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(loader)

    losses = []
    for epoch in range(10):
        loader.sampler.set_epoch(epoch)
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            fabric.backward(loss)
            optimizer.step()
            losses.append(loss.item())
    accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean().item()
    print(f"five lines: loss {losses[-1]:.4f}, test accuracy {accuracy:.3f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"losses": losses, "accuracy": accuracy}))
    torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits/five_lines.json"),
        getattr(torch, sys.argv[2] if len(sys.argv) > 2 else "float32"),
    )
