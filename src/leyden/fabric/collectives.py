"""Collectives over nested collections, with one meaning on every backend.

Tensors anywhere in dictionaries, lists, tuples and named tuples take part; numbers become tensors; the nesting is kept. Nothing
here holds state: the group is an argument, and so is the `StallWatch` that names missing ranks.

What gloo lacks is made up for here: dtypes it cannot send travel as bytes, those it cannot add in a wider type, and the mean is
a sum that is divided. torch 2.13 renames `all_gather_into_tensor` to `all_gather_single`: `_gather_flat` is the one place that
knows.
"""

import base64
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ReduceOp

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError, RemoteError, StateError, closest, listed
from leyden.fabric.launch.stall import StallWatch
from leyden.fabric.launch.store import KeyValueStore, own_client, wait_for_ever
from leyden.fabric.trees import leaves, map_leaves

REDUCE_OPS = {
    "mean": ReduceOp.AVG,
    "avg": ReduceOp.AVG,
    "sum": ReduceOp.SUM,
    "min": ReduceOp.MIN,
    "max": ReduceOp.MAX,
    "product": ReduceOp.PRODUCT,
}
BUFFER_BYTES = 1 << 26  # as large as a bandwidth needs, and small beside a unit of weights
_NARROW = {torch.bool: torch.int32, torch.int16: torch.int32}  # what gloo cannot add, and in which type it can
_gather_flat = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def all_gather(
    data: Any,
    group: Any = None,
    *,
    sync_grads: bool = False,
    device: torch.device | None = None,
    watch: StallWatch | None = None,
) -> Any:
    """Return `data` with every tensor of shape `(...)` replaced by one of shape `(world_size, ...)`; the same for one rank.

    Args:
        data: A tensor, a number, or a collection of them; shapes must agree on all ranks.
        group: The process group; `None` is all ranks.
        sync_grads: Whether gradients flow back to the rank that each slice came from.
        device: Where numbers become tensors.
        watch: Names missing ranks.

    Raises:
        StateError: A rank did not come in time, or (`LEYDEN_FABRIC_CHECK_COLLECTIVES=1`) called something else.
    """
    if _size(group) == 1:
        return data
    data = _tensors(data, device)
    gather: Callable[[Tensor, Any], Any] = _Gather.apply if sync_grads else _gather
    with _entering("all_gather", group, watch, data):
        return map_leaves(data, lambda leaf: gather(leaf, group) if isinstance(leaf, Tensor) else leaf)


def all_reduce(
    data: Any,
    group: Any = None,
    reduce_op: Any = "mean",
    *,
    device: torch.device | None = None,
    watch: StallWatch | None = None,
) -> Any:
    """Reduce every tensor of `data` over the ranks, in place, and return `data`.

    The mean of integers is a new float tensor, with one warning; so is what numbers become.

    Args:
        data: A tensor, a number, or a collection of them.
        group: The process group; `None` is all ranks.
        reduce_op: `"mean"`, `"avg"`, `"sum"`, `"min"`, `"max"`, `"product"`, or a `torch.distributed.ReduceOp`.
        device: Where numbers become tensors.
        watch: Names missing ranks.

    Raises:
        ConfigError: An unknown reduction.
        StateError: As in `all_gather`.
    """
    operation = _operation(reduce_op)
    data = _tensors(data, device)
    with _entering("all_reduce", group, watch, data, str(reduce_op)):
        return map_leaves(data, lambda leaf: _reduce(leaf, operation, group) if isinstance(leaf, Tensor) else leaf)


def of_one(data: Any, reduce_op: Any = None, *, device: torch.device | None = None) -> Any:
    """Return what a gather (without `reduce_op`) or a reduction over one rank gives, whatever process groups exist.

    Raises:
        ConfigError: An unknown reduction, as on several ranks.
    """
    data = _tensors(data, device)
    if reduce_op is None:
        return data
    operation = _operation(reduce_op)
    return map_leaves(data, lambda leaf: _reducible(leaf, operation) if isinstance(leaf, Tensor) else leaf)


def broadcast(obj: Any, src: int = 0, *, group: Any = None, device: torch.device | None = None, watch: StallWatch | None = None) -> Any:
    """Return rank `src`'s object on every rank: tensors as they are, the rest by pickle (between our own ranks only).

    Args:
        obj: Anything; what ranks other than `src` pass does not matter.
        src: The global rank that has it.
        group: The process group; `None` is all ranks.
        device: Where this rank wants tensors that lie on an accelerator at `src`.
        watch: Names missing ranks.
    """
    if _size(group) == 1:
        return obj
    is_source = dist.get_rank() == src
    with _entering("broadcast", group, watch, None, f"src={src}"):
        told: list[Any] = [None]
        tensors: list[Tensor] = []
        if is_source:
            tree, tensors = _without_tensors(obj)
            told = [(tree, [_Slot.of(tensor) for tensor in tensors])]
        dist.broadcast_object_list(told, src=src, group=group, device=_object_device(group, device))
        if is_source:
            broadcast_into([tensor.detach().contiguous() for tensor in tensors], src, group=group)
            return obj
        tree, slots = told[0]
        received = [torch.empty(slot.shape, dtype=slot.dtype, device="cpu" if slot.on_cpu else device) for slot in slots]
        broadcast_into(received, src, group=group)
        return map_leaves(tree, lambda leaf: received[leaf.index] if isinstance(leaf, _Place) else leaf)


def broadcast_into(tensors: Iterable[Tensor], src: int = 0, *, group: Any = None, buffer_bytes: int = BUFFER_BYTES) -> None:
    """Fill contiguous tensors, of which every rank has the same shapes in the same order, with rank `src`'s values.

    They travel as bytes, since gloo knows few dtypes, and small ones together: a model has hundreds of them, and each
    collective costs a round trip.

    Args:
        tensors: What to fill.
        src: The global rank that has the values.
        group: The process group; `None` is all ranks.
        buffer_bytes: How much is copied together at most; a tensor that is longer travels alone and is not copied.
    """
    parts = [tensor.view(-1).view(torch.uint8) for tensor in tensors if tensor.numel()]
    is_source = dist.get_rank() == src
    for together in _packed_bytes(parts, buffer_bytes):
        if len(together) == 1:
            dist.broadcast(together[0], src=src, group=group)
            continue
        lengths = [part.numel() for part in together]
        buffer = torch.cat(together) if is_source else torch.empty(sum(lengths), dtype=torch.uint8, device=together[0].device)
        dist.broadcast(buffer, src=src, group=group)
        if not is_source:
            for part, piece in zip(together, buffer.split(lengths), strict=True):
                part.copy_(piece)


def _packed_bytes(parts: list[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Yield the parts in runs that lie on one kind of device and hold at most `limit` bytes, or one part each."""
    run: list[Tensor] = []
    size = 0
    for part in parts:
        if run and (size + part.numel() > limit or part.device.type != run[0].device.type):
            yield run
            run, size = [part], part.numel()
        else:
            run.append(part)
            size += part.numel()
    if run:
        yield run


def barrier(name: str | None = None, *, group: Any = None, watch: StallWatch | None = None, device: torch.device | None = None) -> None:
    """Wait for all ranks.

    Args:
        name: Appears in the report about missing ranks.
        group: The process group; `None` is all ranks.
        watch: Names missing ranks.
        device: This rank's device, which NCCL wants to know.

    Raises:
        StateError: A rank did not come in time.
    """
    if _size(group) == 1:
        return
    with _entering(f"barrier {name!r}" if name else "barrier", group, watch, None):
        index = device.index if device is not None and device.type == "cuda" else None
        dist.barrier(group=group, device_ids=None if index is None else [index])


@contextmanager
def rank_zero_first(
    store: KeyValueStore,
    *,
    rank: int,
    world_size: int,
    local: bool = False,
    local_rank: int | None = None,
    node_rank: int = 0,
    num_local: int | None = None,
) -> Iterator[None]:
    """Let (local) rank 0 run the block before the others; they wait for it without a time-out.

    Args:
        store: The run's store.
        rank: This process's rank.
        world_size: How many ranks there are.
        local: Whether rank 0 of each node goes first, instead of rank 0 of all.
        local_rank: This process's rank on its node.
        node_rank: The number of this node.
        num_local: How many ranks this node has; `None`: all of them.

    Raises:
        Exception: On the others, whatever the block raised on rank 0.
    """
    is_first = (local_rank if local and local_rank is not None else rank) == 0
    if world_size == 1:
        yield
        return
    scope = f"first/{node_rank}" if local else "first"
    turn = store.add(f"{scope}/turn/{rank}", 1)  # all ranks count alike, so the n-th block meets the n-th
    key = f"{scope}/{turn}"
    if not is_first:
        answer = wait_for_ever(own_client(store), key)
        num_waiting = ((num_local or world_size) if local else world_size) - 1
        if store.add(f"{key}/heard", 1) == num_waiting:  # nobody asks again: a long run would fill the store
            store.delete_key(key)
            store.delete_key(f"{key}/heard")
        if answer != b"ok":
            _raise_remote(answer)
        yield
        return
    try:
        yield
    except BaseException as error:
        store.set(key, _packed(error))
        raise
    store.set(key, "ok")


# -- what the operations are made of -------------------------------------------------------------------------------


def _size(group: Any) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _tensors(data: Any, device: torch.device | None) -> Any:
    def convert(leaf: Any) -> Any:
        return torch.tensor(leaf, device=device) if isinstance(leaf, (bool, int, float, complex)) else leaf

    return map_leaves(data, convert)


def _gather(tensor: Tensor, group: Any) -> Tensor:
    world_size = _size(group)
    tensor = tensor.detach().contiguous()
    result = torch.empty((world_size, *tensor.shape), dtype=tensor.dtype, device=tensor.device)
    if tensor.numel():
        _gather_flat(result.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8), group=group)
    return result


class _Gather(torch.autograd.Function):
    """`all_gather` whose gradient is the sum over ranks of the gradients of this rank's slice."""

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        ctx, tensor, group = args
        ctx.group = group
        return _gather(tensor, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[dist.get_rank(ctx.group)], None


def _operation(reduce_op: Any) -> Any:
    if isinstance(reduce_op, str):
        if reduce_op.lower() not in REDUCE_OPS:
            raise ConfigError(f"reduce_op={reduce_op!r} is not accepted: it takes {listed(REDUCE_OPS)}.{closest(reduce_op, REDUCE_OPS)}")
        return REDUCE_OPS[reduce_op.lower()]
    if isinstance(reduce_op, (ReduceOp, ReduceOp.RedOpType)):
        return reduce_op
    raise ConfigTypeError(
        f"reduce_op={reduce_op!r} is of type {type(reduce_op).__name__}; it takes one of {listed(REDUCE_OPS)} or a ReduceOp."
    )


def _reducible(tensor: Tensor, operation: Any) -> Tensor:
    """Return the tensor, in another dtype where the result would not fit into its own."""
    if operation == ReduceOp.AVG and not (tensor.is_floating_point() or tensor.is_complex()):
        warnings.warn(
            f"The mean of {tensor.dtype} over ranks is returned as a new {torch.get_default_dtype()} tensor; "
            'the tensor itself is unchanged. Pass a float tensor, or reduce_op="sum".',
            stacklevel=2,
        )
        return tensor.to(torch.get_default_dtype())
    if operation == ReduceOp.SUM and tensor.dtype is torch.bool:
        return tensor.to(torch.int64)  # how many ranks said yes: no bool can hold that
    return tensor


def _reduce(tensor: Tensor, operation: Any, group: Any) -> Tensor:
    is_mean = operation == ReduceOp.AVG
    tensor = _reducible(tensor, operation)
    if _size(group) == 1:
        return tensor
    target = tensor.detach()  # shares memory; autograd need not know
    wide = _wide_type(target)
    work = target.to(wide) if wide is not None else target.contiguous()
    by_backend = is_mean and tensor.device.type == "cuda"
    dist.all_reduce(work, op=operation if by_backend or not is_mean else ReduceOp.SUM, group=group)
    if is_mean and not by_backend:
        work.div_(_size(group))
    if work.data_ptr() != target.data_ptr():
        target.copy_(work)
    return tensor


def _wide_type(tensor: Tensor) -> torch.dtype | None:
    """Return the dtype to reduce in, where the tensor's own will not do."""
    if tensor.dtype in _NARROW:
        return _NARROW[tensor.dtype]
    return torch.float32 if tensor.is_floating_point() and tensor.element_size() == 1 else None


class _Place:
    """Where a tensor belongs in a broadcast tree; a leaf, so no tuple."""

    def __init__(self, index: int) -> None:
        self.index = index


class _Slot(NamedTuple):
    """What a receiver must know of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    on_cpu: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "_Slot":
        return cls(tuple(tensor.shape), tensor.dtype, tensor.device.type == "cpu")


def _without_tensors(obj: Any) -> tuple[Any, list[Tensor]]:
    tensors: list[Tensor] = []

    def take(leaf: Any) -> Any:
        if type(leaf) is Tensor and leaf.layout is torch.strided:  # subclasses know how to pickle themselves
            tensors.append(leaf)
            return _Place(len(tensors) - 1)
        return leaf

    return map_leaves(obj, take), tensors


def _object_device(group: Any, device: torch.device | None) -> torch.device | None:
    """Return where pickles travel: on the CPU unless the group has no backend for it."""
    return None if "cpu:" in str(dist.get_backend_config(group)) else device


def _packed(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        body = pickle.dumps(error)
        pickle.loads(body)  # noqa: S301 - our own: some exceptions pickle, but do not come back
    except Exception:  # noqa: BLE001 - an error that cannot travel is told as text
        body = pickle.dumps(RemoteError(f"rank 0 failed: {type(error).__name__}: {error}", text))
    return base64.b64encode(pickle.dumps((body, text))).decode()


def _raise_remote(answer: bytes) -> None:
    body, text = pickle.loads(base64.b64decode(answer))  # noqa: S301 - between our own ranks
    error = cast("BaseException", pickle.loads(body))  # noqa: S301 - between our own ranks
    raise error from RemoteError("rank 0 failed in rank_zero_first", text)


# -- watching and checking -----------------------------------------------------------------------------------------


@contextmanager
def _entering(name: str, group: Any, watch: StallWatch | None, data: Any, detail: str = "") -> Iterator[None]:
    with _watching(name, group, watch):
        if settings.get("LEYDEN_FABRIC_CHECK_COLLECTIVES", settings.environment()) and _size(group) > 1:
            _check_same(name, group, data, detail)
        yield


def _watching(name: str, group: Any, watch: StallWatch | None) -> AbstractContextManager[None]:
    if watch is None:
        return nullcontext()
    return watch.entered(name, None if group is None else tuple(dist.get_process_group_ranks(group)))


def _check_same(name: str, group: Any, data: Any, detail: str) -> None:
    """Compare what the ranks are about to do; this is a collective itself, so any two that differ meet here.

    Raises:
        StateError: On every rank.
    """
    parts = [f"{tuple(leaf.shape)} {leaf.dtype}" for leaf in leaves(data) if isinstance(leaf, Tensor)]
    mine = " ".join([name, detail, *parts]).replace("torch.", "")
    all_of_them: list[Any] = [None] * _size(group)
    dist.all_gather_object(all_of_them, mine, group=group)
    if len(set(all_of_them)) > 1:
        told = "\n".join(f"  rank {rank}: {text}" for rank, text in zip(dist.get_process_group_ranks(group), all_of_them, strict=True))
        raise StateError(f"the ranks are about to do different things:\n{told}\nEvery rank must make the same calls with the same shapes.")
