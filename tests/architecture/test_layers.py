"""The import contracts hold, and break when they should: each is run on a copy of the house with one thing put wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WRONG = {  # what is put wrong -> the file, its source, the contract that must break, the words that name it
    "an unplaced folder": ("attic/__init__.py", '"""Nowhere."""\n', "layers", "attic"),
    "an arrow that points up": ("core/upward.py", "import leyden.fabric\n", "layers", "leyden.core.upward"),
    "an arrow that points up for types only": (
        "core/typed.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from leyden.fabric import Fabric\n",
        "layers",
        "leyden.core.typed",
    ),
    "strangers that meet": ("data/__init__.py", "import leyden.fabric\n", "layers", "leyden.data"),
    "torch on the ground floor": ("core/heavy.py", "import torch\n", "torch-free", "leyden.core.heavy -> torch"),
    "a cycle of siblings": ("data/a/x.py", "import leyden.data.b.y\n", "acyclic", "leyden.data"),
    "a part used past its door": ("cli/burglar.py", "import leyden.fabric.dispatch\n", "front-doors", "leyden.cli.burglar"),
    "a sibling used through its package": (
        "fabric/lazybones.py",
        "from leyden.fabric.loading import DistributedSampler\n",
        "siblings",
        "leyden.fabric.lazybones",
    ),
}


def write(file: Path, source: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    for folder in file.parents:
        if folder.name == "src":
            break
        (folder / "__init__.py").touch()
    file.write_text(source)


def lint(house: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    options = [word for contract in contracts for word in ("--contract", contract)]
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", *options],
        cwd=house,
        env={**os.environ, "PYTHONPATH": f"{house}/src", "COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for folder in ("src", "checks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("wrong", WRONG)
def test_a_contract_breaks_on(wrong: str, house: Path) -> None:
    path, source, contract, words = WRONG[wrong]
    file = house / "src/leyden" / path
    write(file, source)
    if wrong == "a cycle of siblings":
        write(house / "src/leyden/data/b/y.py", "import leyden.data.a.x\n")
    result = lint(house, contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert words in result.stdout


def test_a_room_that_is_declared_but_not_built_is_no_fault(house: Path) -> None:
    assert not (house / "src/leyden/compat").exists()
    (house / "src/leyden/compute").mkdir(exist_ok=True)
    (house / "src/leyden/compute/__init__.py").write_text("import leyden.core.errors\n")
    result = lint(house, "layers", "torch-free")
    assert result.returncode == 0, result.stdout + result.stderr
