"""Data tools at their documented path."""

from leyden.fabric.utilities.data import AttributeDict, suggested_max_num_workers
from leyden.trainer.core.batch_size import infer_batch_size as extract_batch_size

__all__ = ["AttributeDict", "extract_batch_size", "suggested_max_num_workers"]
