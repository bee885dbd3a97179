"""A server as a user starts it: a script in a process of its own, on a free port."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.processes import Script, running_script

SCRIPT = """
if __name__ == "__main__":  # workers import this script as well: what is not theirs stays in here
    from leyden.serve import AutoscalePolicy, LitServer, OpenAIEmbeddingSpec, OpenAISpec
    from leyden.serve.mcp import MCP
    from tests.support.doomed import *
    from tests.support.serve_apis import *

    server = LitServer({apis}, accelerator="cpu", {options})
    how = dict(host="127.0.0.1", port=0, generate_client_file=False, log_level="info", access_log=False)
    how.update({run})
    server.run(**how)
    print("the end", flush=True)
"""


class Served:
    """A server that is ready."""

    def __init__(self, script: Script, url: str) -> None:
        self.script, self.url = script, url
        # A connection for each request, as they come from many clients; but one client, which costs 30 ms to make.
        self.client = httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))

    def post(self, value: Any, path: str = "/predict", **options: Any) -> httpx.Response:
        return self.ask(path, {"input": value}, **options)

    def ask(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

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
        found = Served(script, re.findall(r"at (http\S+)", script.stdout)[0])
        with found.client:
            yield found
