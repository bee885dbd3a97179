"""Says whether the environment holds the versions of constraints.txt: `python -m checks.environment`.

pip keeps to the file it is given, but a later `pip install` by hand does not; numbers and errors of another torch are not ours.
"""

import re
import sys
from importlib import metadata
from pathlib import Path


def pinned(text: str) -> dict[str, str]:
    """Return name → version of the lines `name==version`."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def drifted(versions: dict[str, str]) -> list[str]:
    """Return a line for each installed package of another version than the one pinned; local suffixes (`+cpu`) do not count."""
    lines = []
    for name, wanted in versions.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # another Python or platform needs fewer packages
        if found.partition("+")[0] != wanted:
            lines.append(f"{name} is {found}, constraints.txt says {wanted}")
    return lines


def main() -> int:
    """Print what drifted, and return 1 if anything did."""
    lines = drifted(pinned(Path("constraints.txt").read_text(encoding="utf-8")))
    if lines:
        print(
            "error: this environment is not the tested one:",
            *lines,
            "Fix: pip install -c constraints.txt NAME, or make clean up",
            sep="\n  ",
        )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
