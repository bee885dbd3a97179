"""`ParallelStrategy`: what strategies with several processes share: ranks, the process group, the mesh, collectives."""

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from leyden.core.errors import ConfigError, StateError, closest, listed
from leyden.fabric import collectives
from leyden.fabric.launch.group import Closeable, Group, join_group
from leyden.fabric.mesh import Mesh
from leyden.fabric.precision.precision import Precision
from leyden.fabric.rank_zero import rank_zero_only
from leyden.fabric.strategies.strategy import Strategy

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.checkpoint.plugin import CheckpointIO
    from leyden.fabric.environments.environment import ClusterEnvironment
    from leyden.fabric.launch.launcher import Launcher

StartMethod = Literal["popen", "spawn", "fork", "forkserver"]
START_METHODS = ("popen", "spawn", "fork", "forkserver")
DEFAULT_TIMEOUT = timedelta(minutes=30)


class ParallelStrategy(Strategy):  # noqa: SIZE003 - the documented protocol of a strategy
    """A strategy of several processes, one per device.

    Args:
        accelerator: The kind of device; `None` lets the plan fill it in.
        parallel_devices: The devices of this node in local-rank order; `None` lets the plan fill them in.
        cluster_environment: Who started the processes; `None` lets the plan detect it.
        checkpoint_io: A plug-in that stores checkpoints; `None` is fabric's own formats.
        precision: How numbers are kept; `None` lets the plan fill it in.
        process_group_backend: The `torch.distributed` backend; `None` takes the accelerator's.
        timeout: After which a collective that not all ranks reach is an error.
        start_method: How the other ranks of this node are started.
    """

    guards_methods: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        *,
        accelerator: "Accelerator | None" = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: "ClusterEnvironment | None" = None,
        checkpoint_io: "CheckpointIO | None" = None,
        precision: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        start_method: StartMethod = "popen",
    ) -> None:
        super().__init__(accelerator=accelerator, checkpoint_io=checkpoint_io, precision=precision, cluster_environment=cluster_environment)
        if start_method not in START_METHODS:
            hint = closest(str(start_method), START_METHODS)
            raise ConfigError(f"start_method={start_method!r}: accepted are {listed(START_METHODS)}.{hint}")
        self.parallel_devices = parallel_devices
        self.process_group_backend = process_group_backend
        self.timeout = timeout or DEFAULT_TIMEOUT
        self.start_method: StartMethod = start_method
        self._group: Group | None = None
        self._mesh: Mesh | None = None

    # -- where this process stands -------------------------------------------------------------------------------

    @property
    def root_device(self) -> torch.device:
        if not self.parallel_devices:
            raise StateError(f"{type(self).__name__} has no devices yet; hand it to Fabric(strategy=…), or pass parallel_devices=[…].")
        return self.parallel_devices[self.local_rank]

    @property
    def num_processes(self) -> int:
        return len(self.parallel_devices) if self.parallel_devices else 1

    @property
    def global_rank(self) -> int:
        return self.cluster_environment.global_rank() if self.cluster_environment else 0

    @property
    def local_rank(self) -> int:
        return self.cluster_environment.local_rank() if self.cluster_environment else 0

    @property
    def node_rank(self) -> int:
        return self.cluster_environment.node_rank() if self.cluster_environment else 0

    @property
    def world_size(self) -> int:
        return self.cluster_environment.world_size() if self.cluster_environment else 1

    @property
    def group(self) -> Group:
        """The process group this strategy joined.

        Raises:
            StateError: It has not been joined.
        """
        if self._group is None:
            raise StateError(
                f"{type(self).__name__} has not joined its process group. To use Fabric with more than one device, you must call "
                "`.launch()` or use the CLI: `leyden fabric run --help`."
            )
        return self._group

    @property
    def saving_group(self) -> "ProcessGroup | None":
        return self.group.saving_group

    def mesh_axes(self) -> dict[str, int]:
        """Return the axes of this strategy's mesh, outermost first; their product is the world size."""
        return {"dp_replicate": self.world_size}

    def make_mesh(self) -> Mesh:
        """Return this strategy's mesh; called once, after launch."""
        return Mesh(self.mesh_axes(), device_type=self.root_device.type, rank=self.global_rank)

    @property
    def mesh(self) -> Mesh:
        if self._mesh is None:
            self.group  # noqa: B018 - a mesh needs the group, whose absence explains itself
            self._mesh = self.make_mesh()
        return self._mesh

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        return {"num_replicas": self.mesh.size("dp"), "rank": self.mesh.coordinate("dp")}

    # -- setting up ----------------------------------------------------------------------------------------------

    def configure_ranks(self) -> None:
        """Tell the environment the world size and this process's rank, where the launcher leaves that to fabric."""
        environment = self.cluster_environment
        if environment is None:
            return
        environment.set_global_rank(self.node_rank * self.num_processes + self.local_rank)
        environment.set_world_size(self.num_nodes * self.num_processes)
        rank_zero_only.rank = environment.global_rank()

    def own(self, other: "Closeable") -> None:
        self.group.own(other)  # which also closes it at exit, before the store goes

    def make_launcher(self) -> "Launcher | None":
        environment = self.cluster_environment
        if environment is None or environment.creates_processes_externally:
            return None
        if self.start_method == "popen":
            from leyden.fabric.launch.script import ScriptLauncher  # with the other one 1 % of `import torch`: only who launches pays

            return ScriptLauncher(environment, num_processes=self.num_processes, num_nodes=self.num_nodes)
        from leyden.fabric.launch.function import FunctionLauncher  # as above

        return FunctionLauncher(environment, num_processes=self.num_processes, num_nodes=self.num_nodes, start_method=self.start_method)

    def setup_environment(self) -> None:
        if self._group is not None:
            return
        if self.cluster_environment is None:
            raise StateError(f"{type(self).__name__} has no cluster environment; hand it to Fabric(strategy=…).")
        self.configure_ranks()
        super().setup_environment()
        self._group = join_group(
            self.cluster_environment,
            backend=self.process_group_backend or (self.accelerator.backend() if self.accelerator else "gloo"),
            timeout=self.timeout,
            device=self.root_device,
            store=self.launcher.store if self.launcher else None,
            rank=self.global_rank,
            world_size=self.world_size,
        )

    def __getstate__(self) -> dict[str, Any]:
        from leyden.fabric.launch.function import FunctionLauncher  # loaded already where there is one

        # A spawned rank's launcher comes along: it finds the rendezvous of the process that spawned it.
        launcher = self.launcher if isinstance(self.launcher, FunctionLauncher) else None
        return {**super().__getstate__(), "launcher": launcher, "_group": None, "_mesh": None}

    def teardown(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = self._mesh = None
        super().teardown()

    # -- collectives ---------------------------------------------------------------------------------------------

    def _over(self, group: Any) -> tuple["ProcessGroup | None", int]:
        """Return the process group (`None` = all ranks) that `group` names, and its size."""
        joined = self.group
        if group is None:
            return None, joined.world_size
        if isinstance(group, str):
            return self.mesh.group(group), self.mesh.size(group)
        return group, group.size()

    def all_gather(self, tensor: Any, group: Any = None, sync_grads: bool = False) -> Any:
        over, size = self._over(group)
        if size == 1:
            return collectives.of_one(tensor, device=self.root_device)
        return collectives.all_gather(tensor, over, sync_grads=sync_grads, device=self.root_device, watch=self.group.watch)

    def all_reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        over, size = self._over(group)
        if size == 1:
            return collectives.of_one(tensor, reduce_op, device=self.root_device)
        return collectives.all_reduce(tensor, over, reduce_op, device=self.root_device, watch=self.group.watch)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        joined = self.group
        return obj if joined.world_size == 1 else collectives.broadcast(obj, src, device=self.root_device, watch=joined.watch)

    def rank_zero_first(self, local: bool = False) -> AbstractContextManager[Any]:
        if self._group is None or self.world_size == 1:
            return nullcontext()
        return collectives.rank_zero_first(
            self._group.store,
            rank=self.global_rank,
            world_size=self.world_size,
            local=local,
            local_rank=self.local_rank,
            node_rank=self.node_rank,
            num_local=self.num_processes,
        )

    def barrier(self, name: str | None = None) -> None:
        if self._group is not None:
            collectives.barrier(name, watch=self._group.watch, device=self.root_device)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        votes = self.all_reduce(torch.tensor(int(decision), device=self.root_device), reduce_op="sum")
        return int(votes) == self.world_size if all else int(votes) > 0
