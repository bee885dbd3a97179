"""The services that are measured, written for mosec. `python server.py CASE PORT` serves one on 127.0.0.1, at /inference."""

import argparse
import os
import sys
import time
from typing import Any

from mosec import Server, Worker


class Echo(Worker):
    """Squares a number."""

    def forward(self, data: Any) -> dict[str, float]:
        return {"output": data["input"] ** 2}


class Mlp(Worker):
    """Classifies 64 numbers: a small network, computed in batches."""

    def __init__(self) -> None:
        super().__init__()
        import torch
        from torch import nn

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, data: list[Any]) -> list[dict[str, list[float]]]:
        import torch

        with torch.inference_mode():
            outputs = self.model(torch.stack([torch.tensor(each["input"]) for each in data]))
        return [{"output": output.tolist()} for output in outputs]


class Slow(Worker):
    """Sleeps, and notes what it has computed."""

    def forward(self, data: Any) -> dict[str, Any]:
        time.sleep(float(os.environ["SLOW_SECONDS"]))
        with open(os.environ["SLOW_LEDGER"] or os.devnull, "a", encoding="utf-8") as file:  # noqa: PTH123 - the same as in the others
            file.write(f"{os.getpid()} {data['input']}\n")
        return {"output": data["input"]}


CASES = {"echo": (Echo, {}), "mlp": (Mlp, {"max_batch_size": 16, "max_wait_time": 10}), "slow": (Slow, {})}


def main() -> None:
    """Serve a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("port", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--ledger", default="")
    args = parser.parse_args()
    os.environ["SLOW_SECONDS"], os.environ["SLOW_LEDGER"] = str(args.sleep), args.ledger
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(args.port), "--timeout", "30000"]  # mosec reads them itself
    worker, options = CASES[args.case]
    server = Server()
    server.append_worker(worker, num=args.workers, **options)
    server.run()


if __name__ == "__main__":
    main()
