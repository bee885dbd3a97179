"""APIs of the tests on a GPU; workers import them."""

import os
from typing import Any

import torch
from torch import nn

import leyden.serve as ls
from leyden.serve.loops import ContinuousBatchingLoop, LitAPIStatus, Output
from leyden.serve.schema.image import ImageInput


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


class Classifier(ls.LitAPI):
    """Computes batches where it was told to, and says where that was."""

    def setup(self, device: Any) -> None:
        self.given, self.model = device, network().to(device).eval()

    def decode_request(self, request: Any) -> torch.Tensor:
        if "bytes" in request:
            torch.empty(request["bytes"], dtype=torch.uint8, device=self.device)
        return torch.tensor(request["input"]).to(self.device)

    def predict(self, x: torch.Tensor) -> list[dict[str, Any]]:
        rows = x if x.dim() == 2 else x[None]
        with torch.inference_mode():
            outputs = self.model(rows)
        found = [
            {"output": output.tolist(), "rows": len(rows), "on": str(outputs.device), "given": self.given, "pid": os.getpid()}
            for output in outputs
        ]
        return found if x.dim() == 2 else found[0]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


class Brightness(ls.LitAPI):
    """Takes an image to the device, and says how bright it is."""

    def setup(self, device: Any) -> None:
        self.weights = torch.tensor([1.0, 10.0, 100.0], device=device)

    def decode_request(self, request: ImageInput) -> Any:
        image = request.get_image().convert("RGB")
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
        return pixels.to(self.device)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((0, 1)) @ self.weights

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        return {"output": output.item(), "on": str(output.device)}


class Sums(ls.LitAPI):
    """Streams 1, 3, 6, … of texts that join and leave: the state of each is a row of one tensor."""

    def __init__(self, slots: int, **options: Any) -> None:
        super().__init__(stream=True, loop=ContinuousBatchingLoop(), max_batch_size=slots, **options)
        self.slots = slots

    def setup(self, device: Any) -> None:
        self.state = torch.zeros(self.slots, 2, dtype=torch.int64, device=device)  # the last number, and the sum
        self.free, self.left = list(range(self.slots)), dict[str, tuple[int, int]]()

    def decode_request(self, request: Any) -> int:
        return int(request["count"])

    def add_request(self, uid: str, request: int) -> None:
        self.left[uid] = (self.free.pop(), request)
        self.state[self.left[uid][0]] = 0

    def has_capacity(self) -> bool:
        return bool(self.free)

    def has_active_requests(self) -> bool:
        return bool(self.left)

    def step(self, prev_outputs: Any) -> list[Output]:
        self.state[:, 0] += 1
        self.state[:, 1] += self.state[:, 0]
        sums, outputs = self.state[:, 1].tolist(), []
        for uid, (slot, left) in list(self.left.items()):
            outputs.append(Output(uid, f"{sums[slot]} ", LitAPIStatus.OK if left > 1 else LitAPIStatus.FINISH_STREAMING))
            self.left[uid] = (slot, left - 1)
            if left <= 1:
                self.cancel_request(uid)
        return outputs

    def cancel_request(self, uid: str) -> None:
        if uid in self.left:
            self.free.append(self.left.pop(uid)[0])
