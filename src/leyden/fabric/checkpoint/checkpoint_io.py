"""`CheckpointIO`: the seam for storing checkpoints elsewhere. Fabric's own formats need no plug-in.

Every Fabric asks whether it was given one, so this is apart from what reads and writes: importing that takes 3 % of `import torch`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class CheckpointIO(ABC):
    """Stores and fetches one checkpoint dictionary.

    `stores_extras` says that `save_checkpoint` also takes `extras=` (RNG states, loader cursors, loss scale) and that
    `load_checkpoint` returns them under `"__leyden__"`; other plug-ins get exactly the user's dictionary.
    """

    stores_extras: ClassVar[bool] = False

    @abstractmethod
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        """Store `checkpoint` at `path`, in the place of what is there. Called on rank 0 only."""

    @abstractmethod
    def load_checkpoint(
        self,
        path: str,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - the documented signature
    ) -> dict[str, Any]:
        """Return what was stored at `path`. Called on every rank."""

    @abstractmethod
    def remove_checkpoint(self, path: str) -> None:
        """Delete what is stored at `path`; nothing happens if there is nothing, since pruning is tried again after a kill."""

    def teardown(self) -> None:  # noqa: B027 - most plug-ins have nothing under way
        """Finish what is under way."""
