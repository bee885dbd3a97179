"""The ground floor is light: no torch, no client libraries, whatever part of it is imported."""

import subprocess
import sys
from pathlib import Path

import leyden.core

ROOT = Path(leyden.core.__file__).parent
MODULES = [".".join(("leyden", "core", *path.relative_to(ROOT).with_suffix("").parts)) for path in sorted(ROOT.rglob("*.py"))]


def test_core_loads_no_third_party_library() -> None:
    light = [name.removesuffix(".__init__") for name in MODULES if not name.endswith(".storage.remote")]
    program = (
        f"import sys\nbefore = set(sys.modules)\nimport {', '.join(light)}\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(root for root in roots if root not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['leyden']"
