"""On a GPU: small images in batches, and texts that are written token by token, one after the other, in batches, continuously.

Needs a CUDA device; elsewhere it says so and is over. `REHEARSE_GPU_BENCHMARKS=1` runs it on the CPU with tiny networks, to see
whether it runs: what it writes then means nothing.

The network for images takes a fraction of a millisecond, for one image and for 32: a server that keeps the device busy answers
more. A step of the decoder takes as long for 32 texts as for one; their lengths differ, so a batch that ends with its longest
leaves slots empty that continuous batching fills. The clients are our own, in processes beside the server.
"""

import base64
import json
import os
import random
import shutil
import sys
from functools import partial
from typing import Any

from benchmarks.clients import Question, ask_on
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.servers import serving

REHEARSES = os.environ.get("REHEARSE_GPU_BENCHMARKS") == "1"
BATCH = 4 if REHEARSES else 32
LENGTHS = (1, 2, 3, 6) if REHEARSES else (8, 16, 24, 32, 48, 64, 96, 256)  # tokens of the answers
DEVICE = {"accelerator": "cpu"} if REHEARSES else {"accelerator": "cuda"}
SIZE = {"width": 16, "layers": 1} if REHEARSES else {"width": 256, "layers": 4}
PROCESSES = 1 if REHEARSES else 4


def images() -> list[Question]:
    """Return requests with images of noise."""
    chance = random.Random(1)
    return [Question(json.dumps({"image": base64.b64encode(chance.randbytes(3 * 32 * 32)).decode()}).encode()) for _ in range(8)]


def texts() -> list[Question]:
    """Return requests for texts of several lengths; a token is a part of the answer."""
    chance = random.Random(2)
    prompts = [[chance.randrange(256) for _ in range(chance.randrange(4, 32))] for _ in LENGTHS]
    bodies = [json.dumps({"prompt": prompt, "tokens": count}).encode() for prompt, count in zip(prompts, LENGTHS, strict=True)]
    return [Question(body, count) for body, count in zip(bodies, LENGTHS, strict=True)]


def measure(library: str, case: str, seconds: float, questions: list[Question], connections: int, **options: Any) -> dict[str, float]:
    """Return what an answer, or a token, costs."""
    with serving(library, case, questions[0].body, script="gpu.py", **DEVICE, **options) as server:
        return ask_on(server, seconds, questions, connections=connections, processes=PROCESSES)


def classify(library: str, seconds: float, **options: Any) -> dict[str, float]:
    """Return what an image costs."""
    return measure(library, "images", seconds, images(), 2 * BATCH, **options)


def write(library: str, case: str, seconds: float) -> dict[str, float]:
    """Return what a token costs."""
    return measure(library, case, seconds, texts(), BATCH, batch=BATCH, **SIZE)


BATCHED: dict[str, Any] = {"batch": BATCH, "batch_timeout": 0.01}

BENCHMARK = Benchmark(
    claim="on a GPU, batches answer 3 times as many images as FastAPI and 4 times as many as LitServe, and texts that are written "
    "continuously come 4 times as fast as one by one",
    variants={
        "leyden, images": Variant(run=partial(classify, "leyden", **BATCHED), cores=None),
        "litserve, images": Variant(run=partial(classify, "litserve", **BATCHED), peer="litserve", cores=None),
        "fastapi, images": Variant(run=partial(classify, "fastapi"), peer="fastapi", cores=None),
        "leyden, continuous": Variant(run=partial(write, "leyden", "continuous"), cores=None),
        "leyden, together": Variant(run=partial(write, "leyden", "together"), cores=None),
        "leyden, one by one": Variant(run=partial(write, "leyden", "one-by-one"), cores=None),
        "litserve, continuous": Variant(run=partial(write, "litserve", "continuous"), peer="litserve", cores=None),
        "litserve, one by one": Variant(run=partial(write, "litserve", "one-by-one"), peer="litserve", cores=None),
    },
    comparisons=[
        Comparison(of="leyden, images", to="fastapi, images", metric="wall_us", limit=1 / 3),
        Comparison(of="leyden, images", to="litserve, images", metric="wall_us", limit=1 / 4),
        *(
            Comparison(of="leyden, images", to=f"{peer}, images", metric=metric)
            for peer in ("fastapi", "litserve")
            for metric in ("cpu_us", "p50_ms", "p99_ms")
        ),
        Comparison(of="leyden, continuous", to="leyden, one by one", metric="wall_us", limit=1 / 4),
        Comparison(of="leyden, continuous", to="litserve, one by one", metric="wall_us", limit=1 / 4),
        Comparison(of="leyden, continuous", to="leyden, together", metric="wall_us", limit=1.0),
        *(
            Comparison(of="leyden, continuous", to="litserve, continuous", metric=metric)
            for metric in ("wall_us", "cpu_us", "first_p50_ms", "p50_ms", "p99_ms")
        ),
        Comparison(of="leyden, one by one", to="litserve, one by one", metric="wall_us"),
        *(Comparison(of="leyden, continuous", to="leyden, together", metric=metric) for metric in ("first_p50_ms", "p50_ms")),
    ],
    seconds=3.0,
)

if __name__ == "__main__":
    if not REHEARSES and shutil.which("nvidia-smi") is None:
        sys.exit(print("serve_cuda: this machine has no NVIDIA GPU, so nothing is measured"))
    sys.exit(main(BENCHMARK, "benchmarks.serve_cuda"))
