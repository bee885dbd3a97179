"""In what layout a job writes: what is there already, which version a job has made, and the commit of the next one.

`NativeLayout` is our format; LitData's is in `leyden.data.write.litdata_layout`. A place holds one layout, for good.
"""

import contextlib
import json
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

from leyden.core import settings
from leyden.core.errors import ConfigError, NotFoundError
from leyden.core.storage import Storage
from leyden.data.errors import DatasetExistsError
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.manifest import Manifest
from leyden.data.format.versions import INDEX, exists_error, find_manifest, list_versions, open_manifest, past_of
from leyden.data.write.finalise import Ending, Report, clean_up_after, finalise, refuse_mixture, report_of
from leyden.data.write.journal import Journal
from leyden.data.write.plan import Plan

LAYOUTS = ("leyden", "litdata")
LITDATA_MARK = "_leyden/litdata-"


class Layout(ABC):
    """Finds and commits versions at a place.

    Args:
        storage: The output.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @abstractmethod
    def newest(self) -> int:
        """Return the number of the newest version; 0 where there is no dataset."""

    @abstractmethod
    def made_already(self, work: str, mode: str | None) -> Report | None:
        """Return the report of the same work, if its version is what this call would make; leftovers of its job go."""

    @abstractmethod
    def times_made(self, work: str) -> int:
        """Return how many versions the same work has made."""

    @abstractmethod
    def cipher(self, encryption: Any, mode: str | None) -> Mapping[str, Any] | None:
        """Return what the index says of the encryption.

        Raises:
            ConfigError: It is not that of the dataset that is appended to.
        """

    @abstractmethod
    def has_key(self, encryption: Any) -> bool:
        """Return whether the newest version was encrypted with this key, as far as that can be told."""

    def check_kind(self, mode: str | None, *, is_tokens: bool) -> None:  # noqa: B027 - LitData's writer compares formats itself
        """Refuse to append tokens to rows, or rows to tokens.

        Raises:
            ConfigError: They would be mixed.
        """

    @abstractmethod
    def finish(self, journal: Journal, plan: Plan, ending: Ending) -> Report:
        """Commit the version of a job whose units are all done."""


@final
class NativeLayout(Layout):
    """Our own format."""

    def newest(self) -> int:
        found = find_manifest(self.storage)
        return found.version if found else 0

    def made_already(self, work: str, mode: str | None) -> Report | None:
        start = time.monotonic()
        found = self._made_already(work, mode)
        if found is None:
            return None
        clean_up_after(self.storage, found)
        report = report_of(found, time.monotonic() - start)
        end_journal(self.storage, report)
        return report

    def _made_already(self, work: str, mode: str | None) -> Manifest | None:
        """Return the version that the same work has made, if nothing came in between that it would change."""
        newest = find_manifest(self.storage)
        if newest is None:
            return None
        if mode != "append":
            made = newest if mode is not None else self._last_made(newest)
            return made if made.lineage.get("work") == work else None
        for manifest in past_of(self.storage):
            if manifest.lineage.get("work") == work:
                warn_of_append(manifest.version)
                return manifest
            if manifest.operation != "append":
                return None
        return None

    def _last_made(self, newest: Manifest) -> Manifest:
        """Return the version that others were appended to: a script that creates and then appends is run again as a whole."""
        return next((manifest for manifest in past_of(self.storage) if manifest.operation != "append"), newest)

    def times_made(self, work: str) -> int:
        found = (open_manifest(self.storage, each.version) for each in list_versions(self.storage))
        return sum(manifest.lineage.get("work") == work for manifest in found)

    def cipher(self, encryption: Any, mode: str | None) -> Mapping[str, Any] | None:
        newest = find_manifest(self.storage) if mode == "append" else None
        if newest is not None and (newest.cipher is None) != (encryption is None):
            raise ConfigError("the dataset and what is appended must both be encrypted, or neither. Pass encryption= as it was written.")
        return None if encryption is None else DatasetCiphers(encryption, newest.cipher if newest else None).entry

    def has_key(self, encryption: Any) -> bool:
        newest = find_manifest(self.storage)
        return newest is None or is_key_of(encryption, newest.cipher)

    def check_kind(self, mode: str | None, *, is_tokens: bool) -> None:
        newest = find_manifest(self.storage) if mode == "append" else None
        if newest is not None:
            refuse_mixture(newest, self.storage.url, is_tokens=is_tokens)

    def finish(self, journal: Journal, plan: Plan, ending: Ending) -> Report:
        return report_of(finalise(journal, plan, ending), 0.0)


def is_key_of(encryption: Any, cipher: Mapping[str, Any] | None) -> bool:
    """Return whether what a version says of its encryption goes with a key, as far as that can be told."""
    if encryption is None or cipher is None:
        return True
    try:
        DatasetCiphers(encryption, cipher)
    except ConfigError:
        return False
    return True


def end_journal(storage: Storage, report: Report) -> None:
    """Do what whoever was killed between the commit and the end has not done."""
    journal = Journal(storage, report.job)
    if journal.exists() and journal.ended() is None:
        journal.end(report._asdict())


def warn_of_append(version: int) -> None:
    """Say that an append was done already."""
    warnings.warn(f"already appended as version {version}; resume=False appends again.", UserWarning, stacklevel=6)


def layout_name(storage: Storage, layout: Any, mode: str | None) -> str:
    """Return the layout that a job writes: what was asked for, else that of the dataset, of `LEYDEN_DATA_LAYOUT`, or ours.

    Args:
        storage: The output.
        layout: As the caller gave it.
        mode: `None`, `append` or `overwrite`.

    Raises:
        ConfigError: There is no such layout, or the dataset has another.
        DatasetExistsError: There is a dataset in another layout, and no `mode`.
    """
    name = layout if layout is not None else settings.environment().get("LEYDEN_DATA_LAYOUT")
    if name is not None and name not in LAYOUTS:
        raise ConfigError(f"layout={name!r} is not accepted: it takes {' or '.join(map(repr, LAYOUTS))}.")
    there = layout_at(storage)
    if there is not None and mode is not None and layout is None:
        return there
    name = name or LAYOUTS[0]
    if there is None or there == name:
        return str(name)
    if mode is None:
        raise exists_error(storage.url)
    raise ConfigError(f"layout={name!r}, but the dataset at {storage.url} has layout={there!r}: leave layout out, or write elsewhere.")


def layout_at(storage: Storage) -> str | None:
    """Return the layout of the dataset at a place; `None` where there is none.

    Raises:
        DatasetExistsError: What is there is neither ours nor LitData's.
    """
    with contextlib.suppress(NotFoundError, ValueError):
        found = json.loads(storage.read(INDEX))
        if "format" in found:
            return LAYOUTS[0]
        if "config" in found:
            return LAYOUTS[1]
        raise DatasetExistsError(f"there is another kind of dataset at {storage.url}. Choose an empty output_dir.")
    if list_versions(storage):
        return LAYOUTS[0]
    return LAYOUTS[1] if any(entry.key.startswith(LITDATA_MARK) for entry in storage.list("_leyden")) else None
