"""Serving on a GPU: which devices there are, where workers compute, batches, images, streams, and what a full GPU answers."""

import base64
import io
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.core.optional import installed
from leyden.serve import LitServer
from leyden.serve.devices import present_devices
from leyden.serve.test_examples import SimpleLitAPI
from leyden.serve.testing import running
from tests.support.asgi_client import TestClient
from tests.support.fronts import until
from tests.support.gpu import DEVICE, needs_gpu, needs_real_gpu
from tests.support.gpu_apis import Brightness, Classifier, Sums, network

pytestmark = needs_gpu
NAME = "cpu" if DEVICE.type == "cpu" else "cuda:0"


def gpu_server(*apis: Any, **options: Any) -> LitServer:
    return LitServer(list(apis), accelerator=DEVICE.type, devices=1, **options)


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


# -- which devices ---------------------------------------------------------------------------------------------------


@needs_real_gpu
@pytest.mark.parametrize("accelerator", ["auto", None, "gpu", "cuda", "CUDA"])
def test_all_gpus_get_workers(accelerator: str | None) -> None:
    count = torch.cuda.device_count()
    assert present_devices(os.environ).cuda == count
    assert LitServer(SimpleLitAPI(), accelerator=accelerator).devices == [[f"cuda:{number}"] for number in range(count)]


@needs_real_gpu
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    count = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=f"there is no cuda:{count}; this machine has {count}"):
        LitServer(SimpleLitAPI(), accelerator="cuda", devices=[count])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert LitServer(SimpleLitAPI()).devices == ["cpu"]
    with pytest.raises(ConfigError, match="no such device"):
        LitServer(SimpleLitAPI(), accelerator="cuda")


# -- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 8])
def test_a_worker_computes_where_it_was_told_to(batch: int) -> None:
    inputs = rows(40)
    with torch.inference_mode():
        wanted = network().eval()(inputs)
    api = Classifier(max_batch_size=batch, batch_timeout=0.05 if batch > 1 else 0.0)
    with running(gpu_server(api)) as server, TestClient(server.app) as client, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda row: client.post("/predict", json={"input": row}).json(), inputs.tolist()))
    assert {(each["on"], each["given"]) for each in found} == {(NAME, NAME)}
    assert (max(each["rows"] for each in found) > 1) is (batch > 1)
    torch.testing.assert_close(torch.tensor([each["output"] for each in found]), wanted, rtol=1e-2, atol=1e-2)  # TF32, other kernels


def test_workers_share_a_gpu_and_one_that_is_killed_comes_again() -> None:
    with running(gpu_server(Classifier(), workers_per_device=2)) as server, TestClient(server.app) as client:
        body = {"input": rows(1)[0].tolist()}
        pids = {worker.pid for worker in server.inference_workers}
        assert len(pids) == 2
        os.kill(min(pids), signal.SIGKILL)
        until(lambda: len(now := {worker.pid for worker in server.inference_workers}) == 2 and min(pids) not in now)
        server.wait_until_ready(60)
        answers = [client.post("/predict", json=body).json() for _ in range(20)]
        assert {each["on"] for each in answers} == {NAME}
        assert min(pids) not in {each["pid"] for each in answers}


def test_a_gpu_without_room_is_an_answer_and_the_worker_goes_on() -> None:
    body = {"input": rows(1)[0].tolist()}
    with running(gpu_server(Classifier())) as server, TestClient(server.app) as client:
        before = client.post("/predict", json=body).json()
        refused = client.post("/predict", json={**body, "bytes": 1 << 50})
        assert refused.status_code >= 500
        assert "memory" in refused.text
        assert client.post("/predict", json=body).json() == before


@pytest.mark.skipif(not installed("PIL"), reason="needs pillow")
def test_an_image_is_computed_on_the_device() -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 16), (1, 2, 3)).save(file, "PNG")
    with running(gpu_server(Brightness())) as server, TestClient(server.app) as client:
        answer = client.post("/predict", json={"image_data": base64.b64encode(file.getvalue()).decode()}).json()
    assert answer == {"output": 321.0, "on": NAME}


def test_streams_join_and_leave_a_computation() -> None:
    with running(gpu_server(Sums(4))) as server, TestClient(server.app) as client, ThreadPoolExecutor(12) as pool:
        counts = [1, 7, 30, 2, 12, 3, 50, 1, 20, 5, 9, 4]
        found = list(pool.map(lambda count: client.post("/predict", json={"count": count}).text.split(), counts))
    assert found == [[str(n * (n + 1) // 2) for n in range(1, count + 1)] for count in counts]
