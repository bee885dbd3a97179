"""Throughput at its documented path."""

from leyden.fabric.throughput import Throughput, ThroughputMonitor, measure_flops

__all__ = ["Throughput", "ThroughputMonitor", "measure_flops"]
