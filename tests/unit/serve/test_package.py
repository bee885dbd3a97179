"""`import leyden.serve` costs nothing: what is heavy waits until it is used."""

import json
import subprocess
import sys

HEAVY = ("torch", "numpy", "fastapi", "starlette", "uvicorn", "pydantic", "msgspec", "httptools", "uvloop", "asyncio")


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import json, sys, leyden.serve; leyden.serve.AutoscalePolicy(); print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not set(HEAVY) & set(json.loads(result.stdout))
