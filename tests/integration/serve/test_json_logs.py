"""The log of a real server as JSON: every line of every process, each about its request."""

import json
import re
import signal
from typing import Any

import httpx

from tests.support.processes import running_script

SCRIPT = """
import logging
import warnings

import leyden.serve as ls
from leyden.serve.callbacks.defaults.metric_callback import PredictionTimeLogger, RequestTracker

mine = logging.getLogger("mine")


class Api(ls.LitAPI):
    def predict(self, x):
        mine.info("asked for %s", x["input"])
        if x["input"] == "warn":
            warnings.warn("careful")
        return {"output": 1 / x["input"] if x["input"] != "warn" else 0}


class Guarded(Api):
    def authorize(self):
        pass


class Bad(ls.Logger):
    def process(self, key, value):
        raise ValueError("unlucky")


class Logs(ls.LitAPI):
    def predict(self, x):
        self.log("a", 1)


if __name__ == "__main__":
    ls.configure_logging(json=True, also=["mine"])
    apis = [Api(), Guarded(api_path="/guarded"), Logs(api_path="/logs")]
    server = ls.LitServer(
        apis, accelerator="cpu", loggers=Bad(), callbacks=[PredictionTimeLogger(), RequestTracker()], track_requests=True
    )
    server.run(host="127.0.0.1", port=0, generate_client_file=False)
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_every_line_is_an_object_about_its_request() -> None:
    with running_script(SCRIPT) as script:
        script.wait_for_output("Leyden serves")
        url = re.findall(r"at (http://[\d.:]+)", script.stdout)[0]
        for path, value, name in (
            ("/predict", 2, "hot-1"),
            ("/predict", 0, "hot-2"),
            ("/guarded", 0, "asgi-1"),
            ("/predict", "warn", "w-1"),
        ):
            headers = {"x-request-id": name, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            httpx.post(url + path, json={"input": value}, headers=headers, timeout=60)
        httpx.post(url + "/logs", json={}, timeout=60)
        script.wait_for_output("Bad.process(")
        script.send(signal.SIGTERM)
        finished = script.wait()
    assert finished.stderr == ""
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    assert all({"time", "level", "logger", "message", "pid"} <= line.keys() for line in lines)

    def of(logger: str, **fields: Any) -> list[dict[str, Any]]:
        return [line for line in lines if line["logger"].startswith(logger) and fields.items() <= line.items()]

    about = {"api": "/predict", "trace_id": TRACE}
    assert len(of("uvicorn.access", request_id="hot-1", status=200, method="POST", path="/predict", **about)) == 1
    assert len(of("uvicorn.access", request_id="hot-2", status=500, **about)) == 1
    assert len(of("uvicorn.access", request_id="asgi-1", status=500, api="/guarded", trace_id=TRACE)) == 1
    assert len(of("mine", request_id="hot-1", message="asked for 2", **about)) == 1
    for name, path in (("hot-2", "/predict"), ("asgi-1", "/guarded")):
        (failed,) = of("leyden.serve", request_id=name, level="error", api=path)
        assert "ZeroDivisionError" in failed["traceback"]
    assert len(of("py.warnings", request_id="w-1", level="warning")) == 1
    (took,) = [
        line for line in of("leyden.serve.callbacks", request_id="hot-1", **about) if line["message"].startswith("Prediction took 0.")
    ]
    assert took["pid"] != of("uvicorn.access", request_id="hot-1")[0]["pid"]
    assert len(of("leyden.serve.callbacks", message="Active requests: 1", request_id="hot-1")) == 1
    (told,) = of("leyden.serve.loggers")
    assert "ValueError: unlucky" in told["traceback"]
