"""Where a process stands: arguments, then a running process group, then the launcher's variables."""

import pytest

from leyden.core.errors import ConfigError
from leyden.data.placement import Place, find_place


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Place(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, Place(3, 8)),
        ({"GLOBAL_RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, Place(2, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Place(0, 1)),  # a batch script, not a task of srun
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, Place(1, 3)),
    ],
)
def test_the_launcher_says_it(environ: dict[str, str], place: Place) -> None:
    assert find_place(environ) == place


def test_half_a_place_is_refused() -> None:
    assert Place.checked(None, None) is None
    for wrong in ((1, None), (None, 2), (2, 2), (-1, 2)):
        with pytest.raises(ConfigError, match="give both"):
            Place.checked(*wrong)
