"""Imports stay light, counted and not timed: fresh interpreters say which modules they hold."""

import json
import subprocess
import sys
from functools import cache

import pytest

FORBIDDEN_IN_FABRIC = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "torch.distributed.checkpoint",
    "numpy", "torchmetrics", "tensorboard", "wandb", "mlflow", "deepspeed", "torchao", "bitsandbytes", "obstore",
    # Ours, but only for who saves or launches: 4 % of `import torch`, and so many objects that the collector walks all of torch's (6 %).
    "leyden.fabric.checkpoint.plugin", "leyden.fabric.launch.function", "leyden.fabric.launch.script",
)  # fmt: skip
FORBIDDEN_IN_THE_COMMAND_LINE = ("torch", "numpy", "yaml", "obstore", "asyncio", "urllib.request", "inspect", "leyden.fabric")
EVERY_HELP = """
from contextlib import redirect_stdout
from io import StringIO
from leyden.cli.main import GROUPS, build_parser
import argparse

def helps(parser):
    with redirect_stdout(StringIO()):
        parser.print_help()
    for action in parser._actions:
        if action.nargs == argparse.PARSER:
            for child in action.choices.values():
                helps(child)

helps(build_parser(list(GROUPS)))
"""

EVERY_MODULE = """
import importlib, pkgutil
from importlib.util import find_spec

spec = find_spec("leyden.{part}")  # None: not built yet
for module in pkgutil.walk_packages(spec.submodule_search_locations, "leyden.{part}.") if spec else ():
    importlib.import_module(module.name)
"""


@cache
def modules_after(code: str) -> frozenset[str]:
    program = f"{code}\nimport json as _json, sys as _sys\nprint(_json.dumps(sorted(_sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return frozenset(json.loads(result.stdout.splitlines()[-1]))


def loaded(name: str, modules: frozenset[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for module in modules)


@pytest.mark.parametrize("statement", ["import leyden.fabric", "from leyden.fabric import Fabric"])
def test_fabric_adds_at_most_120_modules_to_torch(statement: str) -> None:
    added = modules_after(statement) - modules_after("import torch")
    assert len(added) <= 120, sorted(added)


@pytest.mark.parametrize("statement", ["import leyden.fabric", "from leyden.fabric import Fabric"])
def test_fabric_imports_nothing_heavy(statement: str) -> None:
    added = modules_after(statement) - modules_after("import torch")
    assert [name for name in FORBIDDEN_IN_FABRIC if loaded(name, added)] == []


def test_importing_leyden_imports_nothing_else() -> None:
    added = modules_after("import leyden") - modules_after("pass")
    assert {name for name in added if name.startswith("leyden")} <= {"leyden", "leyden.core", "leyden.core.lazy"}
    assert not loaded("torch", added)
    assert len(added) <= 20, sorted(added)


@pytest.mark.parametrize(
    "code", ["import leyden.cli.main; leyden.cli.main.build_parser()", EVERY_HELP], ids=["leyden --help", "every --help"]
)
def test_help_imports_nothing_heavy(code: str) -> None:
    added = modules_after(code) - modules_after("pass")
    assert [name for name in FORBIDDEN_IN_THE_COMMAND_LINE if loaded(name, added)] == []


@pytest.mark.parametrize("part", ["core", "compute", "app", "studio", "cli"])
def test_every_module_of_a_torch_free_part_is(part: str) -> None:
    assert not loaded("torch", modules_after(EVERY_MODULE.format(part=part)))
