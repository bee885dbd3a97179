"""The summary of a model at its documented path."""

from leyden.trainer.summary.layer import NOT_APPLICABLE, UNKNOWN_SIZE, LayerSummary, parse_batch_shape
from leyden.trainer.summary.model_summary import DeepSpeedSummary, ModelSummary, summarize
from leyden.trainer.summary.table import human_readable as get_human_readable_count

__all__ = [
    "NOT_APPLICABLE",
    "UNKNOWN_SIZE",
    "DeepSpeedSummary",
    "LayerSummary",
    "ModelSummary",
    "get_human_readable_count",
    "parse_batch_shape",
    "summarize",
]
