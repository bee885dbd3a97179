"""`import leyden.serve` costs nothing: what is heavy waits until it is used."""

import json
import subprocess
import sys

HEAVY = ("torch", "numpy", "fastapi", "starlette", "uvicorn", "pydantic", "msgspec", "httptools", "uvloop", "asyncio", "httpx")
OF_SERVERS = ("torch", "numpy", "fastapi", "starlette", "uvicorn", "pydantic", "httptools", "uvloop")


def modules_after(code: str) -> set[str]:
    program = f"import json, sys, leyden.serve; {code}; print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not set(HEAVY) & modules_after("leyden.serve.AutoscalePolicy()")


def test_a_client_loads_nothing_of_a_server() -> None:
    code = "client = leyden.serve.Client('http://127.0.0.1:9', retries=0); client.health()"
    assert not set(OF_SERVERS) & modules_after(code)
