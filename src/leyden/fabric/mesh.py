"""`MeshSpec`: how ranks are divided into pipeline, replicate, shard, context and tensor axes, and `Mesh`, the result.

Pure arithmetic first (`MeshSpec.sizes`), then torch's `DeviceMesh`. Names: `pp dp_replicate dp_shard cp tp`, outermost
first, and the flattened `dp` (replicate x shard: loaders and gradient means) and `dp_cp` (losses). Every strategy's mesh
knows these names, so `group="dp"` works everywhere; an axis of size 1 has no group, and a collective over it does nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from leyden.core.errors import ConfigError, UnavailableError, closest, listed

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

FLATTENED = {"dp": ("dp_replicate", "dp_shard"), "dp_cp": ("dp_replicate", "dp_shard", "cp")}


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshSpec:
    """Sizes of the mesh axes, outermost first; one of them may be -1 and takes the rest.

    Args:
        pp: Pipeline stages.
        dp_replicate: Groups of ranks that hold the same weights.
        dp_shard: Ranks over which weights are sharded.
        cp: Ranks over which a sequence is split.
        tp: Ranks over which a matrix is split; innermost, so that it stays within a node.

    Example:
        >>> MeshSpec(dp_shard=-1, tp=2).sizes(world_size=8)
        {'pp': 1, 'dp_replicate': 1, 'dp_shard': 4, 'cp': 1, 'tp': 2}
    """

    pp: int = 1
    dp_replicate: int = 1
    dp_shard: int = -1
    cp: int = 1
    tp: int = 1

    def sizes(self, world_size: int) -> dict[str, int]:
        """Return the size of each axis for `world_size` ranks.

        Raises:
            ConfigError: A size below 1 that is not -1, or more than one -1.
            UnavailableError: The product is not `world_size`.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if any(type(size) is not int or (size < 1 and size != -1) for size in given.values()):
            raise ConfigError(f"{self}: every size is an int of at least 1, or -1 for one axis that takes the rest.")
        rest = [name for name, size in given.items() if size == -1]
        if len(rest) > 1:
            raise ConfigError(f"{self}: only one axis may be -1, not {listed(rest)}.")
        fixed = math.prod(size for size in given.values() if size != -1)
        if rest and world_size % fixed == 0:
            given[rest[0]] = world_size // fixed
        if math.prod(given.values()) != world_size:
            raise UnavailableError(f"{self} needs a multiple of {fixed} ranks, but this run has {world_size}. Change a size, or `devices`.")
        return given


class Mesh:
    """The mesh of this run: axes by name, each with its size, this rank's coordinate and its group.

    Args:
        axes: Axis name → size, outermost first; their product is the world size.
        device_type: Where the mesh's tensors live, such as `"cpu"` or `"cuda"`.
        rank: This process's global rank.
        aliases: Standard name → axes of this mesh, where they are called otherwise.
        keep_all: Whether torch's mesh has the axes of one rank too, because somebody asks it for them by name or by place.
    """

    def __init__(
        self,
        axes: dict[str, int],
        *,
        device_type: str = "cpu",
        rank: int = 0,
        aliases: dict[str, tuple[str, ...]] | None = None,
        keep_all: bool = False,
    ) -> None:
        self.axes = axes
        self._keep_all = keep_all
        self.device_type = device_type
        self._rank = rank
        self._aliases = {**FLATTENED, **(aliases or {})}
        self._made: dict[str, DeviceMesh] = {}

    @cached_property
    def device_mesh(self) -> "DeviceMesh":
        """Torch's mesh of all axes that have more than one rank (of the first, where none has), or of all with `keep_all`."""
        from torch.distributed.device_mesh import init_device_mesh

        axes = {name: size for name, size in self.axes.items() if size > 1 or self._keep_all} or dict([next(iter(self.axes.items()))])
        return init_device_mesh(self.device_type, tuple(axes.values()), mesh_dim_names=tuple(axes))

    @classmethod
    def around(cls, device_mesh: "DeviceMesh", *, rank: int) -> "Mesh":
        """Return the mesh over a (replicate, shard) `DeviceMesh` that exists already, whatever its axes are called.

        Raises:
            ConfigError: It has another number of axes, no names, or no place for this rank.
        """
        names = device_mesh.mesh_dim_names
        if names is None or len(names) != 2 or device_mesh.get_coordinate() is None:
            raise ConfigError(
                f"device_mesh={device_mesh} should have two named axes and all ranks of this run, such as "
                f'init_device_mesh("{device_mesh.device_type}", (2, 4), mesh_dim_names=("replicate", "shard")).'
            )
        replicate, shard = names
        mesh = cls(
            dict(zip(names, device_mesh.mesh.shape, strict=True)),
            device_type=device_mesh.device_type,
            rank=device_mesh.mesh.flatten().tolist().index(rank),  # its place: ranks may lie there in any order
            aliases={"dp_replicate": (replicate,), "dp_shard": (shard,), "dp": names, "dp_cp": names},
        )
        mesh.__dict__["device_mesh"] = device_mesh
        return mesh

    def size(self, name: str) -> int:
        """Return how many ranks an axis has; 1 for a standard axis that this mesh does not use."""
        return math.prod(self.axes.get(axis, 1) for axis in self._parts(name))

    def coordinate(self, name: str) -> int:
        """Return this rank's position on an axis."""
        strides = self._strides()
        position = 0
        for axis in self._parts(name):
            if axis in self.axes:
                position = position * self.axes[axis] + (self._rank // strides[axis]) % self.axes[axis]
        return position

    def __getitem__(self, name: str) -> "DeviceMesh":
        """Return the sub-mesh of one axis, as `parallelize_module` and `fully_shard` take it.

        An axis of one rank gets a mesh of its own when it is first asked for, which every rank must then do.
        """
        axes = [axis for axis in self._parts(name) if self.axes.get(axis, 1) > 1]
        if len(axes) == 1:
            return self.device_mesh[axes[0]]
        if name not in self._made:
            self._made[name] = self.device_mesh[tuple(axes)]._flatten(name) if axes else self._of_one_rank(name)
        return self._made[name]

    def _of_one_rank(self, name: str) -> "DeviceMesh":
        from torch.distributed.device_mesh import init_device_mesh

        if name in (self.device_mesh.mesh_dim_names or ()):
            return self.device_mesh[name]
        return init_device_mesh(self.device_type, (math.prod(self.axes.values()), 1), mesh_dim_names=("others", name))[name]

    def group(self, name: str) -> "ProcessGroup | None":
        """Return an axis's process group; `None` where the axis has one rank."""
        return None if self.size(name) == 1 else self[name].get_group()

    def describe(self) -> dict[str, list[Any]]:
        """Return the axes as checkpoints store them: `{"axes": [...], "sizes": [...]}`."""
        axes = {name: size for name, size in self.axes.items() if size > 1} or self.axes
        return {"axes": list(axes), "sizes": list(axes.values())}

    def _parts(self, name: str) -> Sequence[str]:
        if name in self.axes:
            return (name,)
        if name in self._aliases:
            return self._aliases[name]
        standard = [field.name for field in fields(MeshSpec)]
        if name in standard:
            return (name,)
        options = [*self.axes, *self._aliases, *(axis for axis in standard if axis not in self.axes)]
        raise ConfigError(f"mesh axis {name!r} does not exist.{closest(name, options)} Axes: {listed(options)}.")

    def _strides(self) -> dict[str, int]:
        strides: dict[str, int] = {}
        stride = 1
        for name in reversed(self.axes):
            strides[name] = stride
            stride *= self.axes[name]
        return strides
