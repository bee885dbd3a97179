"""What is measured on a GPU, as FastAPI alone: one process, computed in the event loop. `python gpu.py images PORT`."""

import argparse
import base64

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serve_peers.networks import convolutions


class Image(BaseModel):
    """A body: the bytes of 3x32x32 pixels in base64."""

    image: str


def main() -> None:
    """Serve the case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=["images"])
    parser.add_argument("port", type=int)
    parser.add_argument("--accelerator", default="cuda")
    args = parser.parse_args()
    app, model = FastAPI(), convolutions(args.accelerator)

    @app.post("/predict")
    async def predict(request: Image) -> dict[str, list[float]]:
        pixels = torch.frombuffer(bytearray(base64.b64decode(request.image)), dtype=torch.uint8)
        return {"output": model(pixels.view(1, 3, 32, 32))[0].tolist()}

    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="error")


if __name__ == "__main__":
    main()
