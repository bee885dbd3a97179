"""The examples pass the checks, travel to a worker, and answer what their docs say."""

import json
import pickle
import subprocess
import sys
from typing import Any

import pytest

from leyden.serve import test_examples as examples
from leyden.serve.codec import encode_value

SQUARE, LINE = {"output": 16.0}, {"output": 9.0}


def answer(api: Any, value: Any) -> Any:
    api.device = "cpu"
    api.setup(api.device)
    return api.encode_response(api.predict(api.decode_request({"input": value})))


@pytest.mark.parametrize(
    ("api", "wanted"), [(examples.SimpleLitAPI(), SQUARE), (examples.SimpleBatchedAPI(), SQUARE), (examples.SimpleTorchAPI(), LINE)]
)
def test_one_value(api: Any, wanted: dict[str, float]) -> None:
    api.check(timeout=30.0)
    assert json.loads(encode_value(answer(pickle.loads(pickle.dumps(api)), 4.0))[0]) == wanted


@pytest.mark.parametrize(
    ("api", "wanted"), [(examples.SimpleBatchedAPI(max_batch_size=2), [4.0, 9.0]), (examples.SimpleTorchAPI(max_batch_size=2), [5.0, 7.0])]
)
def test_batches(api: Any, wanted: list[float]) -> None:
    api.check()
    api.setup("cpu")
    outputs = api.unbatch(api.predict(api.batch([api.decode_request({"input": value}) for value in (2.0, 3.0)])))
    assert [json.loads(encode_value(api.encode_response(output))[0])["output"] for output in outputs] == wanted


def test_streams() -> None:
    api = examples.SimpleStreamAPI(stream=True)
    api.check()
    assert list(answer(api, "hi")) == [{"output": f"{number}: hi"} for number in range(3)]
    chat = examples.TestAPI(stream=True)
    chat.check()
    assert list(chat.predict([])) == ["This is a generated output"]


def test_what_a_user_subclasses_costs_no_heavy_import() -> None:
    heavy = ("torch", "numpy", "fastapi", "starlette", "uvicorn", "pydantic", "msgspec", "python_multipart")
    code = (
        "import sys; from leyden.serve.test_examples import SimpleTorchAPI, TestAPI; import leyden.serve.codec; SimpleTorchAPI(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
