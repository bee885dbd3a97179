import torch

from leyden.trainer.cli import LRSchedulerTypeTuple, ReduceLROnPlateau


def test_the_plateau_scheduler_knows_its_metric_and_is_torchs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = ReduceLROnPlateau(optimizer, "val/loss", patience=2)
    assert scheduler.monitor == "val/loss"
    assert scheduler.patience == 2
    assert isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert isinstance(scheduler, LRSchedulerTypeTuple)
