"""`merge_datasets`: the rows of several datasets, one after another, as one; chunks are copied, not decoded.

What makes it a dataset comes last: a merge that was killed leaves chunks, and the same call goes on with them.
"""

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final
from urllib.parse import urlsplit

import numpy as np
import xxhash

from leyden.core.errors import ConfigError, ConflictError, CorruptDataError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage, open_storage
from leyden.data.format import canonical, deletes
from leyden.data.format.cipher import AesGcm, DatasetCiphers
from leyden.data.format.hashing import digest128
from leyden.data.format.keys import key_bytes
from leyden.data.format.manifest import Chunk, ColumnFile, Deleted, Manifest
from leyden.data.format.schema import unify_all
from leyden.data.format.versions import commit, find_manifest
from leyden.data.read.native import local_path
from leyden.data.write.arguments import output_of
from leyden.data.write.changes.committing import Files, read_keys, write_keys
from leyden.data.write.changes.history import DatasetVersion, facts_of
from leyden.data.write.changes.rewriting import JOB_DIGITS, Rewriter
from leyden.data.write.changes.target import Place, Target, is_remote, open_target, software, without_files

_WORKERS, _READ_BYTES = 8, 1 << 20
_COPYING = frozenset({"s3", "gs", "az", "memory"})


def merge_datasets(
    input_dirs: Sequence[Place],
    output_dir: Place,
    max_workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    encryption: Any = None,
) -> DatasetVersion:
    """Make one dataset of several: their newest rows, in the order given. Old versions are not taken along.

    Run again after it was killed, it goes on; after it was done, it returns what it made.

    Args:
        input_dirs: Two or more folders or URLs.
        output_dir: An empty folder or URL.
        max_workers: Files that are copied at once; 8 by default.
        storage_options: Of the storage of all of them.
        encryption: What decrypts and encrypts: only needed if the datasets were encrypted with keys of their own, or if columns
            were added to them differently; then their chunks are written anew.

    Returns:
        Version 1 of the output.

    Raises:
        NotFoundError: An input is no dataset.
        ConfigError: The inputs are fewer than two or not different, encrypted differently, or share a key.
        SchemaError: Their samples do not go together.
        ConflictError: There is something else at the output.

    Example:
        >>> import tempfile
        >>> from leyden.data import StreamingDataset, optimize
        >>> parts = [tempfile.mkdtemp(), tempfile.mkdtemp()]
        >>> _ = [optimize(float, [number], folder, num_workers=0) for number, folder in enumerate(parts)]
        >>> merged = tempfile.mkdtemp()
        >>> merge_datasets(parts, merged).num_rows, StreamingDataset(merged)[:]
        (2, [0.0, 1.0])
    """
    workers = _checked_workers(max_workers)
    url = output_of(output_dir, is_alone=True)
    _check_places(input_dirs, url)
    options = _options_of(url, storage_options)
    output = open_storage(url, options)
    with ThreadPoolExecutor(workers, "leyden-merge") as pool:
        targets = list(pool.map(partial(_opened, options=storage_options), input_dirs))
        work = digest128(canonical.dumps(["merge", [[target.url, target.manifest.digest] for target in targets]]))
        done = find_manifest(output)
        if done is not None and done.lineage.get("work") == work:
            return facts_of(done)
        merge = _Merge(targets, url, output, options, encryption, work)
        merge.check_empty()
        chunks = tuple(pool.map(merge.bring, merge.parts))
    return facts_of(commit(output, lambda _: merge.manifest(chunks), must_be_new=True))


class _Part(NamedTuple):
    """A chunk that is brought.

    Args:
        target: Where it lies.
        number: Which chunk it is there.
        place: Which chunk it becomes.
        name: What its file is called then.
        is_copied: Whether it is as it must be; else it is written anew.
    """

    target: Target
    number: int
    place: int
    name: str
    is_copied: bool

    @property
    def chunk(self) -> Chunk:
        """The chunk as its own dataset names it."""
        return self.target.manifest.chunks[self.number]


@final
class _Merge:
    """What is brought where.

    Args:
        targets: The inputs.
        url: Of the output.
        output: The output.
        options: Of its storage.
        encryption: What decrypts and encrypts.
        work: What the merge is.

    Raises:
        ConfigError: The inputs do not go together.
        SchemaError: Their samples do not.
    """

    def __init__(
        self, targets: Sequence[Target], url: str, output: Storage, options: Mapping[str, Any], encryption: Any, work: str
    ) -> None:
        self._targets, self._url, self._output, self._work = targets, url, output, work
        self._encryption, self._job = encryption, work[:JOB_DIGITS]
        _check_tokens(targets)
        urls = [target.url for target in targets]
        with_rows = [number for number, target in enumerate(targets) if not target.manifest.says_nothing] or [0]
        schemas = [without_files(targets[number].manifest.schema) for number in with_rows]
        merged = unify_all(schemas, lambda number: urls[with_rows[number]])
        layout = next((_layout_of(target) for target in targets if _layout_of(target)), {})
        self._schema = merged.with_leaves(lambda leaf: dataclasses.replace(leaf, file=layout.get(leaf.name)))
        self._cipher = targets[0].manifest.cipher
        copied = [_layout_of(target) in ({}, layout) and _is_sealed_alike(target, self._cipher, encryption) for target in targets]
        first = targets[0].manifest
        into = Target(url=url, options=options, storage=output, manifest=dataclasses.replace(first, cipher=self._cipher))
        self._rewriters = {
            target.url: Rewriter(target, Files(output), encryption, self._job, into=into)
            for target, is_copied in zip(targets, copied, strict=True)
            if not is_copied
        }
        self.parts = _named(targets, copied)

    def check_empty(self) -> None:
        """Refuse an output that holds what this merge has not left there.

        Raises:
            ConflictError: It does.
        """
        mine = {part.name for part in self.parts} | {_deletes(part) for part in self.parts}
        mine |= {file.name for part in self.parts for file in part.chunk.files}
        for entry in self._output.list():
            if entry.key not in mine and not entry.key.startswith(
                (f"chunk-{self._job}-", f".chunk-{self._job}-", "_leyden/keys-00000001-")
            ):
                raise ConflictError(
                    f"output_dir={self._url!r} is not empty: it holds {entry.key}. Merge into a new folder: nothing is overwritten."
                )

    def bring(self, part: _Part) -> Chunk:
        """Return a chunk of the output; its files are there."""
        chunk = self._copied(part) if part.is_copied else self._rewritten(part)
        before = part.chunk.deleted
        if before is None:
            return chunk
        self._output.write(_deletes(part), part.target.storage.read(before.name))
        return dataclasses.replace(chunk, deleted=Deleted(_deletes(part), before.rows))

    def _copied(self, part: _Part) -> Chunk:
        self._copy(part.target, part.chunk, part.name)
        for file in part.chunk.files:
            self._copy(part.target, file, file.name)
        return dataclasses.replace(part.chunk, name=part.name)

    def _rewritten(self, part: _Part) -> Chunk:
        rewriter = self._rewriters[part.target.url]
        made = rewriter.write(part.place, (columns for _, columns in rewriter.blocks_of(part.number)), without_files(self._schema))
        assert made is not None  # noqa: S101 - no chunk is without rows
        return made

    def _copy(self, source: Target, file: Chunk | ColumnFile, name: str) -> None:
        if self._output.exists(name) and self._output.size(name) == file.bytes:
            return  # from before we were killed: files appear whole or not at all
        root = _shared_root(source.url, self._url)
        if root is not None:
            open_storage(root, source.options).copy(_key_below(root, source.url, file.name), _key_below(root, self._url, name))
        else:
            self._transfer(source, file, name)
        failpoint("data.merge.copied")

    def _transfer(self, source: Target, file: Chunk | ColumnFile, name: str) -> None:
        source.storage.size(file.name)  # says that it is gone, if it is
        with tempfile.TemporaryDirectory(prefix="leyden-merge-") as folder:
            path = Path(folder, "chunk") if is_remote(source.url) else Path(local_path(source.url), file.name)
            if is_remote(source.url):
                source.storage.download_file(file.name, path)
            if _digest_of(path) != file.digest:
                raise CorruptDataError(
                    f"{source.url}/{file.name} is damaged: its digest is not the one of its version. Nothing was merged."
                )
            self._output.upload_file(path, name)

    def manifest(self, chunks: tuple[Chunk, ...]) -> Manifest:
        """Return version 1 of the output."""
        firsts = [0, *itertools.accumulate(target.manifest.num_stored_rows for target in self._targets)]
        found: list[str | int] = []
        rows = [np.zeros(0, np.int64)]
        owners: dict[bytes, str] = {}
        for target, first in zip(self._targets, firsts, strict=False):
            keys, own = read_keys(target.storage, target.manifest)
            for key in keys:
                other = owners.setdefault(key_bytes(key), target.url)
                if other != target.url:
                    raise ConfigError(f"{other} and {target.url} both have a row of the key {key!r}. Delete one of them before merging.")
            found += keys
            rows.append(own + first)
        parents = [{"uri": each.url, "version": each.manifest.version, "digest": each.manifest.digest} for each in self._targets]
        return Manifest(
            version=1,
            schema=self._schema,
            chunks=chunks,
            settings=self._targets[0].manifest.settings,
            operation="merge",
            cipher=self._cipher,
            keys=write_keys(Files(self._output), 1, found, np.concatenate(rows)),
            lineage={**software(), "work": self._work, "parents": parents},
        )


def _checked_workers(max_workers: int | None) -> int:
    if max_workers is not None and (not isinstance(max_workers, int) or isinstance(max_workers, bool) or max_workers < 1):
        raise ConfigError(f"max_workers={max_workers!r} is not accepted: it takes a whole number ≥ 1.")
    return max_workers or _WORKERS


def _options_of(url: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of a place: folders have none."""
    return dict(options or {}) if is_remote(url) else {}


def _opened(place: Place, options: Mapping[str, Any] | None) -> Target:
    return open_target(place, _options_of(output_of(place, is_alone=True), options))


def _check_places(input_dirs: Sequence[Place], output: str) -> None:
    if isinstance(input_dirs, (str, os.PathLike)):
        raise ConfigError(f"input_dirs={input_dirs!r} is one place: pass a list of two or more.")
    urls = [output_of(place, is_alone=True).rstrip("/") for place in input_dirs]
    if len(urls) < 2:
        raise ConfigError(f"input_dirs= names {len(urls)} dataset(s): merging takes two or more.")
    twice = next((url for url in urls if urls.count(url) > 1), None)
    if twice is not None:
        raise ConfigError(f"input_dirs= names {twice} twice: datasets must differ.")
    if output.rstrip("/") in urls:
        raise ConfigError(f"output_dir={output!r} is among the inputs: merge into a new folder.")


def _check_tokens(targets: Sequence[Target]) -> None:
    kinds = {target.is_tokens: target.url for target in targets if target.manifest.chunks}
    if len(kinds) > 1:
        raise ConfigError(f"{kinds[True]} is a token dataset and {kinds[False]} is none: they cannot be one.")


def _layout_of(target: Target) -> dict[str, int]:
    """Return which leaves lie in which column file; nothing if chunks hold all columns themselves."""
    if not any(chunk.files for chunk in target.manifest.chunks):
        return {}
    return {leaf.name: leaf.file for leaf in target.manifest.schema.leaves if leaf.file is not None}


def _is_sealed_alike(target: Target, cipher: Mapping[str, Any] | None, encryption: Any) -> bool:
    """Return whether chunks can be read with what reads those of the first dataset.

    Objects that wrap keys say differently each time what checks them: whether they are one is seen with the object at hand.

    Raises:
        ConfigError: They are encrypted otherwise, and nothing was given to change that.
    """
    own = target.manifest.cipher
    if own == cipher:
        return True
    if own is None or cipher is None:
        raise ConfigError(f"{target.url} is {'not ' if own is None else ''}encrypted, unlike the first dataset: all must be, or none.")
    if encryption is None:
        raise ConfigError(f"{target.url} is encrypted with a key of its own: pass encryption= to write its chunks anew under the first's.")
    for entry in (own, cipher):
        DatasetCiphers(encryption, entry)  # compares algorithms and keys
    salts = [str(entry.get("salt")) for entry in (own, cipher)]
    return not isinstance(encryption, AesGcm) or encryption.master(salts[0].encode()) == encryption.master(salts[1].encode())


def _named(targets: Sequence[Target], copied: Sequence[bool]) -> list[_Part]:
    """Return every chunk with a name that no other has."""
    parts, taken = list[_Part](), set[str]()
    for target, is_copied in zip(targets, copied, strict=True):
        for number, chunk in enumerate(target.manifest.chunks):
            name, place = chunk.name, len(parts)
            if name in taken:
                name = f"{name.removesuffix('.ldc')}-{place}.ldc"
            taken.add(name)
            parts.append(_Part(target, number, place, name, is_copied))
    return parts


def _deletes(part: _Part) -> str:
    """Return what the file of a chunk's deleted rows is called in the output; chunks may be copies of each other."""
    return deletes.name_of(1, part.chunk.digest).replace(".bin", f"-{part.place}.bin")


def _shared_root(source: str, output: str) -> str | None:
    """Return the bucket that holds both places, within which the service copies; `None` if they share none."""
    one, other = urlsplit(source), urlsplit(output)
    is_shared = one.scheme in _COPYING and (one.scheme, one.netloc) == (other.scheme, other.netloc)
    return f"{one.scheme}://{one.netloc}" if is_shared else None


def _key_below(root: str, url: str, name: str) -> str:
    folder = url.removeprefix(root).strip("/")
    return f"{folder}/{name}" if folder else name


def _digest_of(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
