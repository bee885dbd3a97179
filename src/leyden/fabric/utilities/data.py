"""Data tools at their documented path."""

from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.machine import suggested_max_num_workers

__all__ = ["AttributeDict", "suggested_max_num_workers"]
