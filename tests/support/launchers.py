"""The variables that launchers set for rank `rank` of `world_size`, with `per_node` ranks on each node."""


def torchrun(rank: int, *, world_size: int = 4, per_node: int = 2) -> dict[str, str]:
    return {"TORCHELASTIC_RUN_ID": "none", **ranked(rank, world_size=world_size, per_node=per_node)}


def job(rank: int, *, world_size: int = 4, per_node: int = 2) -> dict[str, str]:
    paths = {f"LEYDEN_{name}": f"/tmp/{name}" for name in ("STEP_DIR", "OUTPUT_DIR", "ATTEMPT_DIR", "METRICS_FILE")}
    return {
        "LEYDEN_JOB_ID": "job_1",
        "LEYDEN_NODE_RANK": str(rank // per_node),
        "LEYDEN_NUM_NODES": str(world_size // per_node),
        **paths,
        **ranked(rank, world_size=world_size, per_node=per_node),
    }


def ranked(rank: int, *, world_size: int = 4, per_node: int = 2) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % per_node),
        "GROUP_RANK": str(rank // per_node),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(per_node),
        "GROUP_WORLD_SIZE": str(world_size // per_node),
        "MASTER_ADDR": "node-a",
        "MASTER_PORT": "29500",
    }


def slurm(rank: int, *, world_size: int = 4, per_node: int = 2, **more: str) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4321987",
        "SLURM_JOB_NAME": "train",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": str(world_size),
        "SLURM_NTASKS_PER_NODE": str(per_node),
        "SLURM_NNODES": str(world_size // per_node),
        "SLURM_NODELIST": "gpu[07-09,12]",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % per_node),
        "SLURM_NODEID": str(rank // per_node),
        **more,
    }


def lsf(rank: int, rank_file: str, *, world_size: int = 4, per_node: int = 2) -> dict[str, str]:
    return {
        "LSB_JOBID": "54321",
        "LSB_DJOB_RANKFILE": rank_file,
        "JSM_NAMESPACE_RANK": str(rank),
        "JSM_NAMESPACE_LOCAL_RANK": str(rank % per_node),
        "JSM_NAMESPACE_LOCAL_SIZE": str(per_node),
        "JSM_NAMESPACE_SIZE": str(world_size),
    }


def kubeflow(rank: int, *, world_size: int = 4) -> dict[str, str]:
    return {"MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456", "WORLD_SIZE": str(world_size), "RANK": str(rank)}


class Communicator:
    """What mpi4py's `COMM_WORLD` would be to rank `rank`, where every rank has told its `(host, port)`."""

    def __init__(self, rank: int, seats: list[tuple[str, int]]) -> None:
        self.rank = rank
        self.seats = seats
        self.gathered = 0

    def Get_size(self) -> int:  # noqa: N802 - mpi4py's name
        return len(self.seats)

    def Get_rank(self) -> int:  # noqa: N802 - mpi4py's name
        return self.rank

    def allgather(self, mine: tuple[str, int]) -> list[tuple[str, int]]:
        self.gathered += 1
        assert mine[0] == self.seats[self.rank][0]
        return self.seats
