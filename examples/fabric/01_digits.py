"""The same loop as `01_digits_raw.py`, scaled by Fabric: any number of processes, any strategy, exact resume.

    python examples/fabric/01_digits.py --devices 2 --strategy fsdp
    python examples/fabric/01_digits.py --devices 2 --strategy ddp --precision 64-true --name ddp64

Kill it at any step (`kill -9`) and start it again with `--resume`: it ends bit for bit where an unbroken run ends.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric import CheckpointFolder, Fabric
from leyden.fabric.loggers import CSVLogger


def main(args: argparse.Namespace) -> None:
    """Train for ten epochs; losses go to `<out>/<name>/metrics.csv`, checkpoints beside them."""
    images, labels = load_digits(return_X_y=True)
    logger = CSVLogger(args.out, name="", version=args.name, resume=args.resume)
    fabric = Fabric(accelerator="cpu", devices=args.devices, strategy=args.strategy, precision=args.precision, loggers=logger)
    fabric.launch()
    fabric.seed_everything(42, verbose=False)

    torch.set_default_dtype(torch.float64 if args.precision == "64-true" else torch.float32)  # what a model's outputs are given in
    x, y = torch.tensor(images / 16, dtype=torch.get_default_dtype()), torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(DataLoader(TensorDataset(x[:1500], y[:1500]), batch_size=60 // fabric.world_size, shuffle=True))

    state = {"model": model, "optimizer": optimizer, "loader": loader, "step": 0}
    checkpoints = CheckpointFolder(fabric, Path(args.out) / args.name / "checkpoints", keep_last=2)
    if args.resume and checkpoints.resume(state):
        fabric.print(f"resumed at step {state['step']}")

    steps = 10 * len(loader)
    while state["step"] < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            fabric.backward(loss)
            optimizer.step()
            state["step"] += 1
            fabric.log("loss", fabric.all_reduce(loss.detach()), step=state["step"])
            if state["step"] % 10 == 0:
                checkpoints.save(state, step=state["step"])
                done = 30 * state["step"] // steps
                fabric.print(f"[{'#' * done}{'.' * (30 - done)}] step {state['step']:3d}/{steps}  loss {loss.item():.4f}", flush=True)
            if stop := fabric.stop_requested():
                checkpoints.save(state, step=state["step"], blocking=True)
                raise SystemExit(stop.exit_code)

    with torch.no_grad():
        accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
    fabric.log("accuracy", accuracy, step=steps)
    logger.finalize("success")
    fabric.print(f"{args.strategy} on {fabric.world_size}: {steps} steps, test accuracy {accuracy.item():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--out", default="runs/digits")
    parser.add_argument("--name", default="fabric")
    parser.add_argument("--resume", action="store_true")
    main(parser.parse_args())
