"""Errors of data: branches of `leyden.core.errors`.

```
ConfigError
└── SchemaError                      a sample is built unlike the others
ConflictError
└── DatasetExistsError (RuntimeError)  there is a dataset already, and no `mode` says what to do with it
StateError
└── IncompleteJobError               units of a job are missing
RemoteError
└── UnitFailedError                  an input could not be processed; carries the worker's traceback
StorageError
└── StalledError (TimeoutError)      nothing came for too long
    └── ChunkWaitTimeoutError        … while a chunk was fetched
```
"""

from leyden.core.errors import ConfigError, ConflictError, RemoteError, StateError, StorageError


class SchemaError(ConfigError):
    """A sample has another structure, type or set of keys than the others, or a leaf that cannot be stored."""

    code = "data.schema"


class DatasetExistsError(ConflictError, RuntimeError):
    """There is a dataset at the output already, and no `mode` says whether to append to it or to replace it."""

    code = "data.exists"


class IncompleteJobError(StateError):
    """A job cannot be finished, because some of its units are not done."""

    code = "data.incomplete"


class UnitFailedError(RemoteError):
    """An input could not be processed; the message holds the input and the worker's traceback."""

    code = "data.unit_failed"


class StalledError(StorageError, TimeoutError):
    """No batch came within the time given."""

    code = "data.stalled"


class ChunkWaitTimeoutError(StalledError):
    """A part of a chunk did not arrive within the time given."""

    code = "data.chunk_timeout"
