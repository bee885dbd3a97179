"""Compiled modules through `Trainer`: forward and steps are compiled, logging is not, and names stay the user's."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from leyden.fabric import CompilePolicy
from leyden.trainer import LightningModule, Trainer


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Block(), Block(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self(batch).square().mean()
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val", self(batch).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counting:
    """A backend that counts the graphs it is given, and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def fitted(model: Any, tmp_path: Path, **kwargs: Any) -> Trainer:
    torch.manual_seed(1)
    loader = DataLoader(torch.rand(8, 4), batch_size=2)  # pyrefly: ignore - tensors are indexable
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler
        trainer.fit(model, loader, loader)
    return trainer


def plain(tmp_path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    torch.manual_seed(0)
    model = Net()
    trainer = fitted(model, tmp_path)
    return model.state_dict(), dict(trainer.callback_metrics)


@pytest.mark.parametrize("how", ["user", "model", "blocks"])
def test_a_compiled_fit_ends_where_the_plain_one_does(how: str, tmp_path: Path) -> None:
    weights, metrics = plain(tmp_path)
    backend = Counting()
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Net()
    policy = {} if how == "user" else {"compile": CompilePolicy(how, backend=backend)}  # pyrefly: ignore - of two words
    trainer = fitted(torch.compile(model, backend=backend) if how == "user" else model, tmp_path, **policy)
    assert backend.graphs > 0
    assert trainer.lightning_module is model
    assert model.state_dict().keys() == weights.keys()
    torch.testing.assert_close(model.state_dict(), weights)
    torch.testing.assert_close(dict(trainer.callback_metrics), metrics)


def test_the_module_is_as_it_was_after_a_compiled_run(tmp_path: Path) -> None:
    model = Net()
    fitted(torch.compile(model, backend="eager"), tmp_path)
    assert not {"forward", "training_step", "log"} & model.__dict__.keys()
