"""Small models and data for trying things out and for tests: `boring_classes`, `lstm`, `transformer`."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.demos.boring_classes import BoringDataModule as BoringDataModule
    from leyden.trainer.demos.boring_classes import BoringModel as BoringModel
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"BoringDataModule": ".boring_classes", "BoringModel": ".boring_classes"})
