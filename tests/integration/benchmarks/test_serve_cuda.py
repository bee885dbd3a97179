"""What the benchmark of a GPU runs, on the CPU and tiny: that it runs, and that all ways of writing write the same."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.clients import Question, ask_on
from benchmarks.serve_cuda import images, texts
from benchmarks.servers import NUMBER, serving

pytestmark = pytest.mark.slow
OPTIONS: dict[str, Any] = {"script": "gpu.py", "accelerator": "cpu", "batch": 4, "width": 16, "layers": 1}


def lines(body: bytes) -> list[int]:
    return [json.loads(line)["token"] for line in body.splitlines()]


def test_texts_are_the_same_however_they_are_written() -> None:
    questions, found = texts(), dict[str, list[list[int]]]()
    for case in ("one-by-one", "together", "continuous"):
        with serving("leyden", case, questions[0].body, **OPTIONS) as server, ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda each, server=server: server.ask(each.body), questions))
            assert {status for status, _ in answers} == {200}
            found[case] = [lines(body) for _, body in answers]
            assert server.stop().status == 0
    assert [len(text) for text in found["one-by-one"]] == [each.parts for each in questions]
    assert found["one-by-one"] == found["together"] == found["continuous"]


def test_images_are_classified_in_batches_and_measured() -> None:
    with serving("leyden", "images", images()[0].body, **OPTIONS) as server:
        status, answer = server.ask(images()[0].body)
        assert (status, len(json.loads(answer)["output"])) == (200, 10)
        measured = ask_on(server, 0.5, images(), connections=4, processes=2)
    assert all(value > 0 for value in measured.values())
    assert measured["first_p50_ms"] <= measured["p50_ms"] <= measured["p99_ms"]


@pytest.mark.parametrize(
    ("body", "parts", "told"), [(b"{}", 1, "422: 1 parts of 1"), (NUMBER, 2, "200: 1 parts of 2")], ids=["refused", "too few parts"]
)
def test_answers_that_are_wrong_are_an_error(body: bytes, parts: int, told: str) -> None:
    with serving("leyden", "echo") as server, pytest.raises(RuntimeError, match=told):
        ask_on(server, 0.2, [Question(body, parts)], connections=2)


def test_streams_are_counted_as_they_come() -> None:
    with serving("leyden", "stream") as server:
        measured = ask_on(server, 0.5, [Question(NUMBER, 200)], connections=2)
    assert all(value > 0 for value in measured.values())
