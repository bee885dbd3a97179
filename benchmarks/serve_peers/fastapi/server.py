"""The services that are measured, as FastAPI alone: one process, computed in the event loop. `python server.py CASE PORT`."""

import argparse
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Number(BaseModel):
    """A body."""

    input: float


class Vector(BaseModel):
    """A body."""

    input: list[float]


def echo(app: FastAPI) -> None:
    """Square a number."""

    @app.post("/predict")
    async def predict(request: Number) -> dict[str, float]:
        return {"output": request.input**2}


def stream(app: FastAPI) -> None:
    """Stream 200 words."""

    async def words() -> AsyncIterator[str]:
        for number in range(200):
            yield json.dumps({"output": f"word {number}"}) + "\n"

    @app.post("/predict")
    async def predict(request: Number) -> StreamingResponse:
        return StreamingResponse(words(), media_type="application/x-ndjson")


def mlp(app: FastAPI) -> None:
    """Classify 64 numbers."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    @app.post("/predict")
    async def predict(request: Vector) -> dict[str, list[float]]:
        with torch.inference_mode():
            return {"output": model(torch.tensor(request.input)).tolist()}


def raw(app: FastAPI) -> None:
    """Count the bytes of a body."""

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, int]:
        return {"output": len(await request.body())}


CASES: dict[str, Any] = {"echo": echo, "stream": stream, "mlp": mlp, "raw": raw}


def main() -> None:
    """Serve a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    app = FastAPI()
    CASES[args.case](app)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="error")


if __name__ == "__main__":
    main()
