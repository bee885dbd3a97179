"""Clients of a server: `Client`, and `AsyncClient` for event loops.

```python
with Client("http://localhost:8000") as client:
    client.predict({"input": 4.0})
```
What the two share has no sockets and no clock: `target.py` is one request through all its tries, `bodies.py` what is sent,
`readers.py` what comes back, `failures.py` what went wrong.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports
from leyden.core.optional import require

require("httpx", extra="serve", purpose="leyden.serve.Client")  # before a name is asked for, so that the error holds the command

if TYPE_CHECKING:
    from leyden.serve.client.aio import AsyncClient as AsyncClient
    from leyden.serve.client.aio import AsyncStream as AsyncStream
    from leyden.serve.client.sync import Client as Client
    from leyden.serve.client.sync import Stream as Stream
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"AsyncClient": ".aio", "AsyncStream": ".aio", "Client": ".sync", "Stream": ".sync"})
