"""Errors of serving: branches of `leyden.core.errors`.

```
RemoteError
└── LinkError    what came over a link between two processes is not what the protocol allows
```
"""

from leyden.core.errors import RemoteError


class LinkError(RemoteError):
    """What came over a link cannot be understood; the link is broken and must be closed."""

    code = "serve.link"
