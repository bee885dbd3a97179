"""Predictions written by a real `predict`: each sample once, with the indices that the loader drew."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from leyden.core.errors import ConfigError
from leyden.trainer import LightningModule, Trainer
from leyden.trainer.callbacks import BasePredictionWriter


class Double(LightningModule):
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return 2 * batch[0]


class Files(BasePredictionWriter):
    """Writes each batch to a file of its own, and the whole to one more."""

    def __init__(self, folder: Path, interval: Any) -> None:
        super().__init__(interval)
        self.folder = folder

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, *where: Any) -> None:
        _, batch_idx, dataloader_idx = where
        torch.save({"prediction": prediction, "indices": batch_indices}, self.folder / f"{dataloader_idx}-{batch_idx}.pt")

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any) -> None:
        torch.save({"predictions": predictions, "indices": batch_indices}, self.folder / "all.pt")


def loader(count: int = 10, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(float(count))), batch_size=4, shuffle=shuffle)


def predict(folder: Path, interval: str, loaders: Any, **options: Any) -> Any:
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        callbacks=Files(folder, interval),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    return trainer.predict(Double(), loaders, **options)


@pytest.mark.filterwarnings("ignore:.*sampler has shuffling enabled")
def test_each_batch_is_written_with_its_samples(tmp_path: Path) -> None:
    predict(tmp_path, "batch", loader(shuffle=True), return_predictions=False)
    files = [torch.load(tmp_path / f"0-{number}.pt") for number in range(3)]
    indices = [index for file in files for index in file["indices"]]
    assert sorted(indices) == list(range(10))
    assert torch.cat([file["prediction"] for file in files]).tolist() == [2.0 * index for index in indices]
    assert not (tmp_path / "all.pt").exists()


@pytest.mark.parametrize("returns", [True, False])
def test_the_whole_is_written_at_the_end_also_where_nothing_is_returned(tmp_path: Path, returns: bool) -> None:
    returned = predict(tmp_path, "epoch", loader(), return_predictions=returns)
    stored = torch.load(tmp_path / "all.pt")
    assert torch.cat(stored["predictions"]).tolist() == [2.0 * index for index in range(10)]
    assert stored["indices"] == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]]
    assert (returned is not None) == returns
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["all.pt"]


def test_several_loaders_are_told_apart(tmp_path: Path) -> None:
    predict(tmp_path, "batch_and_epoch", [loader(5), loader(3)])
    assert sorted(path.name for path in tmp_path.glob("*-*.pt")) == ["0-0.pt", "0-1.pt", "1-0.pt"]
    stored = torch.load(tmp_path / "all.pt")
    assert [len(one) for one in stored["predictions"]] == [2, 1]
    assert stored["indices"] == [[[0, 1, 2, 3], [4]], [[0, 1, 2]]]


def test_a_stream_and_a_writer_of_the_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"predict\(stream=True\) keeps nothing"):
        predict(tmp_path, "epoch", loader(), stream=True)
