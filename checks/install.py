"""Installs with uv what pip would, in a tenth of the time: `python -m checks.install --editable ".[dev]"`.

uv does not read pip's configuration, so it is told what that says: indexes, links and certificates. Where uv cannot be had, or
fails, pip does it.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--constraint", "constraints.txt"]
_SETTING = re.compile(r"^(?::env:|[\w-]+)\.([\w-]+)=(.*)$", re.MULTILINE)
_LISTS = {"extra-index-url": "--extra-index-url", "find-links": "--find-links"}


def pip_settings(text: str) -> dict[str, str]:
    """Return what `pip config list` says, the environment's last, as it counts most.

    Example:
        >>> pip_settings("global.index-url='https://a/simple'")
        {'index-url': 'https://a/simple'}
    """
    found = [(line.startswith(":env:"), *match.groups()) for line in text.splitlines() if (match := _SETTING.match(line))]
    return {name: " ".join(shlex.split(value)) for _, name, value in sorted(found, key=lambda setting: setting[0])}


def uv_arguments(settings: Mapping[str, str]) -> list[str]:
    """Return the same settings as uv wants them; any index may have the best version, as for pip.

    Example:
        >>> uv_arguments({"index-url": "https://a/simple", "find-links": "/wheels"})
        ['--index-strategy', 'unsafe-best-match', '--default-index', 'https://a/simple', '--find-links', '/wheels']
    """
    found = ["--index-strategy", "unsafe-best-match"]
    if "index-url" in settings:
        found += ["--default-index", settings["index-url"]]
    for name, option in _LISTS.items():
        for value in settings.get(name, "").split():
            found += [option, value]
    return found


def main(arguments: Sequence[str]) -> int:
    """Install, and return the status of whoever did it."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    settings = pip_settings(listed)
    environment = {**os.environ, **({"SSL_CERT_FILE": settings["cert"]} if "cert" in settings else {})}
    # Python compiles what is imported, when it is: to compile all 24,000 files took ten times as long as to install them.
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    command += ["--constraint", "constraints.txt"]
    # Asked first, since pip takes seconds to find that nothing is to be done.
    if find_spec("uv") or subprocess.run([*PIP, "uv"], capture_output=True, check=False).returncode == 0:
        done = subprocess.run([*command, *uv_arguments(settings), *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return 0
        print(f"uv could not install this, so pip does: {done.stderr.strip()[-500:]}", file=sys.stderr)
    return subprocess.run([*PIP, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
