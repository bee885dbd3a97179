"""Storage by URL: the same few calls for a local directory, S3, Google Cloud Storage, Azure, HTTP and memory.

```python
storage = open_storage("s3://bucket/runs/demo")          # also a path, file:// gs:// az:// http(s):// memory://
storage.write("meta.json", b"{}")
storage.read_range("weights.safetensors", start=8, length=1024)
```
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.storage.storage import Entry as Entry
    from leyden.core.storage.storage import Storage as Storage
    from leyden.core.storage.urls import is_url as is_url
    from leyden.core.storage.urls import local_path as local_path
    from leyden.core.storage.urls import open_storage as open_storage
    from leyden.core.storage.urls import split_url as split_url
else:
    from leyden.core.lazy import exports

    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Entry": ".storage",
            "Storage": ".storage",
            "is_url": ".urls",
            "local_path": ".urls",
            "open_storage": ".urls",
            "split_url": ".urls",
        },
    )
