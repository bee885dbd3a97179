"""Other libraries in environments of their own (`.cache/peers/<name>`, as benchmarks make them), to exchange files with."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import harness


def peer_python(name: str, extras: Sequence[str] = (), *, makes: bool = True) -> str:
    """Return the Python of a peer's environment, made first if need be; skip the test where it cannot be had.

    Args:
        name: A key of the benchmarks' peers.
        extras: What else is to be importable there, as import name = package name.
        makes: Whether it is made; making one takes a minute or two.
    """
    if not makes and not (harness.PEERS_FOLDER / name / ".ready").exists():
        pytest.skip(f"there is no environment of {name}: python -c 'from benchmarks.harness import prepare_peer; prepare_peer(\"{name}\")'")
    try:
        python = harness.prepare_peer(name)
        missing = [extra for extra in extras if not imports(python, extra)]
        if missing:
            pins = Path(python).parents[1] / "constraints.txt"
            subprocess.run([python, "-m", "pip", "install", "-qq", "-c", pins, *missing], check=True, capture_output=True)
    except (KeyError, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the environment of {name} cannot be made here: {error}")
    return python


def imports(python: str, module: str) -> bool:
    return not subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode


def run_peer(python: str, script: Path, *arguments: str, timeout: float = 300) -> str:
    """Run a script of this folder in a peer's environment and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, script, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
