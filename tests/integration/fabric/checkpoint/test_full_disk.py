"""A disk that is really full: a limit of the kernel, and a tiny file system where this user may mount one."""

import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import StorageError
from leyden.fabric.checkpoint import saver
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.ranks import run_ranks

LIMIT_BYTES = 1_000_000


def save_beyond(folder: str, format: str, limit: bool) -> list[str]:
    strategy, path = SingleDeviceStrategy("cpu"), Path(folder) / "saved"
    saver.write(path, {"step": 1}, strategy=strategy, format=format)
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    messages = []
    for blocking in (True, False):
        large = {"model": torch.nn.Linear(2000, 1000), "step": 2, "more": torch.zeros(LIMIT_BYTES)}

        def save(large: dict[str, Any] = large, blocking: bool = blocking) -> None:
            saver.write(path, large, strategy=strategy, format=format, blocking=blocking)
            saver.wait_for_saves()

        with pytest.raises(StorageError) as caught:
            save()
        messages.append(str(caught.value))
        assert saver.read(path) == {"step": 1}
        assert [entry.name for entry in Path(folder).iterdir() if entry.name != "lost+found"] == ["saved"]
    return messages


def check(messages: list[str], reason: str) -> None:
    for message in messages:
        assert reason in message
        assert "Bytes needed: " in message
        assert "free: " in message


@pytest.mark.parametrize("format", ["file", "directory"])
def test_a_file_that_may_not_grow_is_a_storage_error(tmp_path: Path, format: str) -> None:
    (messages,) = run_ranks(save_beyond, 1, args=(str(tmp_path), format, True), join=False)
    check(messages, "File too large")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LIMIT_BYTES}", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("format", ["file", "directory"])
def test_a_full_disk_is_a_storage_error(tiny_disk: Path, format: str) -> None:
    (messages,) = run_ranks(save_beyond, 1, args=(str(tiny_disk), format, False), join=False)
    check(messages, "No space left on device")
