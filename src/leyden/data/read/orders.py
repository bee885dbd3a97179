"""`make_order`: which order the rows of a selection have."""

from leyden.data.format.table import BlockTable
from leyden.data.order.lanes import LaneOrder
from leyden.data.read.options import OrderOptions
from leyden.data.read.stream import RowOrder, SequentialOrder
from leyden.data.read.subset import Runs, unit_borders


def make_order(runs: Runs, table: BlockTable, options: OrderOptions, unit_blocks: int) -> RowOrder:
    """Return the order of a selection.

    Args:
        runs: The selection.
        table: The blocks, with the rows that the selection is of.
        options: Of the order.
        unit_blocks: How many blocks are shuffled as one.
    """
    if options.kind == "sequential":
        return SequentialOrder(runs)
    pieces = runs.cut(unit_borders(table, unit_blocks))
    return LaneOrder(pieces, seed=options.seed, shuffle=options.shuffle, lanes=options.lanes, window=options.window)
