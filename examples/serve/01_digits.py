"""The digits network that `make demo` trains, as a service: requests that come together are computed together.

    python examples/serve/01_digits.py                      # with the checkpoint of `make demo`; without one it trains first
    curl localhost:8000/digits -H 'Content-Type: application/json' -d '{"image": [0, 0, 5, 13, 9, 1, 0, 0, …]}'

An image is 64 numbers from 0 to 16: eight rows of eight.
"""

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import leyden.serve as ls

TRAINS = Path(__file__).parents[1] / "fabric" / "01_digits.py"


@dataclasses.dataclass
class Image:
    """What a client sends."""

    image: list[float]


class Digits(ls.LitAPI):
    """Tells which digit an image shows."""

    def __init__(self, checkpoint: Path, **options: object) -> None:
        super().__init__(api_path="/digits", max_batch_size=32, **options)
        self.checkpoint = checkpoint  # the path, not the model: this object goes to the worker processes

    def setup(self, device: str) -> None:
        """Load the weights, once in each worker."""
        self.model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
        self.model.load_state_dict(torch.load(self.checkpoint, weights_only=True, map_location=device)["model"])

    def decode_request(self, request: Image) -> Tensor:
        """Return the pixels; a wrong image is refused alone, not with the others of its batch."""
        if len(request.image) != 64:
            raise ValueError(f"image has {len(request.image)} numbers, and 64 are needed: eight rows of eight, from 0 to 16")
        return torch.tensor(request.image, dtype=torch.float32, device=self.device) / 16

    @torch.inference_mode()
    def predict(self, images_BP: Tensor) -> Tensor:
        """Return the probability of each digit; `batch` has stacked the images."""
        return self.model(images_BP).softmax(-1)

    def encode_response(self, shares: Tensor) -> dict[str, float]:
        """Name the digit."""
        return {"digit": int(shares.argmax()), "probability": round(float(shares.max()), 4)}


def checkpoint_of(runs: Path) -> Path:
    """Return the newest checkpoint of the demo, or train for ten epochs."""
    folder = runs / "digits" / "fabric_on_1" / "checkpoints"
    if not folder.exists():
        subprocess.run([sys.executable, TRAINS, "--out", runs / "digits", "--name", "fabric_on_1"], check=True)
    return folder / (folder / "latest").read_text().strip()


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="where `make demo` wrote its checkpoints")
    parser.add_argument("--port", type=int, default=8000)
    return parser


if __name__ == "__main__":
    args = arguments().parse_args()
    server = ls.LitServer(Digits(checkpoint_of(args.runs), batch_timeout=0.002), timeout=10)
    server.run(host="127.0.0.1", port=args.port, generate_client_file=False)
