"""Small models and data for trying things out and for tests: `boring_classes`, `lstm`, `transformer`."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.demos.boring_classes import BoringDataModule as BoringDataModule
    from leyden.trainer.demos.boring_classes import BoringModel as BoringModel
    from leyden.trainer.demos.lstm import LightningLSTM as LightningLSTM
    from leyden.trainer.demos.lstm import SequenceSampler as SequenceSampler
    from leyden.trainer.demos.lstm import SimpleLSTM as SimpleLSTM
    from leyden.trainer.demos.transformer import LightningTransformer as LightningTransformer
    from leyden.trainer.demos.transformer import Transformer as Transformer
    from leyden.trainer.demos.transformer import WikiText2 as WikiText2
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "BoringDataModule": ".boring_classes",
            "BoringModel": ".boring_classes",
            "LightningLSTM": ".lstm",
            "LightningTransformer": ".transformer",
            "SequenceSampler": ".lstm",
            "SimpleLSTM": ".lstm",
            "Transformer": ".transformer",
            "WikiText2": ".transformer",
        },
    )
