"""What every cluster environment promises. Subclass it, say what the launcher sets, and pytest runs the promises.

```python
class TestMine(EnvironmentSuite):
    def make(self, rank, *, world_size=4, per_node=2):
        return MyEnvironment(environ={"MY_RANK": str(rank), …})
```
"""

import pickle

import pytest

from leyden.core.errors import ConfigError
from leyden.fabric.environments import ClusterEnvironment


class EnvironmentSuite:
    pickles = True
    per_node = 2  # ranks on each node, where the launcher leaves a choice

    def make(self, rank: int, *, world_size: int = 4, per_node: int = 2) -> ClusterEnvironment:
        """Return the environment of one rank: nodes filled one after the other."""
        raise NotImplementedError

    def ranks(self) -> list[ClusterEnvironment]:
        return [self.make(rank, per_node=self.per_node) for rank in range(4)]

    def test_ranks_are_numbered_from_zero(self):
        assert [each.global_rank() for each in self.ranks()] == [0, 1, 2, 3]

    def test_node_and_local_rank_make_the_rank(self):
        for each in self.ranks():
            assert 0 <= each.local_rank() < self.per_node
            assert each.node_rank() * self.per_node + each.local_rank() == each.global_rank()

    def test_all_ranks_know_the_same_world(self):
        ranks = self.ranks()
        assert {each.world_size() for each in ranks} == {4}
        assert {each.num_devices_hint() for each in ranks} == {self.per_node}
        assert {each.num_nodes_hint() for each in ranks} == {4 // self.per_node}

    def test_all_ranks_meet_at_one_address(self):
        ranks = self.ranks()
        assert len({each.main_address for each in ranks}) == 1
        assert ranks[0].main_address
        assert len({each.main_port for each in ranks}) == 1
        assert 0 < ranks[0].main_port < 2**16

    def test_processes_exist_and_setters_change_nothing(self):
        environment = self.make(1, per_node=self.per_node)
        environment.set_world_size(99)
        environment.set_global_rank(98)
        assert environment.creates_processes_externally
        assert (environment.world_size(), environment.global_rank()) == (4, 1)

    def test_settings_that_agree_are_taken(self):
        self.make(0, per_node=self.per_node).validate_settings(num_devices=self.per_node, num_nodes=4 // self.per_node)

    @pytest.mark.parametrize(("devices", "nodes"), [(3, 2), (2, 3), (1, 1), (8, 1)], ids=repr)
    def test_settings_that_disagree_are_refused_with_both_numbers(self, devices, nodes):
        with pytest.raises(ConfigError) as refusal:
            self.make(0, per_node=self.per_node).validate_settings(num_devices=devices, num_nodes=nodes)
        assert str(devices) in str(refusal.value)
        assert str(self.per_node) in str(refusal.value) or "4" in str(refusal.value)

    def test_goes_to_other_processes(self):
        if not self.pickles:
            pytest.skip("holds a connection of this process")
        environment = pickle.loads(pickle.dumps(self.make(3, per_node=self.per_node)))
        assert environment.global_rank() == 3

    def test_torn_down_twice_is_torn_down(self):
        environment = self.make(0, per_node=self.per_node)
        environment.teardown()
        environment.teardown()
