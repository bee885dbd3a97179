"""Raw files become streams that are fast, exact and never lose a sample.

`optimize` and `map` prepare data in durable jobs; `StreamingDataset` and `StreamingDataLoader` read it from a local disk, S3,
GCS, Azure or HTTP, in an order that depends on nothing but the data and the seed. Names are loaded when they are used.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.data.codecs.serializer import Serializer as Serializer
    from leyden.data.config import Dir as Dir
    from leyden.data.config import ParquetLoader as ParquetLoader
    from leyden.data.config import PyTreeLoader as PyTreeLoader
    from leyden.data.config import TokensLoader as TokensLoader
    from leyden.data.errors import ChunkWaitTimeoutError as ChunkWaitTimeoutError
    from leyden.data.format.cipher import AesGcm as AesGcm
    from leyden.data.format.cipher import Encryption as Encryption
    from leyden.data.interop.litdata_ciphers import FernetEncryption as FernetEncryption
    from leyden.data.interop.litdata_ciphers import RSAEncryption as RSAEncryption
    from leyden.data.interop.webdataset import iter_webdataset_tar as iter_webdataset_tar
    from leyden.data.loader.collate import litdata_collate as litdata_collate
    from leyden.data.loader.loader import StreamingDataLoader as StreamingDataLoader
    from leyden.data.philox import SampleRng as SampleRng
    from leyden.data.read.dataset import StreamingDataset as StreamingDataset
    from leyden.data.read.indexer import BaseIndexer as BaseIndexer
    from leyden.data.read.indexer import FileIndexer as FileIndexer
    from leyden.data.read.indexer import FileMetadata as FileMetadata
    from leyden.data.read.mixed import CombinedStreamingDataset as CombinedStreamingDataset
    from leyden.data.read.raw import StreamingRawDataset as StreamingRawDataset
    from leyden.data.read.split import train_test_split as train_test_split
    from leyden.data.read.zipped import ParallelStreamingDataset as ParallelStreamingDataset
    from leyden.data.tools.cache import cache_path as cache_path
    from leyden.data.tools.cache import cached_datasets as cached_datasets
    from leyden.data.tools.cache import clear_cache as clear_cache
    from leyden.data.tools.convert import convert as convert
    from leyden.data.tools.debugging import breakpoint as breakpoint
    from leyden.data.tools.inspect import inspect as inspect
    from leyden.data.tools.repair import repair as repair
    from leyden.data.tools.verify import verify as verify
    from leyden.data.types import Audio as Audio
    from leyden.data.types import File as File
    from leyden.data.types import Graph as Graph
    from leyden.data.types import Image as Image
    from leyden.data.types import Jpeg as Jpeg
    from leyden.data.types import JpegArray as JpegArray
    from leyden.data.types import Json as Json
    from leyden.data.types import Mesh as Mesh
    from leyden.data.types import Nifti as Nifti
    from leyden.data.types import Pdf as Pdf
    from leyden.data.types import Pil as Pil
    from leyden.data.types import Tensor as Tensor
    from leyden.data.types import Text as Text
    from leyden.data.types import Tiff as Tiff
    from leyden.data.types import Video as Video
    from leyden.data.write.arguments import ALL_DONE as ALL_DONE
    from leyden.data.write.changes.columns import add_columns as add_columns
    from leyden.data.write.changes.deleting import delete_rows as delete_rows
    from leyden.data.write.changes.history import DatasetVersion as DatasetVersion
    from leyden.data.write.changes.history import gc as gc
    from leyden.data.write.changes.history import rollback as rollback
    from leyden.data.write.changes.history import versions as versions
    from leyden.data.write.changes.keying import build_keys_index as build_keys_index
    from leyden.data.write.changes.merging import merge_datasets as merge_datasets
    from leyden.data.write.changes.parquet import index_parquet_dataset as index_parquet_dataset
    from leyden.data.write.changes.updating import DatasetUpdate as DatasetUpdate
    from leyden.data.write.changes.updating import dataset_update as dataset_update
    from leyden.data.write.engines.ray import RayEngine as RayEngine
    from leyden.data.write.finalise import Report as Report
    from leyden.data.write.mapping import map as map
    from leyden.data.write.mapping import walk as walk
    from leyden.data.write.optimize import complete_dataset as complete_dataset
    from leyden.data.write.optimize import is_complete_dataset as is_complete_dataset
    from leyden.data.write.optimize import optimize as optimize
    from leyden.data.write.readers import BaseReader as BaseReader
    from leyden.data.write.readers import ParquetReader as ParquetReader
    from leyden.data.write.readers import StreamingDataLoaderReader as StreamingDataLoaderReader
    from leyden.data.write.readers import list_media_folder as list_media_folder
    from leyden.data.write.status import JobStatus as JobStatus
    from leyden.data.write.status import drop_job as drop_job
    from leyden.data.write.status import status as status
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "ALL_DONE": ".write.arguments",
            "AesGcm": ".format.cipher",
            "Audio": ".types",
            "BaseIndexer": ".read.indexer",
            "BaseReader": ".write.readers",
            "ChunkWaitTimeoutError": ".errors",
            "CombinedStreamingDataset": ".read.mixed",
            "DatasetUpdate": ".write.changes.updating",
            "DatasetVersion": ".write.changes.history",
            "Dir": ".config",
            "Encryption": ".format.cipher",
            "FernetEncryption": ".interop.litdata_ciphers",
            "File": ".types",
            "FileIndexer": ".read.indexer",
            "FileMetadata": ".read.indexer",
            "Graph": ".types",
            "Image": ".types",
            "JobStatus": ".write.status",
            "Jpeg": ".types",
            "JpegArray": ".types",
            "Json": ".types",
            "Mesh": ".types",
            "Nifti": ".types",
            "ParallelStreamingDataset": ".read.zipped",
            "ParquetLoader": ".config",
            "ParquetReader": ".write.readers",
            "Pdf": ".types",
            "Pil": ".types",
            "PyTreeLoader": ".config",
            "RSAEncryption": ".interop.litdata_ciphers",
            "RayEngine": ".write.engines.ray",
            "Report": ".write.finalise",
            "SampleRng": ".philox",
            "Serializer": ".codecs.serializer",
            "StreamingDataLoader": ".loader.loader",
            "StreamingDataLoaderReader": ".write.readers",
            "StreamingDataset": ".read.dataset",
            "StreamingRawDataset": ".read.raw",
            "Tensor": ".types",
            "Text": ".types",
            "Tiff": ".types",
            "TokensLoader": ".config",
            "Video": ".types",
            "add_columns": ".write.changes.columns",
            "breakpoint": ".tools.debugging",
            "build_keys_index": ".write.changes.keying",
            "cache_path": ".tools.cache",
            "cached_datasets": ".tools.cache",
            "clear_cache": ".tools.cache",
            "complete_dataset": ".write.optimize",
            "convert": ".tools.convert",
            "dataset_update": ".write.changes.updating",
            "delete_rows": ".write.changes.deleting",
            "drop_job": ".write.status",
            "gc": ".write.changes.history",
            "index_parquet_dataset": ".write.changes.parquet",
            "inspect": ".tools.inspect",
            "is_complete_dataset": ".write.optimize",
            "iter_webdataset_tar": ".interop.webdataset",
            "list_media_folder": ".write.readers",
            "litdata_collate": ".loader.collate",
            "map": ".write.mapping",
            "merge_datasets": ".write.changes.merging",
            "optimize": ".write.optimize",
            "repair": ".tools.repair",
            "rollback": ".write.changes.history",
            "status": ".write.status",
            "train_test_split": ".read.split",
            "verify": ".tools.verify",
            "versions": ".write.changes.history",
            "walk": ".write.mapping",
        },
    )
