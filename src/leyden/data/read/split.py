"""`train_test_split`: disjoint parts of a dataset, each a dataset of its own over the same files."""

from collections.abc import Sequence

from leyden.core.errors import ConfigTypeError
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.subset import split_runs


def train_test_split(
    streaming_dataset: StreamingDataset,
    splits: Sequence[float],
    seed: int = 42,
    shuffle: bool = True,  # noqa: FBT001, FBT002 - the documented signature
) -> list[StreamingDataset]:
    """Return parts of exactly ⌊N · f⌋ samples each, which have none in common.

    Parts are made of whole blocks, but for one at each border: reading a part fetches little more than its share.

    Args:
        streaming_dataset: The dataset, or a subset of one.
        splits: A fraction for each part, such as `[0.9, 0.1]`; what they leave of 1 is in no part.
        seed: Of the draw.
        shuffle: Whether blocks are drawn; else the parts follow one another.

    Raises:
        ConfigError: A fraction is not in [0, 1], or their sum exceeds 1.

    Example:
        ```python
        train, val = train_test_split(StreamingDataset("s3://bucket/data"), splits=[0.9, 0.1])
        ```
    """
    if not isinstance(streaming_dataset, StreamingDataset):
        raise ConfigTypeError(f"streaming_dataset={streaming_dataset!r:.80}: only a StreamingDataset can be split. Split its parts.")
    parts = split_runs(streaming_dataset.selection, splits, streaming_dataset.borders, seed if shuffle else None)
    return [streaming_dataset.selected(part) for part in parts]
