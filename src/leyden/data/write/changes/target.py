"""`open_target`: the dataset that is to be changed, at its newest version; and what every change says of itself."""

import dataclasses
import os
import platform
import time
from collections.abc import Mapping
from typing import Any, final

from leyden import __version__
from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.storage import Storage, is_url, open_storage
from leyden.data.config import Dir
from leyden.data.format.manifest import Manifest
from leyden.data.format.schema import Schema
from leyden.data.format.versions import INDEX, open_manifest
from leyden.data.write.arguments import output_of

Place = str | os.PathLike[str] | Dir


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A dataset that is to be changed.

    Args:
        url: The folder or URL.
        options: Of its storage.
        storage: The same, opened.
        manifest: The version that was the newest when it was opened.
    """

    url: str
    options: Mapping[str, Any]
    storage: Storage
    manifest: Manifest

    @property
    def is_tokens(self) -> bool:
        """Whether rows are documents of one stream of tokens."""
        return any(chunk.tokens is not None for chunk in self.manifest.chunks)


def open_target(place: Place, options: Mapping[str, Any] | None = None, *, version: int | None = None) -> Target:
    """Return the dataset at a place.

    Args:
        place: A folder, URL or `Dir`.
        options: Of its storage.
        version: The version to look at; the newest by default.

    Raises:
        NotFoundError: There is none.
        ConfigError: It is in another format.
    """
    url = output_of(place, is_alone=True)
    storage = open_storage(url, dict(options or {}))
    try:
        manifest = open_manifest(storage, version)
    except CorruptDataError as error:
        if "is no manifest" in str(error):
            raise _foreign(url) from error
        raise
    if manifest.storage is not None:
        raise _foreign(url)
    return Target(url=url, options=dict(options or {}), storage=storage, manifest=manifest)


def next_of(newest: Manifest, operation: str, about: Mapping[str, Any], **changes: Any) -> Manifest:
    """Return the version after the newest, with what is changed.

    Args:
        newest: The newest.
        operation: What makes it.
        about: What its lineage says beside the time and the software.
        **changes: Fields of the manifest.
    """
    number = newest.version + 1
    return dataclasses.replace(
        newest, version=number, parent=newest.version, operation=operation, lineage={**software(), **about}, **changes
    )


def software() -> dict[str, Any]:
    """Return what every lineage says: when, and with what."""
    return {"created_at": time.time(), "leyden": __version__, "python": platform.python_version()}


def _foreign(url: str) -> ConfigError:
    return ConfigError(
        f"the dataset at {url} is of another format ({INDEX} is not ours), and such ones are only read. Make it ours first: "
        f"convert({url!r}, new_folder, to='leyden')."
    )


def is_remote(url: str) -> bool:
    """Return whether a place lies elsewhere than on this machine's disks."""
    return is_url(url) and not url.startswith("file:")


def without_files(schema: Schema) -> Schema:
    """Return a schema that does not say which files columns lie in."""
    return schema.with_leaves(lambda leaf: dataclasses.replace(leaf, file=None))
