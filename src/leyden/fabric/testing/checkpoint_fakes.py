"""Stores that misbehave: around any `CheckpointIO`, or in memory. For tests of what saves and loads."""

import errno
import threading
from abc import abstractmethod
from typing import Any, final

from torch import Tensor

from leyden.core.errors import NotFoundError, StorageError
from leyden.fabric.checkpoint.checkpoint_io import CheckpointIO
from leyden.fabric.checkpoint.layout import EXTRAS
from leyden.fabric.checkpoint.tree import mapped

_LONGEST_HOLD_SECONDS = 60.0  # a test that forgets to let go fails instead of hanging


@final
class MemoryCheckpointIO(CheckpointIO):
    """Keeps checkpoints in a dictionary of this process, as copies.

    Example:
        >>> store = MemoryCheckpointIO()
        >>> store.save_checkpoint({"step": 3}, "there")
        >>> store.load_checkpoint("there"), list(store.stored)
        ({'step': 3}, ['there'])
    """

    stores_extras = True

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.options: Any = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any = None, *, extras: dict[str, Any] | None = None
    ) -> None:
        """Keep a copy; `options` remembers the last `storage_options`."""
        content = checkpoint if extras is None else {**checkpoint, EXTRAS: extras}
        self.stored[path] = mapped(content, lambda tensor, _path: tensor.detach().clone())
        self.options = storage_options

    def load_checkpoint(
        self,
        path: str,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - the documented signature
    ) -> dict[str, Any]:
        """Return a copy.

        Raises:
            NotFoundError: Nothing was stored there.
        """
        if path not in self.stored:
            raise NotFoundError(f"there is no checkpoint at {path!r}; stored are {sorted(self.stored)}.")

        def copied(tensor: Tensor, _path: object) -> Tensor:
            return tensor.clone() if map_location is None else tensor.to(map_location, copy=True)

        return mapped(self.stored[path], copied)

    def remove_checkpoint(self, path: str) -> None:
        """Forget what is stored at `path`."""
        self.stored.pop(path, None)


class FaultyCheckpointIO(CheckpointIO):
    """Hands everything to another plug-in; before each save `before_save` may wait or raise.

    Args:
        inner: The plug-in that stores; `None` is a new `MemoryCheckpointIO`.
    """

    def __init__(self, inner: CheckpointIO | None = None) -> None:
        self.inner = inner or MemoryCheckpointIO()

    @property
    def stores_extras(self) -> bool:  # type: ignore[override] - what the inner plug-in says
        """Whether the inner plug-in takes `extras=`."""
        return self.inner.stores_extras

    @abstractmethod
    def before_save(self, path: str) -> None:
        """Misbehave."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None, **extras: Any) -> None:
        """Misbehave, then store."""
        self.before_save(path)
        self.inner.save_checkpoint(checkpoint, path, storage_options, **extras)

    def load_checkpoint(
        self,
        path: str,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - the documented signature
    ) -> dict[str, Any]:
        """Load through the inner plug-in."""
        return self.inner.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: str) -> None:
        """Remove through the inner plug-in."""
        self.inner.remove_checkpoint(path)

    def teardown(self) -> None:
        """Tear the inner plug-in down."""
        self.inner.teardown()


@final
class SlowCheckpointIO(FaultyCheckpointIO):
    """A store that takes as long as the test wants: a save waits until `let_go` is called, `started` says that it waits.

    Example:
        >>> store = SlowCheckpointIO()
        >>> store.let_go()
        >>> store.save_checkpoint({"step": 3}, "there")
        >>> store.started.is_set()
        True
    """

    def __init__(self, inner: CheckpointIO | None = None) -> None:
        super().__init__(inner)
        self.started = threading.Event()
        self._may_store = threading.Event()

    def let_go(self) -> None:
        """Let the save under way, and all others, store."""
        self._may_store.set()

    def before_save(self, path: str) -> None:
        """Wait.

        Raises:
            TimeoutError: Nobody let go.
        """
        self.started.set()
        if not self._may_store.wait(_LONGEST_HOLD_SECONDS):
            raise TimeoutError(f"nobody called let_go() for {_LONGEST_HOLD_SECONDS:.0f} s while {path!r} was being saved")


@final
class FailingCheckpointIO(FaultyCheckpointIO):
    """A store that is down while `is_down`.

    Example:
        >>> store = FailingCheckpointIO()
        >>> store.save_checkpoint({"step": 3}, "there")
        Traceback (most recent call last):
        ConnectionError: the store does not answer: there
        >>> store.is_down = False
        >>> store.save_checkpoint({"step": 3}, "there")
    """

    is_down = True

    def before_save(self, path: str) -> None:
        """Fail.

        Raises:
            ConnectionError: It is down.
        """
        if self.is_down:
            raise ConnectionError(f"the store does not answer: {path}")


@final
class FullDiskCheckpointIO(FaultyCheckpointIO):
    """A store that has no room while `is_full`.

    Example:
        >>> FullDiskCheckpointIO().save_checkpoint({"step": 3}, "there")
        Traceback (most recent call last):
        leyden.core.errors.StorageError: cannot write 'there': No space left on device.
    """

    is_full = True

    def before_save(self, path: str) -> None:
        """Find no room.

        Raises:
            StorageError: It is full.
        """
        if self.is_full:
            error = StorageError(f"cannot write {path!r}: No space left on device.")
            error.errno = errno.ENOSPC
            raise error
