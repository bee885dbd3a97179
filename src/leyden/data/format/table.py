"""`BlockTable`: where every block of a dataset lies, in whatever format it is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class BlockTable(NamedTuple):
    """Every block of a version, in row order, as arrays of equal length `blocks`; never one Python object per block.

    Args:
        chunk: int32 (blocks,), the number of the chunk that holds the block.
        first_row: int64 (blocks,), the block's first stored row in the dataset.
        rows: int64 (blocks,), how many stored rows it has.
        offset: int64 (blocks,), where its bytes begin in the chunk.
        stored_bytes: int64 (blocks,), how many there are.
        tokens: int64 (blocks,) of a token dataset, else `None`.
    """

    chunk: NDArray[np.int32]
    first_row: NDArray[np.int64]
    rows: NDArray[np.int64]
    offset: NDArray[np.int64]
    stored_bytes: NDArray[np.int64]
    tokens: NDArray[np.int64] | None
