"""Throughput at its documented path."""

from leyden.fabric.throughput import Throughput as Throughput
from leyden.fabric.throughput import ThroughputMonitor as ThroughputMonitor
from leyden.fabric.throughput import measure_flops as measure_flops
