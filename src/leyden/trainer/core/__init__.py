"""What users subclass: `LightningModule`, `LightningDataModule`, `Callback`, and what their methods are made of."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.core.datamodule import LightningDataModule as LightningDataModule
    from leyden.trainer.core.module import LightningModule as LightningModule
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"LightningDataModule": ".datamodule", "LightningModule": ".module"})
