"""Every Python block of the README and the docs runs: the blocks of one page, in order, as one script in an empty folder.

A block that cannot run says why: ```` ```python no-run: needs two GPUs ````. The reasons are listed when tests are skipped.
"""

import atexit
import os
import re
import runpy
from pathlib import Path

import pytest

from tests.support.ranks import run_ranks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NO_RUN = "no-run"


def script_of(text: str) -> str:
    """Return the runnable blocks at the lines where they stand in the page, so that a traceback names the page's line."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if NO_RUN not in block[2]:
            first = text.count("\n", 0, block.start(3))
            for number, line in enumerate(block[3].splitlines(), start=first):
                lines[number] = line.removeprefix(block[1])
    return "\n".join(lines)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def run_page(script: str) -> None:
    """Run a script as a program of its own: in its folder, with nothing of the test's in the environment."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    os.chdir(Path(script).parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a fork of the nursery leaves without them


@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page.read_text(encoding="utf-8")).strip()], ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(script_of(page.read_text(encoding="utf-8")), encoding="utf-8")
    # In a fork of a process that has imported torch: thirty interpreters that import it took most of the time.
    run_ranks(run_page, 1, args=(str(script),), timeout=100, join=False)


def skipped_blocks() -> list[tuple[str, str]]:
    found = [(name_of(page), block) for page in PAGES for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    return [(f"{page} block {block.start()}", block[2].partition(NO_RUN)[2]) for page, block in found if NO_RUN in block[2]]


@pytest.mark.parametrize(("place", "words"), skipped_blocks())
def test_block_that_does_not_run_says_why(place: str, words: str) -> None:
    reason = words.lstrip(" :")
    assert len(reason.split()) >= 2, f"{place}: write ```python no-run: the reason"
    pytest.skip(f"{place}: {reason}")


def test_blocks_keep_their_lines_and_lose_their_indent() -> None:
    page = "# T\n```python\na = 1\n```\n- item\n  ```python\n  b = 2\n  ```\n```python no-run: asks a person\nc = 3\n```\n"
    assert script_of(page).rstrip().split("\n") == ["", "", "a = 1", "", "", "", "b = 2"]
