"""The plug-ins for checkpoints that Fabric brings along; `checkpoint_io.py` has what all of them are."""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.checkpoint import opening, publish, remote, single_file
from leyden.fabric.checkpoint.checkpoint_io import CheckpointIO
from leyden.fabric.checkpoint.layout import EXTRAS
from leyden.fabric.checkpoint.tree import mapped, storable
from leyden.fabric.checkpoint.writer import Writer, process_writer


class TorchCheckpointIO(CheckpointIO):
    """The single file of `torch.save`, written beside its target and renamed.

    Example:
        ```python
        fabric = Fabric(plugins=AsyncCheckpointIO(TorchCheckpointIO()))
        ```
    """

    stores_extras: ClassVar[bool] = True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any = None, *, extras: dict[str, Any] | None = None
    ) -> None:
        """Write `checkpoint` to the file or URL `path`.

        Raises:
            ConfigTypeError: `storage_options` for a local file, which has none.
            ConfigError: A value that a checkpoint cannot hold.
            StorageError: The disk is full, or refuses.
        """
        content = storable(checkpoint, "checkpoint")
        content = content if extras is None else {**content, EXTRAS: extras}
        if remote.is_remote(path):
            with tempfile.TemporaryDirectory(prefix="leyden-checkpoint-") as folder:
                local = Path(folder) / "checkpoint"
                single_file.write_dict(local, content)
                remote.upload_file(local, path, storage_options)
            return
        if storage_options is not None:
            raise ConfigTypeError(
                f"TorchCheckpointIO takes no storage_options for a local file, but got {storage_options!r}. Drop them, or save to a URL."
            )
        target = Path(path)
        publish.recover(target)
        publish.check_target(target)
        temporary = publish.begin(target)
        try:
            single_file.write_dict(temporary, content)
            publish.commit(temporary, target)
        finally:
            publish.discard(temporary)

    def load_checkpoint(
        self,
        path: str,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - the documented signature
    ) -> dict[str, Any]:
        """Return what is in the file or at the URL `path`, foreign files included.

        Raises:
            NotFoundError: There is no such file.
            CorruptDataError: It is damaged.
        """
        if callable(map_location) or isinstance(map_location, dict):
            raise ConfigTypeError(f"map_location={map_location!r}: TorchCheckpointIO takes a device, such as 'cpu' or 'cuda:0'.")
        with tempfile.TemporaryDirectory(prefix="leyden-checkpoint-") as folder:
            target = remote.download(path, Path(folder)) if remote.is_remote(path) else opening.resolve(path)
            content = _content(target, weights_only=weights_only)
        return content if map_location is None else mapped(content, lambda tensor, _path: tensor.to(map_location))

    def remove_checkpoint(self, path: str) -> None:
        """Delete what is at `path`."""
        if remote.is_remote(path):
            remote.remove(path)
        else:
            publish.remove(path)


def _content(target: Path, *, weights_only: bool | None) -> dict[str, Any]:
    """Return a file's whole dictionary, extras included where it is one of ours."""
    if target.is_file() and single_file.is_zip(target) and single_file.is_ours(target):
        return single_file.read_dict(target, weights_only=weights_only, is_mapped=False)
    saved = opening.open_path(target, weights_only=weights_only)
    try:
        return saved.load()
    finally:
        saved.close()


class AsyncCheckpointIO(CheckpointIO):
    """Saves through another plug-in in the background: `save_checkpoint` returns when the tensors have been copied.

    `wait_for_saves`, the next save, and the end of the process wait for the save under way and raise its error.

    Args:
        inner: The plug-in that stores; `None` is fabric's own formats.
    """

    def __init__(self, inner: CheckpointIO | None = None) -> None:
        if inner is not None and not isinstance(inner, CheckpointIO):
            raise ConfigTypeError(f"AsyncCheckpointIO({inner!r}): expected a CheckpointIO, such as TorchCheckpointIO().")
        if isinstance(inner, AsyncCheckpointIO):
            raise ConfigError("AsyncCheckpointIO(AsyncCheckpointIO(…)): one of them is enough.")
        self.inner = inner
        self._writer: Writer = process_writer()

    @property
    def storing(self) -> CheckpointIO:
        """The plug-in that stores."""
        return self.inner or TorchCheckpointIO()

    @property
    def stores_extras(self) -> bool:  # type: ignore[override] - what the inner plug-in says
        """Whether the inner plug-in takes `extras=`."""
        return self.storing.stores_extras

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None, **extras: Any) -> None:
        """Copy `checkpoint` and store it in the background."""
        self._writer.wait()
        copy = mapped(storable(checkpoint, "checkpoint"), lambda tensor, _path: tensor.to("cpu", copy=True))
        self._writer.submit(lambda: self.storing.save_checkpoint(copy, path, storage_options, **extras))

    def load_checkpoint(
        self,
        path: str,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - the documented signature
    ) -> dict[str, Any]:
        """Wait for saves under way, then load through the inner plug-in."""
        self._writer.wait()
        return self.storing.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: str) -> None:
        """Wait for saves under way, then remove through the inner plug-in."""
        self._writer.wait()
        self.storing.remove_checkpoint(path)

    def teardown(self) -> None:
        """Wait for saves under way."""
        self._writer.wait()
        self.storing.teardown()
