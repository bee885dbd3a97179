"""A server as a user starts it: a script in a process of its own, on a free port."""

import contextlib
import re
import ssl
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
    from tests.support.serve_loggers import *
    {imports}

    server = LitServer({apis}, accelerator="cpu", {options})
    usual = dict(host="127.0.0.1", port=0, generate_client_file=False, log_level="info", access_log=False)
    server.run(**(usual | dict({run})))
    print("the end", flush=True)
"""


# httpx reads all certificates of the machine for each request, unless it is given a context: 50 ms.
OPTIONS: dict[str, Any] = {"timeout": 60, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
COMMAND = """
import sys
from leyden.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


class Served:
    """A server that is ready."""

    def __init__(self, script: Script, url: str) -> None:
        self.script, self.url = script, url

    def post(self, value: Any, path: str = "/predict", **options: Any) -> httpx.Response:
        return self.ask(path, {"input": value}, **options)

    def ask(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, **{**OPTIONS, **options})

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, **{**OPTIONS, **options})

    def children(self) -> list[int]:
        """Return the server's processes, but for the first one."""
        return [pid for pid in self.script.descendants() if pid != self.script.process.pid]


@contextlib.contextmanager
def starting(
    apis: str = "Square()", *, options: str = "", run: str = "", imports: str = "", env: dict[str, str] | None = None
) -> Iterator[Script]:
    """Start a server; its script ends by itself, or with this."""
    with running_script(SCRIPT.format(apis=apis, options=options, run=run, imports=imports), env=env) as script:
        yield script


@contextlib.contextmanager
def served(
    apis: str = "Square()", *, options: str = "", run: str = "", imports: str = "", env: dict[str, str] | None = None
) -> Iterator[Served]:
    """Start a server and wait until it is ready."""
    with starting(apis, options=options, run=run, imports=imports, env=env) as script:
        yield ready(script)


@contextlib.contextmanager
def commanded(*words: str, env: dict[str, str] | None = None) -> Iterator[Script]:
    """Run `leyden serve …` on a free port, as a user does from another folder."""
    options = ["--host", "127.0.0.1", "--port", "0", "--no-generate-client-file"]
    with running_script(COMMAND, args=["serve", *words, *options], env=env) as script:
        yield script


def ready(script: Script, times: int = 1) -> Served:
    """Return the server that a command has started, once it is ready; for the `times`th time."""
    script.wait_for_output("Leyden serves", times)
    return Served(script, re.findall(r" at (\S+) \(process", script.stdout)[times - 1])
