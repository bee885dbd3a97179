"""The services that are measured, written for LitServe by its documentation. Leyden runs this file too, its import changed.

`python server.py CASE PORT` serves one of `CASES` on 127.0.0.1. Requests have no annotation: LitServe would look for one in the URL.
"""

import argparse
import json
import os
import time
from typing import Any

import litserve as ls


class Echo(ls.LitAPI):
    """Squares a number."""

    def setup(self, device: Any) -> None:
        """Need nothing."""

    def decode_request(self, request) -> float:
        return request["input"]

    def predict(self, x: float) -> float:
        return x**2

    def encode_response(self, output: float) -> dict[str, float]:
        return {"output": output}


class Words(ls.LitAPI):
    """Streams 200 words."""

    def setup(self, device: Any) -> None:
        """Need nothing."""

    def decode_request(self, request) -> float:
        return request["input"]

    def predict(self, x: float) -> Any:
        for number in range(200):
            yield f"word {number}"

    def encode_response(self, outputs: Any) -> Any:
        for output in outputs:
            yield {"output": output}


class Mlp(ls.LitAPI):
    """Classifies 64 numbers: a small network, computed in batches."""

    def setup(self, device: Any) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)).to(device)

    def decode_request(self, request) -> Any:
        import torch

        return torch.tensor(request["input"])

    def predict(self, x: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(x)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        return {"output": output.tolist()}


class Upload(ls.LitAPI):
    """Counts the bytes of a file in a form."""

    def setup(self, device: Any) -> None:
        """Need nothing."""

    def decode_request(self, request) -> bytes:
        return request["file"].file.read()

    def predict(self, x: bytes) -> int:
        return len(x)

    def encode_response(self, output: int) -> dict[str, int]:
        return {"output": output}


class Raw(Upload):
    """Counts the bytes of a body; LitServe has no way to take one as it is."""

    def decode_request(self, request: bytes) -> bytes:
        return request


class Slow(ls.LitAPI):
    """Sleeps, and notes what it has computed.

    Args:
        seconds: How long a batch takes.
        ledger: The file that gets a line for each item that was computed.
        options: Of `LitAPI`.
    """

    def __init__(self, seconds: float, ledger: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.seconds, self.ledger = seconds, ledger

    def setup(self, device: Any) -> None:
        self.file = os.open(self.ledger or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def decode_request(self, request) -> Any:
        return request["input"]

    def predict(self, x: Any) -> Any:
        time.sleep(self.seconds)
        for each in x if isinstance(x, list) else [x]:
            os.write(self.file, f"{os.getpid()} {each}\n".encode())
        return x

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"output": output}


CASES = {
    "echo": lambda args: Echo(),
    "stream": lambda args: Words(stream=True),
    "mlp": lambda args: Mlp(max_batch_size=16, batch_timeout=args.batch_timeout),
    "upload": lambda args: Upload(),
    "raw": lambda args: Raw(),
    "slow": lambda args: Slow(args.sleep, args.ledger, max_batch_size=args.batch, batch_timeout=args.batch_timeout),
}


def main() -> None:
    """Serve a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("port", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--batch-timeout", type=float, default=0.0)
    parser.add_argument("--ledger", default="")
    parser.add_argument("--server", default="{}", help="further arguments of LitServer, as JSON")
    args = parser.parse_args()
    options = {"accelerator": "cpu", "workers_per_device": args.workers, **json.loads(args.server)}
    server = ls.LitServer(CASES[args.case](args), **options)
    server.run(host="127.0.0.1", port=args.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
