"""Other libraries in environments of their own, to exchange files with.

The whole environment of a peer (`.cache/peers/<name>`, as benchmarks make them) takes a minute or two. Where it is not there,
a light one serves: the peer alone, which finds torch and what else it stands on in this environment.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import harness

LIGHT = {"litdata": ("litdata==0.2.76", "lightning-utilities", "zstd")}


def peer_python(name: str, modules: Sequence[str] = ()) -> str:
    """Return the Python of a peer's environment; skip the test where it cannot be had.

    Args:
        name: A key of the benchmarks' peers.
        modules: What is to be importable there.
    """
    folder = harness.PEERS_FOLDER
    if (folder / name / ".ready").exists():
        return harness.prepare_peer(name)
    if name not in LIGHT:
        pytest.skip(f"there is no environment of {name}: python -c 'from benchmarks.harness import prepare_peer; prepare_peer(\"{name}\")'")
    try:
        python = _light_python(folder / f"{name}-light", LIGHT[name])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the environment of {name} cannot be made here: {error}")
    subprocess.run([python, "-c", f"import {', '.join([name, *modules])}"], check=True, capture_output=True)
    return python


def _light_python(folder: Path, requirements: Sequence[str]) -> str:
    python, ready = folder / "bin/python", folder / ".ready"
    with _locked(folder.with_suffix(".lock")):
        wanted = "\n".join([sys.executable, *requirements])
        if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True, capture_output=True)
            packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
            pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", packages]
            subprocess.run([*pip, *requirements], check=True, capture_output=True)
            Path(packages, "shared.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
            ready.write_text(wanted, encoding="utf-8")
    return str(python)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process of several make an environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_peer(python: str, script: Path, *arguments: str, timeout: float = 300) -> str:
    """Run a script of this folder in a peer's environment and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, script, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
