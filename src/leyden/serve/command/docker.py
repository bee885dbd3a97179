"""Writes what makes a container image of a server: a Dockerfile that runs `leyden serve`, and `.dockerignore`.

The folder becomes the image's. Requirements are installed before the code is copied, so that a change of code installs nothing
again. On CPUs, torch comes from PyTorch's own index: the package of PyPI carries CUDA, 5 GB of it.
"""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from leyden import __version__
from leyden.core.errors import ConfigError, ConflictError
from leyden.core.files import write_atomic
from leyden.serve.arguments import checked_port
from leyden.serve.command.modules import Target, checked_file
from leyden.serve.command.scripts import servers_in, unseen

PYTHON = "python:3.12-slim"
CUDA = "nvidia/cuda:12.8.1-base-ubuntu24.04"  # its Python is 3.12; torch brings the libraries, so the smallest one is enough
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
REQUIREMENTS = "requirements.txt"
_LEYDEN = re.compile(r"^\s*(leyden\b|[^#\s]*/leyden-)", re.MULTILINE | re.IGNORECASE)

# /health/ready asks for no key, whatever healthcheck_path is.
PROBE = (
    "import os, ssl, urllib.request as u; s = bool(os.environ.get('LEYDEN_SERVE_TLS_CERT')); "
    "u.urlopen('http%s://127.0.0.1:{port}/health/ready' % ('s' if s else ''), timeout=4, "
    "context=ssl._create_unverified_context() if s else None)"
)
_IGNORED = """# Made by `leyden serve dockerize`; yours to change. What is not needed in the image, or must not be in it.
.git
.venv
venv
**/__pycache__
**/*.py[cod]
.pytest_cache
.ruff_cache
.mypy_cache
.ipynb_checkpoints
.DS_Store
.env
.env.*
*.pem
*.key
Dockerfile
.dockerignore
"""
_FILE = """# Made by `leyden serve dockerize {target}`; yours to change.
#   docker build -t {image} .
#   docker run --rm {run}-p {port}:{port} {image}
FROM {base}
{system}ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 app
WORKDIR /app

# Before the code, so that a change of code installs nothing again.
{install}
COPY --chown=app:app . .
USER app
EXPOSE {port}
# Requests that are there are answered when the container stops: `docker stop -t 40` waits longer than drain_timeout=30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD {probe}
CMD {command}
"""
_APT = """RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \\
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
"""


class Made(NamedTuple):
    """What was written.

    Args:
        files: The files.
        warnings: What the user should know.
        image: The name that the hints use.
        port: Where it is served.
        gpu: Whether it is made for GPUs.
    """

    files: list[Path]
    warnings: list[str]
    image: str
    port: int
    gpu: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"files": [str(path) for path in self.files], "warnings": self.warnings, "base": CUDA if self.gpu else PYTHON}

    def lines(self) -> list[str]:
        """Return it for people."""
        run = "--gpus all " if self.gpu else ""
        return [
            f"wrote {' and '.join(path.name for path in self.files)}",
            f"build: docker build -t {self.image} .",
            f"run:   docker run --rm {run}-p {self.port}:{self.port} {self.image}",
        ]


def dockerize(text: str, folder: Path, *, port: int = 8000, gpu: bool = False, force: bool = False) -> Made:
    """Write a Dockerfile and a `.dockerignore`.

    Args:
        text: What is served, `FILE[:NAME]` below the folder, or a module.
        folder: Becomes the image's; its `requirements.txt` is installed.
        port: Where it is served in the container.
        gpu: Whether the image has CUDA.
        force: Whether the two files are overwritten.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It lies outside of the folder, or the port is out of range.
        ConflictError: One of the two is there.
    """
    if checked_port(port) == 0:
        raise ConfigError("--port 0 is no port that can be published: give one from 1024 to 65535.")
    target = _inside(Target.parse(text), folder)
    files = {folder / "Dockerfile": dockerfile(target, folder, port=port, gpu=gpu), folder / ".dockerignore": _IGNORED}
    present = [path.name for path in files if path.exists()]
    if present and not force:
        raise ConflictError(f"{' and '.join(present)} exists already in {folder}: nothing was written. Add --force to overwrite.")
    for path, content in files.items():
        write_atomic(path, content)
    return Made(list(files), _warnings(target, folder), image_of(target), port, gpu)


def dockerfile(target: Target, folder: Path, *, port: int, gpu: bool) -> str:
    """Return the text of a Dockerfile.

    Args:
        target: What is served, relative to the folder.
        folder: Whose requirements are looked at.
        port: Where it is served.
        gpu: Whether it has CUDA.
    """
    named = f"{target.place}:{target.name}" if target.name else target.place
    command = ["leyden", "serve", named, "--host", "0.0.0.0", "--port", str(port), "--no-generate-client-file"]  # noqa: S104 - in a container
    return _FILE.format(
        target=named,
        image=image_of(target),
        run="--gpus all " if gpu else "",
        port=port,
        base=CUDA if gpu else PYTHON,
        system=_APT if gpu else "",
        install=_install(folder, gpu=gpu),
        probe=json.dumps(["python", "-c", PROBE.format(port=port)]),
        command=json.dumps(command),
    )


def image_of(target: Target) -> str:
    """Return a name for an image.

    Example:
        >>> image_of(Target("models/My_Server.py"))
        'my-server'
    """
    return re.sub(r"[^a-z0-9]+", "-", Path(target.place).name.removesuffix(".py").lower()).strip("-") or "server"


def _install(folder: Path, *, gpu: bool) -> str:
    index = "" if gpu else f"--extra-index-url {CPU_WHEELS} "
    requirements = folder / REQUIREMENTS
    if not requirements.is_file():
        return f'RUN pip install {index}"leyden[serve]=={__version__}"'
    ours = "" if _names_leyden(requirements) else f' "leyden[serve]=={__version__}"'
    return f"COPY {REQUIREMENTS} .\nRUN pip install {index}-r {REQUIREMENTS}{ours}"


def _names_leyden(requirements: Path) -> bool:
    return _LEYDEN.search(requirements.read_text(encoding="utf-8")) is not None


def _inside(target: Target, folder: Path) -> Target:
    if not target.is_file:
        return target
    path, root = checked_file(target.place), folder.resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"{target.place!r} lies outside of {str(folder)!r}, which becomes the image's: run the command in its folder.")
    return target._replace(place=path.relative_to(root).as_posix())


def _warnings(target: Target, folder: Path) -> list[str]:
    found = list[str]()
    if not (folder / REQUIREMENTS).is_file():
        found.append(
            f"there is no {REQUIREMENTS} in {folder}: the image has Leyden and what it needs, and nothing else that the file imports."
        )
    script = folder / target.place
    if target.is_file and not target.name and script.is_file():
        with contextlib.suppress(SyntaxError):  # who runs it is told
            if servers_in(script).are_unseen:
                found.append(unseen(script, "the API"))
    return found
