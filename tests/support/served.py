"""A server as a user starts it: a script in a process of its own, on a free port."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.processes import Script, running_script

SCRIPT = """
from leyden.serve import AutoscalePolicy, LitServer, OpenAIEmbeddingSpec, OpenAISpec
from leyden.serve.mcp import MCP
from tests.support.serve_apis import *
from tests.support.serve_loggers import *

if __name__ == "__main__":
    server = LitServer({apis}, accelerator="cpu", {options})
    server.run(host="127.0.0.1", port=0, generate_client_file=False, log_level="info", access_log=False, {run})
    print("the end", flush=True)
"""


class Served:
    """A server that is ready."""

    def __init__(self, script: Script, url: str) -> None:
        self.script, self.url = script, url

    def post(self, value: Any, path: str = "/predict", **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json={"input": value}, **{"timeout": 60, **options})

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, **{"timeout": 60, **options})

    def children(self) -> list[int]:
        """Return the server's processes, but for the first one."""
        return [pid for pid in self.script.descendants() if pid != self.script.process.pid]


@contextlib.contextmanager
def starting(apis: str = "Square()", *, options: str = "", run: str = "", env: dict[str, str] | None = None) -> Iterator[Script]:
    """Start a server; its script ends by itself, or with this."""
    with running_script(SCRIPT.format(apis=apis, options=options, run=run), env=env) as script:
        yield script


@contextlib.contextmanager
def served(apis: str = "Square()", *, options: str = "", run: str = "", env: dict[str, str] | None = None) -> Iterator[Served]:
    """Start a server and wait until it is ready."""
    with starting(apis, options=options, run=run, env=env) as script:
        script.wait_for_output("Leyden serves")
        yield Served(script, re.findall(r"at (http\S+)", script.stdout)[0])
