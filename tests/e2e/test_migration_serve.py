"""A server as LitServe's public documentation teaches it, after changing nothing but its imports, and the clients that it shows."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.processes import Script, running_script

openai = pytest.importorskip("openai")

SCRIPT = """
import time

import numpy as np
from fastapi import Depends, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

import leyden.serve as ls
from leyden.serve.callbacks import Callback
from leyden.serve.specs.openai import ChatMessage
from leyden.serve.specs.openai_embedding import EmbeddingRequest


class Compound(ls.LitAPI):
    def setup(self, device):
        self.model1 = lambda x: x**2
        self.model2 = lambda x: x**3

    def decode_request(self, request):
        if request["input"] == "teapot":
            raise HTTPException(status_code=418, detail="I am a teapot", headers={"X-Pot": "1"})
        return request["input"]

    def predict(self, x):
        return {"output": self.model1(x) + self.model2(x)}

    def encode_response(self, output):
        return {"output": output["output"]}

    def health(self):
        return True


class Batched(ls.LitAPI):
    def setup(self, device):
        self.model = lambda x: x**2

    def decode_request(self, request: Request):
        return np.asarray(request["input"])

    def predict(self, x):
        return np.stack([self.model(x), np.full(x.shape, len(x))], axis=1)

    def encode_response(self, output) -> Response:
        return {"output": output[0], "batch": output[1]}


class Streamed(ls.LitAPI):
    def setup(self, device):
        self.model = lambda x, y: f"{x}: {y}"

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        for i in range(10):
            yield self.model(i, x.encode("ascii").decode("utf-8"))

    def encode_response(self, output):
        for out in output:
            yield {"output": out}


class Chat(ls.LitAPI):
    def setup(self, device):
        self.model = None

    def predict(self, prompt, context):
        if context.get("tools"):
            function = {"name": "get_weather", "arguments": '{"location": "Paris"}'}
            yield {"role": "assistant", "content": "", "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
            return
        said = prompt[-1]["content"]
        said = said if isinstance(said, str) else f"{len(said)} parts, the last {said[-1]['type']}"
        for word in ("You said: ", said, f" at {context['temperature']}"):
            yield word

    def encode_response(self, output, context):
        for out in output:
            yield out if isinstance(out, dict) else ChatMessage(role="assistant", content=out)


class Embeddings(ls.LitAPI):
    def setup(self, device):
        self.model = lambda texts: np.array([[float(len(text)), 1.0] for text in texts])

    def decode_request(self, request: EmbeddingRequest):
        return request.ensure_list()

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"embeddings": output.tolist(), "prompt_tokens": 4, "total_tokens": 4}


class Files(ls.LitAPI):
    def setup(self, device):
        self.model = lambda content: len(content)

    def decode_request(self, request):
        file_obj = request["content"]
        try:
            file_content = file_obj.file.read()
        finally:
            file_obj.file.close()
        return file_content, file_obj.filename, request["note"]

    def predict(self, x):
        content, name, note = x
        return {"size": self.model(content), "name": name, "note": note}

    def encode_response(self, output):
        return output


class PredictRequest(BaseModel):
    name: str
    age: int


class PredictResponse(BaseModel):
    greeting: str


class TypedAndAsync(ls.LitAPI):
    def setup(self, device):
        self.greeting = "Hello"

    async def decode_request(self, request: PredictRequest):
        return request

    async def predict(self, x):
        return f"{self.greeting} {x.name}, {x.age}"

    async def encode_response(self, output) -> PredictResponse:
        return PredictResponse(greeting=output)


class Guarded(Compound):
    def authorize(self, auth: HTTPAuthorizationCredentials = Depends(HTTPBearer())):
        if auth.scheme != "Bearer" or auth.credentials != "1234":
            raise HTTPException(status_code=401, detail="Bad token")


class PredictionTimeLogger(Callback):
    def on_before_predict(self, lit_api):
        self._start_time = time.perf_counter()

    def on_after_predict(self, lit_api):
        elapsed = time.perf_counter() - self._start_time
        print(f"Prediction took {elapsed:.2f} seconds", flush=True)

    def on_server_start(self, litserver):
        print("Server started", flush=True)

    def on_server_end(self, litserver):
        print("Server ended", flush=True)


if __name__ == "__main__":
    server = ls.LitServer(
        [
            Compound(),
            Batched(max_batch_size=4, batch_timeout=0.05, api_path="/batched"),
            Streamed(stream=True, api_path="/stream"),
            Chat(spec=ls.OpenAISpec()),
            Embeddings(spec=ls.OpenAIEmbeddingSpec()),
            Files(api_path="/files"),
            TypedAndAsync(enable_async=True, api_path="/typed"),
            Guarded(api_path="/guarded"),
        ],
        accelerator="auto",
        timeout=30,
        workers_per_device=1,
        track_requests=True,
        max_payload_size="10MB",
        callbacks=[PredictionTimeLogger()],
        middlewares=[(CORSMiddleware, {"allow_origins": ["*"], "allow_methods": ["*"]})],
        model_metadata={"name": "my-awesome-model", "version": "v1.2"},
        enable_shutdown_api=True,
    )
    server.run(port=0, num_api_servers=1)
"""
HI: list[Any] = [{"role": "user", "content": "hi"}]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    with running_script(SCRIPT, env={"LIT_SHUTDOWN_API_KEY": "stop"}) as running:
        running.wait_for_output("Server started")
        yield running


@pytest.fixture(scope="module")
def url(script: Script) -> str:
    return re.findall(r"Leyden serves .* at (http\S+)", script.stdout)[0]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def chat(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="lit", max_retries=0) as found:
        yield found


def test_a_request_a_callback_and_the_client_that_the_server_writes(script: Script, client: httpx.Client) -> None:
    assert client.post("/predict", json={"input": 4.0}).json() == {"output": 80.0}
    script.wait_for_output("Prediction took 0.")
    written = subprocess.run([sys.executable, str(script.folder / "client.py")], capture_output=True, text=True, timeout=60, check=False)
    assert written.returncode == 0, written.stderr
    assert "80.0" in written.stdout


def test_requests_are_stacked_and_their_arrays_written_as_json(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: client.post("/batched", json={"input": number}).json(), range(16)))
    assert [answer["output"] for answer in answers] == [number**2 for number in range(16)]
    assert max(answer["batch"] for answer in answers) > 1


def test_a_stream_comes_line_by_line(client: httpx.Client) -> None:
    with client.stream("POST", "/stream", json={"input": "Hello"}) as stream:
        assert [json.loads(line)["output"] for line in stream.iter_lines()] == [f"{number}: Hello" for number in range(10)]


def test_openais_client_chats_streams_and_gets_calls_of_tools(chat: Any) -> None:
    assert chat.chat.completions.create(model="lit", messages=HI).choices[0].message.content == "You said: hi at 0.7"
    parts = [{"type": "text", "text": "this"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    seen = chat.chat.completions.create(model="lit", messages=[{"role": "user", "content": parts}], temperature=0)
    assert seen.choices[0].message.content == "You said: 2 parts, the last image_url at 0.0"
    chunks = list(chat.chat.completions.create(model="lit", messages=HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: hi at 0.7"
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
    choice = chat.chat.completions.create(model="lit", messages=HI, tools=[tool]).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls[0].function.name) == ("tool_calls", "get_weather")
    vectors = chat.embeddings.create(model="lit", input=["ab", "abc"])
    assert ([each.embedding for each in vectors.data], vectors.usage.total_tokens) == ([[2.0, 1.0], [3.0, 1.0]], 4)


def test_files_are_uploaded_by_curl_and_by_python(client: httpx.Client, url: str, script: Script) -> None:
    wanted = {"size": 3, "name": "a.bin", "note": "hello"}
    assert client.post("/files", files={"content": ("a.bin", b"abc")}, data={"note": "hello"}).json() == wanted
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (script.folder / "a.bin").write_bytes(b"abc")
    command = ["curl", "--silent", "--max-time", "60", "-F", f"content=@{script.folder}/a.bin", "-F", "note=hello", f"{url}/files"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(said) == wanted


def test_typed_bodies_are_validated_and_documented(client: httpx.Client) -> None:
    assert client.post("/typed", json={"name": "Ada", "age": 36}).json() == {"greeting": "Hello Ada, 36"}
    wrong = client.post("/typed", json={"name": "Ada", "age": "old"})
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "age"])
    assert "PredictRequest" in client.get("/openapi.json").json()["components"]["schemas"]


def test_own_authorization_guards_one_path_only(client: httpx.Client) -> None:
    tried = [client.post("/guarded", json={"input": 1.0}, headers=headers) for headers in ({}, bearer("no"), bearer("1234"))]
    assert [answer.status_code for answer in tried] == [401, 401, 200]
    assert tried[1].json() == {"detail": "Bad token"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_errors_middlewares_and_what_the_server_tells_of_itself(client: httpx.Client) -> None:
    refused = client.post("/predict", json={"input": "teapot"}, headers={"Origin": "http://elsewhere"})
    assert (refused.status_code, refused.json(), refused.headers["x-pot"]) == (418, {"detail": "I am a teapot"}, "1")
    assert refused.headers["access-control-allow-origin"] == "*"
    assert client.post("/predict", json={"input": [1]}).json()["detail"] == "Internal server error"
    assert (client.get("/health").text, client.get("/").text) == ("ok", "litserve running")
    info = client.get("/info").json()
    assert info["model"] == {"name": "my-awesome-model", "version": "v1.2"}
    assert info["server"]["stream"]["/stream"]


def test_zz_a_request_with_the_key_stops_it(client: httpx.Client, script: Script) -> None:
    assert client.post("/shutdown", headers=bearer("no")).status_code == 401
    assert client.post("/shutdown", headers=bearer("stop")).status_code == 200
    finished = script.wait()
    assert (finished.code, finished.stdout.count("Server ended")) == (0, 1), finished.stderr
    script.wait_until_gone()


PATHS = {
    "leyden.serve": "LitAPI LitServer LitSpec OpenAISpec OpenAIEmbeddingSpec Callback Logger Request Response configure_logging "
    "set_trace set_trace_if_debug test_examples",
    "leyden.serve.api": "LitAPI",
    "leyden.serve.server": "LitServer",
    "leyden.serve.callbacks": "Callback CallbackRunner EventTypes NoopCallback",
    "leyden.serve.callbacks.defaults.metric_callback": "PredictionTimeLogger RequestTracker",
    "leyden.serve.loggers": "Logger",
    "leyden.serve.loops": "LitLoop ContinuousBatchingLoop DefaultContinuousBatchingLoop Output LitAPIStatus",
    "leyden.serve.mcp": "MCP",
    "leyden.serve.middlewares": "MaxSizeMiddleware RequestCountMiddleware",
    "leyden.serve.schema.image": "ImageInput ImageOutput",
    "leyden.serve.specs": "OpenAISpec OpenAIEmbeddingSpec EmbeddingRequest EmbeddingResponse ChatCompletionRequest ChatCompletionResponse "
    "ChatCompletionChunk",
    "leyden.serve.specs.base": "LitSpec",
    "leyden.serve.specs.openai": "OpenAISpec ChatMessage ChatCompletionRequest ChatCompletionResponse ChatCompletionChunk UsageInfo Tool "
    "ToolCall ToolChoice Function FunctionCall ImageContent TextContent ResponseFormatJSONSchema",
    "leyden.serve.specs.openai_embedding": "OpenAIEmbeddingSpec EmbeddingRequest EmbeddingResponse Embedding",
    "leyden.serve.test_examples": "SimpleLitAPI SimpleBatchedAPI SimpleTorchAPI SimpleStreamAPI TestAPI TestAPIWithCustomEncode "
    "TestAPIWithStructuredOutput TestAPIWithToolCalls OpenAIBatchContext",
    "leyden.serve.testing": "wrap_litserve_start",
    "leyden.serve.utils": "wrap_litserve_start LitAPIStatus configure_logging set_trace set_trace_if_debug",
}


@pytest.mark.parametrize("module", PATHS)
def test_documented_names_are_where_users_import_them_from(module: str) -> None:
    found = importlib.import_module(module)
    for name in PATHS[module].split():
        assert getattr(found, name) is not None
