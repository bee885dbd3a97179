"""Images: scikit-learn's digits as PNG, photographs (drawn here) as JPEG, augmented while they are read.

    python examples/data/02_images.py

A transform that takes `rng` draws the same numbers for a sample in an epoch, however many workers and ranks there are: the second
part reads the photographs with 0 and with 2 workers and compares. At the end stands the path of a contact sheet to look at.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import leyden.data as ld

Sample = dict[str, Any]


def digit(row: tuple[NDArray[np.uint8], int]) -> Sample:
    """Return a digit: the wrapper says that pixels become a PNG file."""
    return {"image": ld.Image(array=row[0], format="PNG"), "label": row[1]}


def photograph(number: int) -> Sample:
    """Draw a landscape of its own size at a time of day, and return it as JPEG."""
    rng = np.random.default_rng(number)
    width, height, hour = int(rng.integers(96, 160)), int(rng.integers(80, 120)), float(rng.uniform(0, 24))
    light = 0.25 + 0.75 * max(0.0, 1 - abs(hour - 12) / 9)
    picture = Image.new("RGB", (width, height), tuple(int(light * value) for value in (120, 180, 235)))
    draw = ImageDraw.Draw(picture)
    x, y = int(width * hour / 24), int(height * (0.1 + 0.4 * abs(hour - 12) / 12))
    draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(255, 240, 150) if light > 0.4 else (225, 225, 215))
    for layer in range(3):
        base, steps = height * (0.55 + 0.15 * layer), np.linspace(0, width, 9)
        hills = [(float(at), float(base + rng.normal(0, height / 14))) for at in steps]
        draw.polygon([(0, height), *hills, (width, height)], fill=tuple(int(light * value / (1 + layer / 2)) for value in (90, 150, 80)))
    return {"image": ld.Jpeg(image=picture.filter(ImageFilter.GaussianBlur(0.6)), quality=85), "hour": hour}


def shifted(sample: Sample, rng: Any) -> Sample:
    """Move a digit by up to a pixel each way; of the three channels that images are read with, keep one, scaled to 0 … 1."""
    down, right = rng.numpy.integers(-1, 2, 2).tolist()
    return {**sample, "image": torch.roll(sample["image"][:1].float() / 255, (down, right), (-2, -1))}


def cropped(sample: Sample, rng: Any) -> Sample:
    """Cut a square of 64 pixels out of a photograph, and mirror every second one."""
    image: Tensor = sample["image"]
    top, left = (int(rng.python.random() * (side - 64 + 1)) for side in image.shape[-2:])
    image = image[..., top : top + 64, left : left + 64]
    return {**sample, "image": image.flip(-1) if rng.python.random() < 0.5 else image}


def classify(folder: Path, epochs: int) -> float:
    """Train on shifted digits; return the accuracy on a held-out tenth."""
    torch.manual_seed(0)
    train, test = ld.train_test_split(ld.StreamingDataset(folder, shuffle=True, transform=shifted), splits=[0.9, 0.1])
    net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    loader = ld.StreamingDataLoader(train, batch_size=64, drop_last=True)
    for epoch in range(1, epochs + 1):
        for batch in loader:  # {"image": float32 (64, 1, 8, 8), "label": int64 (64,)}
            optimizer.zero_grad()
            loss = F.cross_entropy(net(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    batches = ld.StreamingDataLoader(test, batch_size=64)
    return float(torch.cat([net(batch["image"]).argmax(1) == batch["label"] for batch in batches]).float().mean())


def epoch_of(folder: Path, num_workers: int) -> Iterator[Tensor]:
    """Yield the augmented photographs of the first epoch, in batches."""
    photographs = ld.StreamingDataset(folder, shuffle=True, transform=cropped)
    with ld.StreamingDataLoader(photographs, batch_size=32, num_workers=num_workers) as loader:
        for batch in loader:
            yield batch["image"]


def main(args: argparse.Namespace) -> tuple[float, bool, Path]:
    """Write both datasets, train, compare, and draw the sheet; return accuracy, whether epochs were equal, and the sheet."""
    out = Path(args.out)
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    rows = list(zip(pixels, labels.tolist(), strict=True))
    for folder, function, inputs in (("digits", digit, rows), ("photographs", photograph, range(args.photographs))):
        report = ld.optimize(function, inputs, str(out / folder), num_workers=args.workers)
        print(f"{folder}: {report.num_rows:,} images, {report.num_bytes:,} bytes, {report.seconds:.1f} s")

    accuracy = classify(out / "digits", args.epochs)
    print(f"accuracy on digits that were held out: {accuracy:.3f}")
    pairs = zip(epoch_of(out / "photographs", 0), epoch_of(out / "photographs", 2), strict=True)
    is_equal = all(torch.equal(inline, by_workers) for inline, by_workers in pairs)
    print(f"augmented photographs by 0 and by 2 workers: {'equal' if is_equal else 'different'}, bit for bit")
    sheet = out / "photographs.html"
    ld.inspect(str(out / "photographs"), html=sheet)  # or: leyden data inspect runs/data/photographs --html photographs.html
    print(f"contact sheet: {sheet}")
    return accuracy, is_equal, sheet


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="processes that write; starting them takes longer than this little data")
    parser.add_argument("--out", default="runs/data")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
