"""The byte-level language model that `make demo` trains, as a stream: many clients read while their texts are written.

    python examples/serve/02_bytes.py                       # with the checkpoint of `make demo`; without one it trains first
    curl -N localhost:8000/write -H 'Content-Type: application/json' -d '{"prompt": "def ", "count": 300}'

Texts join and leave a computation that goes on (continuous batching): each step computes the next byte of all of them at once, so
ten clients read nearly as fast as one.
"""

import argparse
import codecs
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct

import leyden.serve as ls
from leyden.serve.loops import ContinuousBatchingLoop, LitAPIStatus, Output

TRAINS = Path(__file__).parents[1] / "trainer" / "04_language_model.py"
MOST_TEXTS = 16


class Wish(Struct):
    """What a client sends."""

    prompt: str
    count: Annotated[int, Meta(ge=1, le=2000)] = 200
    temperature: Annotated[float, Meta(gt=0, le=2)] = 0.7


class Text:
    """A text that is being written."""

    def __init__(self, wish: Wish) -> None:
        self.tokens = list(wish.prompt.encode() or b"\n")
        self.left, self.temperature = wish.count, wish.temperature
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may be several bytes


class Writer(ls.LitAPI):
    """Goes on from a prompt."""

    def __init__(self, checkpoint: Path, **options: object) -> None:
        super().__init__(api_path="/write", stream=True, loop=ContinuousBatchingLoop(), **options)
        self.checkpoint = checkpoint

    def setup(self, device: str) -> None:
        """Load the weights, once in each worker."""
        sys.path.append(str(TRAINS.parent))
        trained = importlib.import_module(TRAINS.stem)
        self.context: int = trained.CONTEXT
        self.model = trained.ByteModel.load_from_checkpoint(self.checkpoint, map_location=device).eval()
        self.texts: dict[str, Text] = {}

    def decode_request(self, request: Wish) -> Text:
        """Begin a text; what is no `Wish` was refused with 422."""
        return Text(request)

    def add_request(self, uid: str, request: Text) -> None:
        """Let a text join."""
        self.texts[uid] = request

    def has_capacity(self) -> bool:
        """Return whether another one may join."""
        return len(self.texts) < MOST_TEXTS

    def has_active_requests(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.texts)

    def cancel_request(self, uid: str) -> None:
        """Drop a text whose client left."""
        self.texts.pop(uid, None)

    @torch.inference_mode()
    def step(self, prev_outputs: Any) -> list[Output]:
        """Write one byte of each text."""
        windows = [text.tokens[-self.context :] for text in self.texts.values()]
        longest = max(map(len, windows))
        tokens_BT = torch.tensor([window + [0] * (longest - len(window)) for window in windows], device=self.device)
        # The model looks back only, so what stands behind a shorter text changes nothing.
        logits_BV = self.model(tokens_BT)[range(len(windows)), [len(window) - 1 for window in windows]]
        heat_B1 = torch.tensor([[text.temperature] for text in self.texts.values()], device=self.device)
        drawn = torch.multinomial((logits_BV / heat_B1).softmax(-1), 1).flatten().tolist()
        return [self.written(uid, byte) for uid, byte in zip(list(self.texts), drawn, strict=True)]

    def written(self, uid: str, byte: int) -> Output:
        """Take a byte to its text, and return what the client gets of it."""
        text = self.texts[uid]
        text.tokens.append(byte)
        text.left -= 1
        if text.left > 0:
            return Output(uid, text.decoder.decode(bytes([byte])))
        del self.texts[uid]
        return Output(uid, text.decoder.decode(bytes([byte]), final=True), LitAPIStatus.FINISH_STREAMING)


def checkpoint_of(runs: Path) -> Path:
    """Return the newest checkpoint of the demo, or train for 300 steps."""
    folder = runs / "language_model"
    if not folder.exists():
        subprocess.run([sys.executable, TRAINS, "--out", runs], check=True)
    return max(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="where `make demo` wrote its checkpoints")
    parser.add_argument("--port", type=int, default=8000)
    return parser


if __name__ == "__main__":
    args = arguments().parse_args()
    server = ls.LitServer(Writer(checkpoint_of(args.runs)), timeout=10, deadline=120)
    server.run(host="127.0.0.1", port=args.port, generate_client_file=False)
