"""Data tools at their documented path."""

from leyden.fabric.attribute_dict import AttributeDict as AttributeDict
from leyden.fabric.machine import suggested_max_num_workers as suggested_max_num_workers
