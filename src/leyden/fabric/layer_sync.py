"""`LayerSync`: layers whose statistics are shared by all ranks."""

from abc import ABC, abstractmethod

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm


class LayerSync(ABC):
    """Replaces layers by ones that communicate, and back."""

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with its layers replaced."""

    @abstractmethod
    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model with the user's kinds of layers, trained values kept."""


class TorchSyncBatchNorm(LayerSync):
    """Replaces batch norms by torch's `SyncBatchNorm`, and back by the kind each was.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        >>> type(TorchSyncBatchNorm().apply(model)[1]).__name__
        'SyncBatchNorm'
    """

    def apply(self, model: nn.Module) -> nn.Module:
        kinds = {name: type(child) for name, child in model.named_modules() if isinstance(child, _BatchNorm)}
        synced = SyncBatchNorm.convert_sync_batchnorm(model)
        for name, child in synced.named_modules():
            if isinstance(child, SyncBatchNorm) and name in kinds:
                child.__dict__["leyden_kind"] = kinds[name]
        return synced

    def revert(self, model: nn.Module) -> nn.Module:
        if isinstance(model, SyncBatchNorm):
            return _plain(model)
        for name, child in model.named_children():
            setattr(model, name, self.revert(child))
        return model


def _plain(layer: SyncBatchNorm) -> nn.Module:
    kind = getattr(layer, "leyden_kind", None)
    if not isinstance(kind, type) or kind is SyncBatchNorm:
        return layer
    new = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new._parameters, new._buffers, new.training = layer._parameters, layer._buffers, layer.training
    return new
