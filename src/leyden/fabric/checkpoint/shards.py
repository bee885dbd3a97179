"""Tensors of a sharded directory: torch's checkpoint planner decides who writes which box, we write safetensors and JSON.

The planner knows `DTensor`, HSDP copies and strided TP + FSDP shards; it removes duplicates and spreads replicated tensors
over the ranks by size. Its own storage pickles, so `ShardWriter` replaces it: each rank writes one
`shards/shard-<rank>.safetensors`, the coordinator `index.json`. Values that are no tensors never enter it (they would be
pickled); they are in `train.pt`. It also works as `storage_writer=` of `torch.distributed.checkpoint.save`.

Reading needs no plan: `saved.fill` asks each tensor for its box and copies that (see there).

This module imports `torch.distributed.checkpoint`, so it is imported when the first sharded checkpoint is written.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from leyden.fabric.checkpoint.directory import write_json
from leyden.fabric.checkpoint.layout import INDEX, SHARDS, Chunk, FileRecord, IndexedTensor, TensorIndex, shard_name
from leyden.fabric.checkpoint.peers import Peers
from leyden.fabric.checkpoint.saved import is_dtensor
from leyden.fabric.checkpoint.tensor_file import write_tensors


class ShardWriter(StorageWriter):
    """Writes this rank's boxes to one safetensors file, and the index on the coordinator.

    Args:
        directory: The checkpoint directory; it exists.
        rank: Names the file.
        aliases: Tied names → the name that is stored.
    """

    def __init__(self, directory: str | os.PathLike[str], rank: int = 0, aliases: Mapping[str, str] | None = None) -> None:
        self.directory = Path(directory)
        self.rank = rank
        self.aliases = dict(aliases or {})
        self.files: dict[str, FileRecord] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Start a new checkpoint, in another directory if one is given."""
        self.directory = Path(checkpoint_id) if checkpoint_id is not None else self.directory
        self.files = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001 - torch's signature
        """Take the rank torch tells, if it tells one."""
        self.rank = kwargs.get("rank", self.rank)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Return the plans as they are."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's boxes."""
        boxes: dict[str, Tensor] = {}
        results: list[WriteResult] = []
        for item in plan.items:
            data = planner.resolve_data(item)
            if not isinstance(data, Tensor) or not data.numel():
                continue  # a rank whose part of an uneven tensor is empty
            key = f"{item.index.fqn}@{','.join(map(str, item.index.offset or ()))}"
            boxes[key] = data.detach()
            results.append(WriteResult(item.index, data.numel() * data.element_size(), (shard_name(self.rank), key)))
        if boxes:
            (self.directory / SHARDS).mkdir(exist_ok=True)
            name = shard_name(self.rank)
            metadata = {"aliases": json.dumps(self.aliases)} if self.aliases else None
            self.files[name] = write_tensors(self.directory / name, boxes, metadata)
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index of what all ranks wrote."""
        places: dict[MetadataIndex, tuple[str, str]] = {result.index: result.storage_data for each in results for result in each}
        tensors = {
            name: _indexed(name, entry, places)
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        self.files[INDEX] = write_json(
            self.directory / INDEX, TensorIndex(tensors=tensors, aliases=self.aliases).to_dict(), is_for_people=False
        )

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return whether this is a local path."""
        return "://" not in os.fspath(checkpoint_id)


class ShardPlan:
    """Who writes what, planned from live tensors; the data may be replaced by copies before it is written.

    Args:
        tensors: Name → `DTensor` or plain (replicated) tensor: the same names on every rank.
        is_coordinator: Whether this is rank 0.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, is_coordinator: bool) -> None:
        self.data = {name: _local(tensor) for name, tensor in tensors.items()}
        self._planner = _Planner(self.data)
        self._planner.set_up_planner(dict(tensors), None, is_coordinator)
        self._local_plan = self._planner.create_local_plan()

    def write(self, directory: Path, together: "Together", peers: Peers, aliases: Mapping[str, str]) -> dict[str, FileRecord]:
        """Write the shards and the index; every rank calls it. Returns this rank's path → record.

        Args:
            directory: The checkpoint directory; it exists.
            together: Runs a step on all ranks, which raise together.
            peers: The ranks.
            aliases: Tied names → the name that is stored.
        """
        writer = ShardWriter(directory, peers.rank, aliases)
        gathered = peers.gather(self._local_plan)
        decided = together("plan the save", lambda: self._planner.create_global_plan(gathered), on_rank_zero=True)
        plan = self._planner.finish_plan(peers.scatter(decided[0] if decided else None))
        results = together("write its shard", lambda: writer.write_data(plan, self._planner).value())
        everyone = peers.gather(results)
        together("write the index", lambda: writer.finish(decided[1], everyone), on_rank_zero=True)
        return writer.files


class Together(Protocol):
    """Runs a step on all ranks, or on rank 0 while the others wait."""

    def __call__(self, step: str, function: Callable[[], Any], *, on_rank_zero: bool = False) -> Any:
        """Return the function's value, or `None` where it did not run."""


class _Planner(DefaultSavePlanner):
    """Torch's planner, handing out data that is kept apart from the tensors it planned with."""

    def __init__(self, data: Mapping[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._data = data

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._data[index.fqn]


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if is_dtensor(tensor) else tensor
    return local.detach()


def _indexed(name: str, entry: TensorStorageMetadata, places: Mapping[MetadataIndex, tuple[str, str]]) -> IndexedTensor:
    chunks = []
    for chunk in entry.chunks:
        place = places.get(MetadataIndex(name, chunk.offsets))
        if place is not None:
            chunks.append(Chunk(offset=tuple(chunk.offsets), size=tuple(chunk.sizes), file=place[0], key=place[1]))
    return IndexedTensor(dtype=entry.properties.dtype, shape=tuple(entry.size), chunks=tuple(chunks))
