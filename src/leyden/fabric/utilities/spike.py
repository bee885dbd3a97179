"""Spike detection at its documented path."""

from leyden.fabric.spike import SpikeDetection as SpikeDetection
