"""Fabric: five lines scale a plain PyTorch loop: devices, precision, strategies, data order, checkpoints, loggers.

Names are imported at their first use, so that `import leyden.fabric` costs little more than `import torch`.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.folder import CheckpointFolder as CheckpointFolder
    from leyden.fabric.compilation import CompilePolicy as CompilePolicy
    from leyden.fabric.fabric import Fabric as Fabric
    from leyden.fabric.launch.signals import Stop as Stop
    from leyden.fabric.mesh import MeshSpec as MeshSpec
    from leyden.fabric.rng import isolate_rng as isolate_rng
    from leyden.fabric.rng import seed_everything as seed_everything
    from leyden.fabric.wrappers import is_wrapped as is_wrapped
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "CheckpointFolder": ".checkpoint.folder",
            "CompilePolicy": ".compilation",
            "Fabric": ".fabric",
            "MeshSpec": ".mesh",
            "Stop": ".launch.signals",
            "is_wrapped": ".wrappers",
            "isolate_rng": ".rng",
            "seed_everything": ".rng",
        },
    )
