"""A training script as users have it, for tests that start it in some way: `TRAINING` defines `train(fabric)`."""

from pathlib import Path

TRAINING = """
import json, os, signal, sys, threading, time
from datetime import timedelta
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from leyden.fabric import CheckpointFolder, Fabric
from leyden.fabric.strategies import DDPStrategy

def parts(fabric):
    fabric.seed_everything(1, verbose=False)
    model = fabric.setup(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(2))
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8 // fabric.world_size, shuffle=True)
    return model, fabric.setup_dataloaders(loader)

def step(fabric, model, batch):
    model.zero_grad()
    loss = nn.functional.mse_loss(model(batch[0]), batch[1])
    fabric.backward(loss)
    with torch.no_grad():  # torch's optimizers import its compiler: seconds for each process of each test
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return fabric.all_reduce(loss.detach()).item()

def train(fabric, epochs=1):
    model, loader = parts(fabric)
    return [step(fabric, model, batch) for _ in range(epochs) for batch in loader]
"""


def started_by(module: str, *arguments: str, source: str) -> str:
    """Return a script that becomes `python -m module arguments train.py`, where `train.py` is `source`."""
    return f"""
import os, sys
from pathlib import Path
Path("train.py").write_text({source!r})
line = [sys.executable, "-m", {module!r}, *{list(arguments)!r}]
os.execv(line[0], [*line, *sys.argv[1:]])
"""


def written(folder: Path, name: str) -> list[str]:
    """Return the lines of the files `<name>-<rank>` that ranks wrote into a folder, by rank."""
    return [path.read_text() for path in sorted(folder.glob(f"{name}-*"))]
