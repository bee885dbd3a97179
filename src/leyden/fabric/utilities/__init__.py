"""Small tools at the paths that users know. The documented paths; nothing lives here."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.attribute_dict import AttributeDict as AttributeDict
    from leyden.fabric.loading.transfer import move_data_to_device as move_data_to_device
    from leyden.fabric.machine import is_shared_filesystem as is_shared_filesystem
    from leyden.fabric.machine import suggested_max_num_workers as suggested_max_num_workers
    from leyden.fabric.rank_zero import rank_zero_deprecation as rank_zero_deprecation
    from leyden.fabric.rank_zero import rank_zero_info as rank_zero_info
    from leyden.fabric.rank_zero import rank_zero_only as rank_zero_only
    from leyden.fabric.rank_zero import rank_zero_warn as rank_zero_warn
    from leyden.fabric.throughput import Throughput as Throughput
    from leyden.fabric.throughput import ThroughputMonitor as ThroughputMonitor
    from leyden.fabric.throughput import measure_flops as measure_flops
    from leyden.fabric.utilities.warnings import disable_possible_user_warnings as disable_possible_user_warnings
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AttributeDict": "..attribute_dict",
            "Throughput": "..throughput",
            "ThroughputMonitor": "..throughput",
            "disable_possible_user_warnings": ".warnings",
            "is_shared_filesystem": "..machine",
            "measure_flops": "..throughput",
            "move_data_to_device": "..loading.transfer",
            "rank_zero_deprecation": "..rank_zero",
            "rank_zero_info": "..rank_zero",
            "rank_zero_only": "..rank_zero",
            "rank_zero_warn": "..rank_zero",
            "suggested_max_num_workers": "..machine",
        },
    )
