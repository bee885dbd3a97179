"""The checkpoint plug-ins of fabric keep the promises; so does a foreign one of a few lines."""

import shutil
from pathlib import Path
from typing import Any

import torch

from leyden.core.failpoints import armed
from leyden.fabric.plugins import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from leyden.fabric.testing import CheckpointIOConformance, MemoryCheckpointIO


class FolderCheckpointIO(CheckpointIO):
    """A foreign plug-in: a folder with a file of torch's, moved into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        new = Path(f"{path}.new")
        new.mkdir()
        torch.save(checkpoint, new / "checkpoint")
        self.remove_checkpoint(path)
        new.rename(path)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return torch.load(Path(path) / "checkpoint", map_location, weights_only=True)

    def remove_checkpoint(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)


class TestForeign(CheckpointIOConformance):
    def make(self, root):
        return FolderCheckpointIO()


class TestMemory(CheckpointIOConformance):
    def make(self, root):
        return MemoryCheckpointIO()


class TestTorch(CheckpointIOConformance):
    def make(self, root):
        return TorchCheckpointIO()

    def refusing(self, plugin, root):
        return armed("checkpoint.in_file:2=enospc")


class TestTorchAtURLs(CheckpointIOConformance):
    def make(self, root):
        return TorchCheckpointIO()

    def path(self, root, name):
        return f"memory://{root.name}/{name}"

    def refusing(self, plugin, root):
        return armed("checkpoint.before_upload=enospc")


class TestAsync(CheckpointIOConformance):
    def make(self, root):
        return AsyncCheckpointIO(TorchCheckpointIO())

    def refusing(self, plugin, root):
        return armed("checkpoint.in_file:2=enospc")
