"""Raw files become streams that are fast, exact and never lose a sample.

`optimize` and `map` prepare data in durable jobs; `StreamingDataset` and `StreamingDataLoader` read it from a local disk, S3,
GCS, Azure or HTTP, in an order that depends on nothing but the data and the seed. Names are loaded when they are used.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.data.config import Dir as Dir
    from leyden.data.config import ParquetLoader as ParquetLoader
    from leyden.data.config import PyTreeLoader as PyTreeLoader
    from leyden.data.config import TokensLoader as TokensLoader
    from leyden.data.errors import ChunkWaitTimeoutError as ChunkWaitTimeoutError
    from leyden.data.read.indexer import BaseIndexer as BaseIndexer
    from leyden.data.read.indexer import FileIndexer as FileIndexer
    from leyden.data.read.indexer import FileMetadata as FileMetadata
    from leyden.data.read.raw import StreamingRawDataset as StreamingRawDataset
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "BaseIndexer": ".read.indexer",
            "ChunkWaitTimeoutError": ".errors",
            "Dir": ".config",
            "FileIndexer": ".read.indexer",
            "FileMetadata": ".read.indexer",
            "ParquetLoader": ".config",
            "PyTreeLoader": ".config",
            "StreamingRawDataset": ".read.raw",
            "TokensLoader": ".config",
        },
    )
