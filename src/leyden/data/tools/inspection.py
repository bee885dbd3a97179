"""`Inspection`: what is known of a dataset after looking at its index and some blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyden.data.tools.facts import LeafFacts, size


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` found.

    Args:
        url: The place.
        format: `"leyden"`, `"litdata"`, `"mds"`, `"parquet"` or `"tar"`.
        version: The version that was looked at.
        digest: What equal datasets share.
        num_rows: Rows.
        num_chunks: Files.
        num_blocks: Blocks.
        stored_bytes: Bytes of all blocks.
        tree: The samples' tree, as a schema keeps it.
        leaves: What is known of each leaf.
        first: The first rows, a text for each leaf.
    """

    url: str
    format: str
    version: int
    digest: str
    num_rows: int
    num_chunks: int
    num_blocks: int
    stored_bytes: int
    tree: Mapping[str, Any]
    leaves: Sequence[LeafFacts]
    first: Sequence[Mapping[str, str]]

    @property
    def ratio(self) -> float:
        """Bytes before compression for each stored byte, estimated from the blocks that were looked at."""
        per_row = sum(facts.raw_bytes / max(facts.rows, 1) for facts in self.leaves)
        return per_row * self.num_rows / max(self.stored_bytes, 1)

    def lines(self) -> Iterator[str]:
        """Yield what a person reads in a terminal."""
        facts = f"{self.num_rows:,} rows in {self.num_chunks:,} file(s) and {self.num_blocks:,} block(s), {size(self.stored_bytes)}"
        yield f"{self.url}: {self.format}, version {self.version}, {facts}, {self.ratio:.2f} bytes in each stored one"
        width = max((len(facts.leaf.name) for facts in self.leaves), default=0)
        for each in self.leaves:
            yield f"  {each.leaf.name or 'sample':<{width}}  {each.line()}"
        for number, row in enumerate(self.first):
            yield f"row {number}: " + ", ".join(f"{name or 'sample'}={value[:40]!r}" for name, value in row.items())

    def to_json(self) -> dict[str, Any]:
        """Return everything but pictures as JSON values."""
        names = ("url", "format", "version", "digest", "num_rows", "num_chunks", "num_blocks", "stored_bytes")
        facts = {name: getattr(self, name) for name in names}
        return {**facts, "ratio": round(self.ratio, 3), "leaves": [leaf.to_json() for leaf in self.leaves], "first": list(self.first)}
