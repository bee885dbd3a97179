"""`CachedSource`: a remote source whose blocks are fetched once for all processes of the node, and read from the cache."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, final

import numpy as np

from leyden.core.errors import CorruptDataError, StorageError
from leyden.data.errors import ChunkWaitTimeoutError
from leyden.data.read.cache import Cache, DiskCache
from leyden.data.read.source import Block, BlockSource

_TURNS = 1000  # of waiting for a claimant and claiming in its place


class EvictedError(StorageError):
    """A block is not in the cache, in a process that must not fetch: its consumer fetches it and asks again.

    Args:
        block: The block's number.
    """

    code = "data.evicted"

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block} is not in the cache any more.")
        self.block = block

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.block,), self.__dict__)


class Remote(Protocol):
    """What a source can do that lies elsewhere, so that its blocks can be cached."""

    def cache_key(self, block: int) -> str:
        """Return a name that says the block's content: `<digest>/<number>`."""
        ...

    def cached_bytes(self, block: int) -> int | None:
        """Return how long the block is, or `None` if that is known only after fetching."""
        ...

    def fetch_run(self, first: int, count: int) -> Sequence[Any]:
        """Return the bytes of blocks that lie side by side, with one request."""
        ...

    def check(self, block: int, buffer: Any) -> None:
        """Raise `CorruptDataError` if a hash of the block does not hold."""
        ...


@final
class CachedSource:
    """A source behind a cache; itself a `BlockSource`. Pickles as configuration, with the cache's folder.

    Args:
        source: The remote source.
        remote: What can be asked of it beside that.
        cache: Where blocks are kept.
        url: The dataset's URL: the first part of all names in the cache.
        may_fetch: False in worker processes, which must not touch the object store.
        whole: What whole blocks are called by, if only parts of them are fetched: they serve as well.
        share: How much of a block is fetched, at most 1.
    """

    def __init__(
        self,
        source: BlockSource,
        remote: Remote,
        cache: Cache,
        url: str,
        *,
        may_fetch: bool = True,
        whole: Remote | None = None,
        share: float = 1.0,
    ) -> None:
        self.source = source
        self.schema, self.chunk_names = source.schema, source.chunk_names
        stored = source.table.stored_bytes
        self.table = source.table if share == 1.0 else source.table._replace(stored_bytes=np.ceil(stored * share).astype(np.int64))
        self.digest, self.version = source.digest, source.version
        self.may_fetch = may_fetch
        self._remote, self._whole = remote, whole
        self._cache = cache
        self._url = url
        self._prefix = url_digest(url)

    @property
    def is_shared(self) -> bool:
        """Whether other processes of the node find its blocks too."""
        return isinstance(self._cache, DiskCache)

    @property
    def cache_bytes(self) -> int:
        """How much the cache holds."""
        return self._cache.budget_bytes

    def is_here(self, block: int) -> bool:
        """Return whether a block is in the cache at this moment."""
        return self._look(block) is not None

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> Any:
        """Return a block from the cache; what is missing is fetched first."""
        del columns  # what is fetched of a block was settled when the dataset was opened
        found = self._look(block)
        if found is not None:
            return found
        if not self.may_fetch:
            raise EvictedError(block)
        return self.bring(block, 1)[0]

    def open(self, block: int, buffer: Any) -> Block:
        """Return the block that a buffer holds; if it shows to be damaged, it is dropped and fetched once more."""
        try:
            opened = self.source.open(block, buffer)
        except CorruptDataError:
            opened = self.open_again(block)
        return _Mending(self, block, opened)

    def open_again(self, block: int) -> Block:
        """Return the block after fetching it anew.

        Raises:
            EvictedError: This process must not fetch.
        """
        self.drop(block)
        return self.source.open(block, self.fetch(block))

    def drop(self, block: int) -> None:
        """Forget a block that turned out to be damaged."""
        self._cache.drop(self._key(block))
        if self._whole is not None:
            self._cache.drop(f"{self._prefix}/{self._whole.cache_key(block)}")

    def bring(self, first: int, count: int) -> list[Any]:
        """Return blocks that lie side by side, after fetching those that nobody has or fetches; one request for each gap.

        Raises:
            CorruptDataError: A block is damaged at its source too.
            ChunkWaitTimeoutError: Another process claims to fetch a block again and again, and never does.
        """
        found: dict[int, Any] = {}
        missing = list(range(first, first + count))
        for _ in range(_TURNS):
            missing = [block for block in missing if not self._find(block, found)]
            if not missing:
                return [found[block] for block in range(first, first + count)]
            self._fetch_claimed(self._claimed(missing, found), found)
            for block in (block for block in missing if block not in found):
                waited = self._cache.wait(self._key(block), self._remote.cached_bytes(block))
                if waited is not None:
                    found[block] = waited
        raise ChunkWaitTimeoutError(f"{self._url}: blocks {missing} are claimed by other processes that never finish them.")

    def _claimed(self, missing: Iterable[int], found: dict[int, Any]) -> list[int]:
        """Return the blocks that are ours to fetch; one that came between the look and the claim is given back."""
        claimed = []
        for block in missing:
            if self._cache.claim(self._key(block)):
                if self._find(block, found):
                    self._cache.release(self._key(block))
                else:
                    claimed.append(block)
        return claimed

    def _fetch_claimed(self, claimed: list[int], found: dict[int, Any]) -> None:
        left = list(claimed)
        try:
            for start, count in runs(claimed):
                for block, data in enumerate(self._fetch_checked(start, count), start):
                    found[block] = self._cache.put(self._key(block), data)
                    left.remove(block)
        finally:
            for block in left:
                self._cache.release(self._key(block))

    def _fetch_checked(self, start: int, count: int) -> list[Any]:
        """Fetch, check every hash once, and fetch a damaged block once more before giving up."""
        fetched = list(self._remote.fetch_run(start, count))
        for place, data in enumerate(fetched):
            try:
                self._remote.check(start + place, data)
            except CorruptDataError:
                again = self._remote.fetch_run(start + place, 1)[0]
                self._remote.check(start + place, again)
                fetched[place] = again
        return fetched

    def _find(self, block: int, found: dict[int, Any]) -> bool:
        if block not in found:
            hit = self._look(block)
            if hit is None:
                return False
            found[block] = hit
        return True

    def _look(self, block: int) -> memoryview | None:
        found = self._cache.look(self._key(block), self._remote.cached_bytes(block))
        if found is None and self._whole is not None:
            found = self._cache.look(f"{self._prefix}/{self._whole.cache_key(block)}", self._whole.cached_bytes(block))
        return found

    def _key(self, block: int) -> str:
        return f"{self._prefix}/{self._remote.cache_key(block)}"


@final
class _Mending:
    """A cached block whose damage may be the cache's: a column that is not right is looked for once more at the source."""

    __slots__ = ("_block", "_cached", "_number", "first_row", "rows")

    def __init__(self, cached: CachedSource, number: int, block: Block) -> None:
        self._cached, self._number, self._block = cached, number, block
        self.rows, self.first_row = block.rows, block.first_row

    def column(self, index: int) -> Any:
        """Return column number `index`."""
        try:
            return self._block.column(index)
        except CorruptDataError:
            self._block = self._cached.open_again(self._number)
            return self._block.column(index)


def url_digest(url: str) -> str:
    """Return the name of a dataset's folder in the cache.

    Example:
        >>> len(url_digest("s3://bucket/train"))
        32
    """
    return hashlib.blake2b(url.rstrip("/").encode(), digest_size=16).hexdigest()


def runs(blocks: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as runs (first, count).

    Example:
        >>> runs([1, 2, 3, 7, 8])
        [(1, 3), (7, 2)]
    """
    found: list[tuple[int, int]] = []
    for block in blocks:
        if found and sum(found[-1]) == block:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((block, 1))
    return found
