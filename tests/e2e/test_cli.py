"""The installed `leyden` command, as a shell runs it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leyden import __version__
from leyden.cli.main import GROUPS

LEYDEN = shutil.which("leyden", path=str(Path(sys.executable).parent)) or "leyden"


def leyden(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LEYDEN, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]


def test_version() -> None:
    result = leyden("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"leyden {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in GROUPS)], ids=" ".join)
def test_help_comes_back(arguments: list[str]) -> None:
    result = leyden(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: leyden")


def test_unknown_command_is_status_2_and_no_traceback() -> None:
    result = leyden("trane")
    assert result.returncode == 2
    assert "error: no command 'trane'" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_prints_json_alone() -> None:
    result = leyden("doctor", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["leyden"] == __version__


def test_a_reader_that_leaves_is_no_traceback() -> None:
    process = subprocess.Popen([LEYDEN, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_ctrl_c_is_status_130_and_no_traceback(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = (
        "import sys, types\nfrom pathlib import Path\nfrom leyden.cli import main\nmodule = types.ModuleType('waiter')\n"
        f"def run(args):\n    Path({str(ready)!r}).touch()\n    import threading; threading.Event().wait(60)\n"
        "module.add_parser = lambda subparsers: subparsers.add_parser('wait').set_defaults(run=run)\n"
        "sys.modules['waiter'] = module\nmain.GROUPS['wait'] = main.Group('waiter', 'wait')\nsys.exit(main.main(['wait']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ready.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (None, "")
    assert process.returncode == 130
