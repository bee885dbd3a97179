"""Collectives over trees on two real gloo ranks: values, dtypes, nesting, and what happens when ranks disagree."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
import torch
from torch import distributed as dist
from torch.distributed import ReduceOp

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.fabric import collectives
from leyden.fabric.launch.stall import StallWatch
from leyden.fabric.launch.store import MemoryStore
from tests.support.ranks import run_ranks

_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
]


class Pair(NamedTuple):
    first: Any
    second: Any


class StrangeError(Exception):
    """Does not come back from a pickle: its argument is lost."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


@contextmanager
def _raises(kind: type[BaseException], text: str) -> Iterator[None]:
    with pytest.raises(kind, match=text):
        yield


# -- one rank ------------------------------------------------------------------------------------------------------


def test_one_rank_gathers_and_broadcasts_the_same_object() -> None:
    data = {"x": torch.ones(2)}

    assert collectives.all_gather(data) is data
    assert collectives.broadcast(data) is data
    assert collectives.barrier() is None


def test_one_rank_reduces_to_itself() -> None:
    tensor = torch.ones(2)

    assert collectives.all_reduce(tensor) is tensor
    assert collectives.all_reduce(3, reduce_op="sum").item() == 3


def test_an_unknown_reduction_is_refused_with_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"reduce_op='meen' is not accepted.*Did you mean 'mean'\?"):
        collectives.all_reduce(torch.ones(1), reduce_op="meen")
    with pytest.raises(ConfigTypeError, match="is of type int"):
        collectives.all_reduce(torch.ones(1), reduce_op=3)


def test_the_mean_of_integers_is_float_with_one_warning() -> None:
    with pytest.warns(UserWarning, match=r"mean of torch\.int64.*new torch\.float32 tensor") as caught:
        result = collectives.all_reduce({"a": torch.tensor([3])})

    assert result["a"].dtype is torch.float32
    assert len(caught) == 1


# -- two ranks -----------------------------------------------------------------------------------------------------


def _gather_everything() -> None:
    rank = dist.get_rank()
    for dtype in _DTYPES:
        for shape in ((), (3,), (2, 2), (0, 2)):
            mine = torch.full(shape, rank, dtype=torch.float32).to(dtype)
            gathered = collectives.all_gather(mine)
            assert gathered.shape == (2, *shape)
            assert gathered.dtype is dtype
            assert torch.equal(gathered.to(torch.float32), torch.stack([torch.full(shape, 0.0), torch.full(shape, 1.0)])), dtype
    tree = collectives.all_gather({"pair": Pair(torch.tensor(rank), [rank, 0.5]), "name": "x", "none": None})
    assert isinstance(tree["pair"], Pair)
    assert tree["pair"].first.tolist() == [0, 1]
    assert tree["pair"].second[0].tolist() == [0, 1]
    assert tree["pair"].second[1].tolist() == [0.5, 0.5]
    assert (tree["name"], tree["none"]) == ("x", None)
    transposed = torch.arange(6.0).reshape(2, 3).t() + rank
    assert torch.equal(collectives.all_gather(transposed)[1], torch.arange(6.0).reshape(2, 3).t() + 1)


def test_every_dtype_and_nesting_is_gathered() -> None:
    run_ranks(_gather_everything, 2)


def _gather_with_gradients() -> list[float]:
    rank = dist.get_rank()
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    gathered = collectives.all_gather(tensor, sync_grads=True)
    (gathered * torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (rank + 1)).sum().backward()
    assert collectives.all_gather(tensor).requires_grad is False
    assert tensor.grad is not None
    return tensor.grad.tolist()


def test_gradients_flow_back_to_the_rank_a_slice_came_from() -> None:
    assert run_ranks(_gather_with_gradients, 2) == [[3.0, 6.0], [9.0, 12.0]]


def _reduce_everything() -> None:
    rank = dist.get_rank()
    for dtype in _DTYPES:
        for shape in ((), (3,), (2, 2)):
            mine = torch.full(shape, rank + 1.0).to(dtype)
            total = collectives.all_reduce(mine, reduce_op="sum")
            expected = 2.0 if dtype is torch.bool else 3.0
            assert torch.equal(total.to(torch.float32), torch.full(shape, expected)), dtype
            assert dtype is torch.bool or total is mine
            if not dtype.is_complex:
                mine = torch.full(shape, float(rank)).to(dtype)
                assert collectives.all_reduce(mine, reduce_op="max") is mine
                assert torch.equal(mine.to(torch.float32), torch.ones(shape)), dtype
    for name, expected in {"mean": 1.5, "avg": 1.5, "SUM": 3.0, "min": 1.0, "max": 2.0, "product": 2.0}.items():
        assert collectives.all_reduce(torch.tensor(rank + 1.0), reduce_op=name).item() == expected
    for operation, expected in {ReduceOp.SUM: 3.0, ReduceOp.AVG: 1.5, ReduceOp.MIN: 1.0}.items():
        assert collectives.all_reduce(torch.tensor(rank + 1.0), reduce_op=operation).item() == expected
    bits = collectives.all_reduce(torch.tensor(rank + 1), reduce_op=ReduceOp.BOR)
    assert bits.item() == 3


def test_every_dtype_and_operation_is_reduced_in_place() -> None:
    run_ranks(_reduce_everything, 2)


def _reduce_special_tensors() -> None:
    rank = dist.get_rank()
    weight = torch.ones(2, requires_grad=True)
    loss = (weight * (rank + 1)).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert collectives.all_reduce(loss) is loss
    assert loss.item() == 3.0
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [rank + 1.0] * 2
    with torch.no_grad():
        weight += rank
    collectives.all_reduce(weight)
    assert weight.tolist() == [1.5, 1.5]
    strided = torch.zeros(3, 2).t() + rank
    view = strided[:, :2]
    collectives.all_reduce(view, reduce_op="sum")
    assert strided.tolist() == [[1.0, 1.0, rank], [1.0, 1.0, rank]]
    with pytest.warns(UserWarning, match="mean of torch.int64"):
        mean = collectives.all_reduce([torch.tensor(rank), rank])
    assert [value.item() for value in mean] == [0.5, 0.5]


def test_gradients_views_and_integers_are_reduced_with_care() -> None:
    run_ranks(_reduce_special_tensors, 2)


def _broadcast_everything() -> None:
    rank = dist.get_rank()
    mine = Pair(
        {"x": torch.full((2,), float(rank), dtype=torch.bfloat16), "n": rank}, [torch.tensor(rank % 2 == 1), "word", torch.empty(0)]
    )
    theirs = collectives.broadcast(mine, src=1)
    assert isinstance(theirs, Pair)
    assert theirs.first["x"].tolist() == [1.0, 1.0]
    assert theirs.first["x"].dtype is torch.bfloat16
    assert theirs.first["n"] == 1
    assert theirs.second[0].item() is True
    assert theirs.second[1] == "word"
    assert theirs.second[2].shape == (0,)
    assert collectives.broadcast("only here" if rank == 0 else None) == "only here"
    parameter = collectives.broadcast(torch.nn.Parameter(torch.full((2,), float(rank))))
    assert isinstance(parameter, torch.nn.Parameter)
    assert parameter.tolist() == [0.0, 0.0]


def test_tensors_and_objects_are_broadcast_together() -> None:
    run_ranks(_broadcast_everything, 2)


def _broadcast_together() -> list[int]:
    """Return how many collectives each set of tensors took."""
    rank, costs = dist.get_rank(), []
    mixed = [torch.full((), rank == 0), torch.full((2, 3), 7 - rank).bfloat16(), torch.empty(0), torch.full((5,), 1j * (1 - rank))]
    sets = [
        ([torch.full((3,), rank).to(dtype) for dtype in _DTYPES[6:10]], 1 << 20),
        (mixed, 99),
        ([torch.full((10,), rank, dtype=torch.uint8) for _ in range(7)], 25),  # two each
        ([torch.full((size,), rank, dtype=torch.uint8) for size in (4, 100, 4, 4)], 25),  # the second alone
        ([], 25),
    ]
    for tensors, limit in sets:
        before = dist.distributed_c10d._get_default_group()._get_sequence_number_for_group()
        collectives.broadcast_into(tensors, buffer_bytes=limit)
        costs.append(dist.distributed_c10d._get_default_group()._get_sequence_number_for_group() - before)
    assert all(not tensor.any() for each in (sets[0], sets[2], sets[3]) for tensor in each[0])
    first, second, _, last = mixed
    assert first.item() is True
    assert second.tolist() == [[7.0] * 3] * 2
    assert last.tolist() == [1j] * 5
    return costs


def test_small_tensors_travel_together_up_to_a_limit_and_large_ones_alone() -> None:
    assert run_ranks(_broadcast_together, 2) == [[1, 1, 4, 3, 0]] * 2


def _subgroup() -> list[float]:
    group = dist.new_group([0, 1])
    other = dist.new_group([2])
    mine = group if dist.get_rank() < 2 else other
    return collectives.all_reduce(torch.tensor([float(dist.get_rank())]), group=mine, reduce_op="sum").tolist()


def test_a_group_is_its_own_world() -> None:
    assert run_ranks(_subgroup, 3) == [[1.0], [1.0], [2.0]]


# -- disagreement --------------------------------------------------------------------------------------------------


def _different_calls() -> None:
    rank = dist.get_rank()
    with _raises(StateError, r"(?s)rank 0: all_reduce mean \(2,\) float32.*rank 1: all_reduce mean \(3,\) float32"):
        collectives.all_reduce(torch.ones(2 + rank))
    with _raises(StateError, r"(?s)rank 0: all_gather.*rank 1: barrier"):
        collectives.all_gather(torch.ones(2)) if rank == 0 else collectives.barrier()
    assert collectives.all_reduce(torch.ones(1), reduce_op="sum").item() == 2  # the group is still whole


def test_checked_collectives_raise_on_all_ranks() -> None:
    run_ranks(_different_calls, 2, env={"LEYDEN_FABRIC_CHECK_COLLECTIVES": "1"})


def _store() -> dist.TCPStore:
    told: list[Any] = [None]
    store = None
    if dist.get_rank() == 0:
        store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        told = [store.port]
    dist.broadcast_object_list(told, src=0)
    return store or dist.TCPStore("127.0.0.1", told[0], None, False)


def _one_is_missing() -> str | None:
    rank = dist.get_rank()
    store = _store()
    timeout = timedelta(seconds=1)
    group = dist.new_group(timeout=timeout)
    watch = StallWatch(store, rank, 2, timeout)
    collectives.all_reduce(torch.ones(1), group=group, watch=watch)
    if rank == 1:
        store.wait(["seen"], timedelta(seconds=30))
        watch.close()
        return None
    start = time.monotonic()
    told = r"barrier 'epoch end' has waited 0\.5 s on rank 0\. Missing: rank 1 \(last seen in all_reduce\)"
    with pytest.warns(UserWarning, match=told), pytest.raises(StateError) as caught:
        collectives.barrier("epoch end", group=group, watch=watch)
    assert time.monotonic() - start < 5
    store.set("seen", "1")
    watch.close()
    return str(caught.value)


def test_a_missing_rank_is_named_at_half_the_timeout_and_in_the_error() -> None:
    error = run_ranks(_one_is_missing, 2)[0]

    assert error is not None
    assert error.startswith("barrier 'epoch end' timed out on rank 0 after 1.")
    assert "Missing: rank 1 (last seen in all_reduce)" in error
    assert "timeout=timedelta" in error


def test_another_error_passes_the_watch_unchanged() -> None:
    watch = StallWatch(MemoryStore(), 0, 1, timedelta(seconds=60))
    with pytest.raises(RuntimeError, match=r"^bad shape$"), watch.entered("all_reduce"):
        raise RuntimeError("bad shape")
    watch.close()


# -- rank zero first -----------------------------------------------------------------------------------------------


def _in_order() -> list[str]:
    rank, store = dist.get_rank(), _store()
    for _ in range(3):
        with collectives.rank_zero_first(store, rank=rank, world_size=2):
            store.compare_set("first", "", str(rank))
            turn = store.add("turns", 1)
        assert rank != 0 or turn % 2 == 1 or turn > 1
    first = store.get("first").decode()
    with _raises(KeyError, "absent"), collectives.rank_zero_first(store, rank=rank, world_size=2):
        if rank == 1:
            store.set("rank 1 ran", "1")
        raise KeyError("absent")
    with _raises(StrangeError if rank == 0 else RuntimeError, "code 7"), collectives.rank_zero_first(store, rank=rank, world_size=2):
        raise StrangeError(code=7)
    ran = store.check(["rank 1 ran"])
    dist.barrier()
    left = sum(store.check([f"first/{turn}{suffix}"]) for turn in range(1, 6) for suffix in ("", "/heard"))
    dist.barrier()  # the store goes with rank 0
    return [first, str(ran), str(left)]


def test_rank_zero_goes_first_and_its_exception_is_everybodys() -> None:
    assert run_ranks(_in_order, 2) == [["0", "False", "0"]] * 2


def _local_zero_first() -> list[str]:
    rank, store = dist.get_rank(), _store()
    local_rank, node_rank = rank % 2, rank // 2
    place = {"local": True, "local_rank": local_rank, "node_rank": node_rank, "num_local": 2}
    with collectives.rank_zero_first(store, rank=rank, world_size=4, **place):
        store.compare_set(f"first on {node_rank}", "", str(rank))
    first = store.get(f"first on {node_rank}").decode()
    dist.barrier()
    left = store.check([f"first/{node_rank}/1"])
    dist.barrier()
    return [first, str(left)]


def test_local_rank_zero_goes_first_on_each_node() -> None:
    assert run_ranks(_local_zero_first, 4) == [["0", "False"], ["0", "False"], ["2", "False"], ["2", "False"]]


def test_one_process_just_runs_the_block() -> None:
    with collectives.rank_zero_first(MemoryStore(), rank=0, world_size=1):
        ran = True
    assert ran
