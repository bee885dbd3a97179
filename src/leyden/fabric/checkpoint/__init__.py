"""Checkpoints: single files and directories that hold no code, written atomically, in the background, sharded or whole.

| module | what is in it |
|---|---|
| `saver` | `write`, `read`, `read_raw`, `wait_for_saves`: what everything else is made of |
| `folder` | `CheckpointFolder`: numbered checkpoints, `latest`, pruning, resuming |
| `plugin` | `CheckpointIO`: the seam for storing elsewhere |
| `items` `tree` `capture` `staging` | a live state becomes a snapshot |
| `store` `publish` `peers` `writer` `remote` | a snapshot becomes files, which appear complete or not at all |
| `layout` `single_file` `directory` `shards` `tensor_file` `stored_file` | the formats |
| `opening` `saved` `restore` `restore_module` `restore_optimizer` | files go back into live objects |
| `restricted` `legacy` | files of others, without running what is in them |
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.folder import CheckpointFolder as CheckpointFolder
    from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO as AsyncCheckpointIO
    from leyden.fabric.checkpoint.plugin import CheckpointIO as CheckpointIO
    from leyden.fabric.checkpoint.plugin import TorchCheckpointIO as TorchCheckpointIO
    from leyden.fabric.checkpoint.saver import link as link
    from leyden.fabric.checkpoint.saver import read as read
    from leyden.fabric.checkpoint.saver import read_raw as read_raw
    from leyden.fabric.checkpoint.saver import remove as remove
    from leyden.fabric.checkpoint.saver import wait_for_saves as wait_for_saves
    from leyden.fabric.checkpoint.saver import write as write
else:
    from leyden.core.lazy import exports

    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AsyncCheckpointIO": ".plugin",
            "CheckpointFolder": ".folder",
            "CheckpointIO": ".plugin",
            "TorchCheckpointIO": ".plugin",
            "link": ".saver",
            "read": ".saver",
            "read_raw": ".saver",
            "remove": ".saver",
            "wait_for_saves": ".saver",
            "write": ".saver",
        },
    )
