"""TLS keys from the environment: PEM as base64, in files that only this user can read while the server runs."""

import base64
import binascii
import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from leyden.core import settings
from leyden.core.errors import ConfigError

_CERT, _KEY = "LEYDEN_SERVE_TLS_CERT", "LEYDEN_SERVE_TLS_KEY"


@contextlib.contextmanager
def files(environ: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Return the settings of uvicorn that name the files of certificate and key; nothing if there are none.

    Raises:
        ConfigError: Only one is given, or it is no base64.
    """
    given = {name: settings.get(name, environ) for name in (_CERT, _KEY)}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == 2:
        yield {}
        return
    if missing:
        raise ConfigError(f"{missing[0]} is not set, and TLS needs both {_CERT} and {_KEY}.")
    with tempfile.TemporaryDirectory(prefix="leyden-tls-") as folder:
        paths = {name: Path(folder, f"{name.rpartition('_')[2].lower()}.pem") for name in given}
        for name, path in paths.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_decoded(name, str(given[name])))
        yield {"ssl_certfile": str(paths[_CERT]), "ssl_keyfile": str(paths[_KEY])}


def _decoded(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{name} is no base64: {error}. Set it to the PEM file, encoded: base64 -w0 file.pem") from error
