"""Set up a user's loader: share its data out over ranks, seed its workers, give it a place that can be kept.

The loader is copied shallowly and a few entries of the copy's `__dict__` are replaced; it is not built again, so
subclasses, collate functions and attributes stay as they are, and the user's own object is left alone.
"""

import copy
import warnings
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed
from leyden.fabric import rng
from leyden.fabric.loading.cursor import Cursor, Kind
from leyden.fabric.loading.delivery import FabricDataLoader
from leyden.fabric.loading.patience import begin_worker
from leyden.fabric.loading.sharding import MODES, Mode, Placement, Share, needs_seed, shared, unshared
from leyden.fabric.loading.workers import SeededDataset, TrackedSampler
from leyden.fabric.rank_zero import rank_zero_warn


class Places(Protocol):
    """What `prepare_loader` asks of a strategy."""

    @property
    def root_device(self) -> torch.device:
        """This process's device."""

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """`num_replicas` and `rank`, of data-parallel ranks."""

    def batch_to_device(self, batch: Any, device: torch.device | None = None) -> Any:
        """Move a batch."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return rank `src`'s object."""

    def all_gather(self, tensor: Any) -> Any:
        """Return every rank's tensor, stacked."""


def prepare_loader(
    loader: Any,
    *,
    strategy: Places,
    mode: Mode = "train",
    use_distributed_sampler: bool = True,
    move_to_device: bool = True,
    seed_workers: bool = True,
) -> FabricDataLoader:
    """Return the loader as this process iterates it. Every rank calls this, for the same loaders in the same order.

    Args:
        loader: A `DataLoader`, or any iterable with `state_dict` and `load_state_dict`. It is not changed.
        strategy: Where this process stands.
        mode: `train`, `eval`, or `predict`, where no sample is repeated or dropped to give all ranks the same number.
        use_distributed_sampler: Whether to share the data out over ranks.
        move_to_device: Whether to move batches to the process's device.
        seed_workers: Whether to seed workers from each batch's position, so that augmentation resumes exactly.

    Raises:
        ConfigTypeError: Not a loader, or one whose sampler cannot be shared out.
        ConfigError: It was set up before, or `mode` is unknown.
    """
    device = strategy.root_device
    placement = Placement(
        rank=strategy.distributed_sampler_kwargs["rank"],
        num_replicas=strategy.distributed_sampler_kwargs["num_replicas"],
        device=device if move_to_device else None,
        move=strategy.batch_to_device if move_to_device else None,
        broadcast=strategy.broadcast,
    )
    result = wrap_loader(loader, placement, mode=mode, use_distributed_sampler=use_distributed_sampler, seed_workers=seed_workers)
    _warn_about_lengths(loader, result, strategy)
    return result


def wrap_loader(
    loader: Any, placement: Placement, *, mode: Mode = "train", use_distributed_sampler: bool = True, seed_workers: bool = True
) -> FabricDataLoader:
    """Do what `prepare_loader` does, for a placement instead of a strategy.

    Raises:
        ConfigTypeError: As `prepare_loader`.
        ConfigError: As `prepare_loader`.
    """
    if isinstance(loader, FabricDataLoader):
        raise ConfigError(
            "A dataloader should be passed only once to the `setup_dataloaders` method, but this one has been set up already. "
            "Use what the first call returned."
        )
    if mode not in MODES:
        raise ConfigError(f"mode={mode!r}; accepted are {listed(MODES)}.{closest(str(mode), MODES)}")
    if _is_stateful(loader):
        if use_distributed_sampler:
            _offer_placement(loader, placement)
        return FabricDataLoader(loader, _cursor(loader, "stateful", placement), placement, stateful=loader)
    if not isinstance(loader, DataLoader):
        raise ConfigTypeError(
            f"Only PyTorch DataLoader are currently supported in `setup_dataloaders`, and iterables with state_dict() and "
            f"load_state_dict(); this is of type {type(loader).__name__}. Pass DataLoader(dataset, ...)."
        )
    if isinstance(loader.dataset, IterableDataset):
        return _wrap_iterable(loader, placement, use_distributed_sampler=use_distributed_sampler, seed_workers=seed_workers)
    return _wrap_map(loader, placement, mode=mode, use_distributed_sampler=use_distributed_sampler, seed_workers=seed_workers)


def _wrap_iterable(loader: DataLoader[Any], placement: Placement, *, use_distributed_sampler: bool, seed_workers: bool) -> FabricDataLoader:
    if use_distributed_sampler:
        _offer_placement(loader, placement)
    # With workers the dataset that is read is a copy in another process, and its state is out of reach.
    stateful = loader.dataset if loader.num_workers == 0 and _is_stateful(loader.dataset) else None
    shown: dict[str, Any] = {}
    changed: dict[str, Any] = {"_iterator": None}
    _initialise_workers(loader, placement, changed, shown, is_seeding=seed_workers)
    cursor = _cursor(loader, "iterable" if stateful is None else "stateful", placement)
    return FabricDataLoader(_changed_copy(loader, changed), cursor, placement, shown=shown, stateful=stateful)


def _wrap_map(
    loader: DataLoader[Any], placement: Placement, *, mode: Mode, use_distributed_sampler: bool, seed_workers: bool
) -> FabricDataLoader:
    positioned = seed_workers and loader.num_workers > 0 and not isinstance(loader.dataset, (IterDataPipe, MapDataPipe))
    replicas = placement.num_replicas
    seed: int | None = None
    if positioned or (use_distributed_sampler and needs_seed(loader, replicas)):
        seed = _seed(placement)
    if use_distributed_sampler:
        drawn = shared(loader, Share(rank=placement.rank, num_replicas=replicas, mode=mode, seed=seed or 0))
        if drawn.injected is None:
            _offer_placement(loader, placement)
    else:
        drawn = unshared(loader)
    _warn_about_order(loader)
    tracked = TrackedSampler(drawn.index_sampler, positioned=positioned, rank=placement.rank)
    batched = loader.batch_sampler is not None
    changed: dict[str, Any] = {"_iterator": None, "sampler": drawn.sampler, "batch_sampler" if batched else "sampler": tracked}
    shown: dict[str, Any] = {"sampler": drawn.sampler}
    if replicas == 1:
        shown["sampler"] = loader.sampler
    if batched:
        shown["batch_sampler"] = loader.batch_sampler if replicas == 1 else drawn.index_sampler
    if positioned:
        changed["dataset"], shown["dataset"] = SeededDataset(loader.dataset), loader.dataset
    _initialise_workers(loader, placement, changed, shown, is_seeding=seed_workers)
    cursor = _cursor(loader, "replay" if drawn.epoch_sampler is None else "map", placement)
    cursor.length = _length(loader.dataset)
    cursor.seed = seed if drawn.epoch_sampler is None else drawn.epoch_sampler.seed
    return FabricDataLoader(_changed_copy(loader, changed), cursor, placement, tracked=tracked, injected=drawn.injected, shown=shown)


def _changed_copy(loader: DataLoader[Any], changed: dict[str, Any]) -> DataLoader[Any]:
    result = copy.copy(loader)
    vars(result).update(changed)  # past DataLoader.__setattr__, which refuses these names on purpose
    return result


def _initialise_workers(
    loader: DataLoader[Any], placement: Placement, changed: dict[str, Any], shown: dict[str, Any], *, is_seeding: bool
) -> None:
    if loader.num_workers == 0:
        return
    own: Any = loader.worker_init_fn
    if own is None and is_seeding:
        own = partial(rng.pl_worker_init_function, rank=placement.rank)
    changed["worker_init_fn"] = partial(begin_worker, initialise=own)
    shown["worker_init_fn"] = loader.worker_init_fn


def _seed(placement: Placement) -> int:
    """Return the run's seed; without one, a number drawn here, the same on all ranks."""
    seed = rng.run_seed()
    if seed is None:
        seed = int(placement.broadcast(int(torch.randint(2**31, ()).item())))
    return seed


def _cursor(loader: Any, kind: Kind, placement: Placement) -> Cursor:
    size = getattr(loader, "batch_size", None)
    if size is None:
        batch_sampler = getattr(loader, "batch_sampler", None)
        size = getattr(getattr(loader, "sampler", None) if batch_sampler is None else batch_sampler, "batch_size", None)
    global_batch = size * placement.num_replicas if isinstance(size, int) else None
    return Cursor(kind=kind, global_batch=global_batch, world_size=placement.num_replicas)


def _is_stateful(value: Any) -> bool:
    return hasattr(value, "__iter__") and all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))


def _offer_placement(loader: Any, placement: Placement) -> None:
    """Tell a loader, or else its dataset, which share to read, if it wants to know."""
    for part in (loader, getattr(loader, "dataset", None)):
        set_placement = getattr(part, "set_placement", None)
        if callable(set_placement):
            set_placement(placement.rank, placement.num_replicas)
            return


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return None


def _warn_about_order(loader: DataLoader[Any]) -> None:
    if loader.num_workers > 0 and not getattr(loader, "in_order", True):
        warnings.warn(
            "in_order=False delivers batches in an order that is not known beforehand, so a run resumed inside an epoch may see "
            "some samples twice and others not at all. Drop it where that matters.",
            stacklevel=4,
        )


def _warn_about_lengths(loader: Any, result: FabricDataLoader, strategy: Places) -> None:
    """Warn where ranks would run out of data at different times, or have none."""
    # The user's own object is asked where it was left as it is: DataLoader remembers that an IterableDataset was measured.
    length = _length(result if result.is_shared else loader)
    lengths = [-1 if length is None else length]
    if not result.is_shared and strategy.distributed_sampler_kwargs["num_replicas"] > 1:
        lengths = strategy.all_gather(torch.tensor(lengths[0], device=strategy.root_device)).flatten().tolist()
    if 0 in lengths:
        rank_zero_warn(f"A loader has no batches: {_per_rank(lengths)}. A loop over it ends at once.", stacklevel=6)
    elif len(set(lengths)) > 1:
        rank_zero_warn(
            f"Loaders differ in length over ranks: {_per_rank(lengths)}. The ranks that run out first leave the others waiting in "
            "their next collective. Give every rank the same number of batches.",
            stacklevel=6,
        )


def _per_rank(lengths: list[int]) -> str:
    return ", ".join(f"rank {rank}: {'unknown' if length < 0 else length}" for rank, length in enumerate(lengths))
