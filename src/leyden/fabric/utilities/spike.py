"""Spike detection at its documented path."""

from leyden.fabric.spike import SpikeDetection

__all__ = ["SpikeDetection"]
