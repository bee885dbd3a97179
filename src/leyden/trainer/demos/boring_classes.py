"""The plainest module, data sets and data modules that train: a linear layer on noise.

For bug reports and tests: everything that the trainer can call is here and does something, nothing of it is interesting.
Random numbers come from torch's global generator, when a data set is built or iterated.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.core.module import LightningModule

_FEATURES, _SAMPLES = 32, 64


class RandomDataset(Dataset[Tensor]):
    """Rows of noise, drawn once.

    Args:
        size: Features of a row.
        length: Rows.
    """

    def __init__(self, size: int, length: int) -> None:
        self.len = length
        self.data = torch.randn(length, size)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]

    def __len__(self) -> int:
        return self.len


class RandomDictDataset(Dataset[dict[str, Tensor]]):
    """Rows of noise as dictionaries: `a`, and `b`, which is `a` plus 2.

    Args:
        size: Features of a row.
        length: Rows.
    """

    def __init__(self, size: int, length: int) -> None:
        self.len = length
        self.data = torch.randn(length, size)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.data[index]
        return {"a": row, "b": row + 2}

    def __len__(self) -> int:
        return self.len


class RandomIterableDataset(IterableDataset[Tensor]):
    """A stream of noise that does not say how long it is.

    Args:
        size: Features of a row.
        count: Rows of an epoch.
    """

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.count = count

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.count):
            yield torch.randn(self.size)


class RandomIterableDatasetWithLen(RandomIterableDataset):
    """A stream of noise that says how long it is."""

    def __len__(self) -> int:
        return self.count


class BoringModel(LightningModule):
    """One linear layer, 32 to 2, that learns to answer ones; with loaders of 64 batches for every stage.

    Example:
        ```python
        Trainer(fast_dev_run=True).fit(BoringModel())
        ```
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(_FEATURES, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def loss(self, preds: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean square of the distance to `labels`, or to ones."""
        return nn.functional.mse_loss(preds, torch.ones_like(preds) if labels is None else labels)

    def step(self, batch: Any) -> Tensor:
        """Return the loss of a batch, which may lie in a list."""
        rows = torch.stack(list(batch)) if isinstance(batch, (list, tuple)) else batch
        return self.loss(self(rows))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.step(batch)}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return {"x": self.step(batch)}

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        return {"y": self.step(batch)}

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.layer.parameters(), lr=0.1)
        return [optimizer], [StepLR(optimizer, step_size=1)]

    def train_dataloader(self) -> Any:
        return _loader()

    def val_dataloader(self) -> Any:
        return _loader()

    def test_dataloader(self) -> Any:
        return _loader()

    def predict_dataloader(self) -> Any:
        return _loader()


class ManualOptimBoringModel(BoringModel):
    """The boring model in manual optimisation."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        loss = self.step(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class BoringDataModule(LightningDataModule):
    """Noise for the boring model: 64 rows for each of train, val, test, predict, a part each of one data set."""

    def __init__(self) -> None:
        super().__init__()
        self.random_full: Dataset[Tensor] | None = None
        self.random_train: Dataset[Tensor] | None = None
        self.random_val: Dataset[Tensor] | None = None
        self.random_test: Dataset[Tensor] | None = None
        self.random_predict: Dataset[Tensor] | None = None

    def prepare_data(self) -> None:
        self.random_full = RandomDataset(_FEATURES, 4 * _SAMPLES)

    def setup(self, stage: str) -> None:
        if self.random_full is None:  # another process may have prepared
            self.random_full = RandomDataset(_FEATURES, 4 * _SAMPLES)
        if stage == "fit":
            self.random_train = self._quarter(0)
        if stage in ("fit", "validate"):
            self.random_val = self._quarter(1)
        if stage == "test":
            self.random_test = self._quarter(2)
        if stage == "predict":
            self.random_predict = self._quarter(3)

    def _quarter(self, number: int) -> Dataset[Tensor]:
        assert self.random_full is not None  # noqa: S101 - setup has made it
        return Subset(self.random_full, range(number * _SAMPLES, (number + 1) * _SAMPLES))

    def train_dataloader(self) -> Any:
        return _over(self.random_train)

    def val_dataloader(self) -> Any:
        return _over(self.random_val)

    def test_dataloader(self) -> Any:
        return _over(self.random_test)

    def predict_dataloader(self) -> Any:
        return _over(self.random_predict)


class BoringDataModuleNoLen(LightningDataModule):
    """Noise for the boring model in streams that do not say how long they are."""

    def __init__(self) -> None:
        super().__init__()
        self.random_train: Dataset[Tensor] | None = None
        self.random_val: Dataset[Tensor] | None = None
        self.random_test: Dataset[Tensor] | None = None
        self.random_predict: Dataset[Tensor] | None = None

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.random_train = RandomIterableDataset(_FEATURES, _SAMPLES)
        if stage in ("fit", "validate"):
            self.random_val = RandomIterableDataset(_FEATURES, _SAMPLES)
        if stage == "test":
            self.random_test = RandomIterableDataset(_FEATURES, _SAMPLES)
        if stage == "predict":
            self.random_predict = RandomIterableDataset(_FEATURES, _SAMPLES)

    def train_dataloader(self) -> Any:
        return _over(self.random_train)

    def val_dataloader(self) -> Any:
        return _over(self.random_val)

    def test_dataloader(self) -> Any:
        return _over(self.random_test)

    def predict_dataloader(self) -> Any:
        return _over(self.random_predict)


class IterableBoringDataModule(LightningDataModule):
    """Two loaders of 16 rows with 4 features for every stage, given as iterables of loaders."""

    def __init__(self) -> None:
        super().__init__()
        self.train_datasets: list[Dataset[Tensor]] = []
        self.val_datasets: list[Dataset[Tensor]] = []
        self.test_datasets: list[Dataset[Tensor]] = []
        self.predict_datasets: list[Dataset[Tensor]] = []

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train_datasets = _pair()
        if stage in ("fit", "validate"):
            self.val_datasets = _pair()
        if stage == "test":
            self.test_datasets = _pair()
        if stage == "predict":
            self.predict_datasets = _pair()

    def train_dataloader(self) -> Any:
        return _over_each(self.train_datasets)

    def val_dataloader(self) -> Any:
        return _over_each(self.val_datasets)

    def test_dataloader(self) -> Any:
        return _over_each(self.test_datasets)

    def predict_dataloader(self) -> Any:
        return _over_each(self.predict_datasets)


class DemoModel(LightningModule):
    """One linear layer with arguments, so that there is something to configure.

    Args:
        out_dim: Outputs of the layer.
        learning_rate: Adam's.
    """

    def __init__(self, out_dim: int = 10, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.l1 = nn.Linear(_FEATURES, out_dim)
        self.learning_rate = learning_rate

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.l1(x.flatten(1)))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).sum()

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=self.learning_rate)


def _loader() -> DataLoader[Tensor]:
    return DataLoader(RandomDataset(_FEATURES, _SAMPLES))


def _over(dataset: Dataset[Tensor] | None) -> DataLoader[Tensor]:
    assert dataset is not None  # noqa: S101 - setup comes before the loaders
    return DataLoader(dataset)


def _over_each(datasets: Iterable[Dataset[Tensor]]) -> list[DataLoader[Tensor]]:
    return [DataLoader(dataset) for dataset in datasets]


def _pair() -> list[Dataset[Tensor]]:
    return [RandomDataset(4, 16), RandomDataset(4, 16)]
