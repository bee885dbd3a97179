"""Small tools, at the paths that users know."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.utilities import AttributeDict as AttributeDict
    from leyden.fabric.utilities import Throughput as Throughput
    from leyden.fabric.utilities import is_shared_filesystem as is_shared_filesystem
    from leyden.fabric.utilities import measure_flops as measure_flops
    from leyden.fabric.utilities import move_data_to_device as move_data_to_device
    from leyden.fabric.utilities import suggested_max_num_workers as suggested_max_num_workers
    from leyden.trainer.data.combined import CombinedLoader as CombinedLoader

    from .enums import GradClipAlgorithmType as GradClipAlgorithmType
    from .grads import grad_norm as grad_norm
    from .parsing import is_picklable as is_picklable
    from .rank_zero import rank_zero_deprecation as rank_zero_deprecation
    from .rank_zero import rank_zero_info as rank_zero_info
    from .rank_zero import rank_zero_only as rank_zero_only
    from .rank_zero import rank_zero_warn as rank_zero_warn
    from .warnings import PossibleUserWarning as PossibleUserWarning
    from .warnings import disable_possible_user_warnings as disable_possible_user_warnings
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AttributeDict": "leyden.fabric.utilities",
            "CombinedLoader": "leyden.trainer.data.combined",
            "GradClipAlgorithmType": ".enums",
            "PossibleUserWarning": ".warnings",
            "Throughput": "leyden.fabric.utilities",
            "disable_possible_user_warnings": ".warnings",
            "grad_norm": ".grads",
            "is_picklable": ".parsing",
            "is_shared_filesystem": "leyden.fabric.utilities",
            "measure_flops": "leyden.fabric.utilities",
            "move_data_to_device": "leyden.fabric.utilities",
            "rank_zero_deprecation": ".rank_zero",
            "rank_zero_info": ".rank_zero",
            "rank_zero_only": ".rank_zero",
            "rank_zero_warn": ".rank_zero",
            "suggested_max_num_workers": "leyden.fabric.utilities",
        },
    )
