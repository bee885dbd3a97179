"""scikit-learn's handwritten digits, 8 by 8, in three parts."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, random_split

from leyden.trainer import LightningDataModule


class Digits(LightningDataModule):
    """1,797 digits.

    Args:
        batch_size: Digits of a batch.
        held_out: The share that validates, and again the share that tests.
    """

    def __init__(self, batch_size: int = 64, held_out: float = 0.1) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.held_out = held_out
        self.num_classes = 10

    def setup(self, stage: str) -> None:
        digits = load_digits()
        whole = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
        parts = (1 - 2 * self.held_out, self.held_out, self.held_out)
        self.train, self.val, self.test = random_split(whole, parts, torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, self.batch_size)

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, self.batch_size)
