import torch
from torch import nn

from leyden.fabric.layer_sync import TorchSyncBatchNorm


def test_batch_norms_come_back_as_the_kind_they_were_with_trained_values():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm1d(3)))
    synced = TorchSyncBatchNorm().apply(model)
    assert isinstance(synced[1], nn.SyncBatchNorm)
    with torch.no_grad():
        synced[1].weight.fill_(7)
    back = TorchSyncBatchNorm().revert(synced)
    assert type(back[1]) is nn.BatchNorm2d
    assert type(back[2][0]) is nn.BatchNorm1d
    assert back[1].weight.tolist() == [7, 7]
