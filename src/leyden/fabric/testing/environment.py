"""The kit for cluster environments whose launcher starts every process: who am I, where do we meet."""

import pickle
from abc import ABC, abstractmethod

from leyden.core.errors import ConfigError
from leyden.fabric.environments.environment import ClusterEnvironment
from leyden.fabric.testing.expectations import expect, expect_equal, refused, skip

_RANKS = 4
_DISAGREEING = ((3, 2), (2, 3), (1, 1), (8, 1))  # devices, nodes


class EnvironmentConformance(ABC):
    """What every cluster environment promises, tried on four ranks.

    `per_node` says how many ranks are on each node (2, or 1); `is_picklable = False` is for one that holds a connection.

    Example:
        ```python
        class TestMine(EnvironmentConformance):
            def make(self, rank):
                return MyEnvironment(environ={"MY_RANK": str(rank), "MY_SIZE": "4", "MY_LOCAL_SIZE": "2"})
        ```
    """

    per_node = 2
    is_picklable = True

    @abstractmethod
    def make(self, rank: int) -> ClusterEnvironment:
        """Return the environment of one of four ranks, `per_node` on each node, nodes filled one after the other."""

    def _ranks(self) -> list[ClusterEnvironment]:
        return [self.make(rank) for rank in range(_RANKS)]

    def test_ranks_are_numbered_from_zero(self) -> None:
        expect_equal([each.global_rank() for each in self._ranks()], [0, 1, 2, 3], "the global ranks")

    def test_node_and_local_rank_make_the_rank(self) -> None:
        for each in self._ranks():
            expect(0 <= each.local_rank() < self.per_node, f"local_rank() is {each.local_rank()} with {self.per_node} ranks on a node")
            expect_equal(each.node_rank() * self.per_node + each.local_rank(), each.global_rank(), "node_rank, local_rank → global_rank")

    def test_all_ranks_know_the_same_world(self) -> None:
        for each in self._ranks():
            expect_equal(each.world_size(), _RANKS, "world_size()")
            expect_equal(each.num_devices_hint(), self.per_node, "num_devices_hint()")
            expect_equal(each.num_nodes_hint(), _RANKS // self.per_node, "num_nodes_hint()")

    def test_all_ranks_meet_at_one_address(self) -> None:
        places = {(each.main_address, each.main_port) for each in self._ranks()}
        expect(len(places) == 1, f"ranks would meet at different places: {sorted(places)}")
        address, port = places.pop()
        expect(address, "main_address is empty")
        expect(0 < port < 2**16, f"main_port={port} is no port")

    def test_processes_exist_and_setters_change_nothing(self) -> None:
        environment = self.make(1)
        environment.set_world_size(99)
        environment.set_global_rank(98)
        expect(environment.creates_processes_externally, "creates_processes_externally should be true: the launcher starts the ranks")
        expect_equal((environment.world_size(), environment.global_rank()), (_RANKS, 1), "world size and rank after setters")

    def test_settings_that_agree_are_taken(self) -> None:
        self.make(0).validate_settings(num_devices=self.per_node, num_nodes=_RANKS // self.per_node)

    def test_settings_that_disagree_are_refused_with_both_numbers(self) -> None:
        for devices, nodes in _DISAGREEING:
            with refused(f"devices={devices}, num_nodes={nodes}", ConfigError, words=str(devices)):
                self.make(0).validate_settings(num_devices=devices, num_nodes=nodes)

    def test_goes_to_other_processes(self) -> None:
        if not self.is_picklable:
            skip("holds a connection of this process")
        expect_equal(pickle.loads(pickle.dumps(self.make(3))).global_rank(), 3, "the rank of a copy")  # noqa: S301 - made here

    def test_torn_down_twice_is_torn_down(self) -> None:
        environment = self.make(0)
        environment.teardown()
        environment.teardown()
