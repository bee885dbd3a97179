"""Layers that all ranks share, at their documented path."""

from leyden.fabric.plugins import LayerSync, TorchSyncBatchNorm

__all__ = ["LayerSync", "TorchSyncBatchNorm"]
