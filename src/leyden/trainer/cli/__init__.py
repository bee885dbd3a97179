"""`LightningCLI`: a command line, configuration files and a record of every run, made from the signatures of your classes.

Needs the extra `cli`; `import leyden.trainer` does not come here.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports
from leyden.core.optional import require

require("jsonargparse", extra="cli", purpose="LightningCLI")  # before a name is asked for, so that the error holds the command

if TYPE_CHECKING:
    from leyden.trainer.cli.callables import ArgsType as ArgsType
    from leyden.trainer.cli.callables import LRSchedulerCallable as LRSchedulerCallable
    from leyden.trainer.cli.callables import LRSchedulerTypeTuple as LRSchedulerTypeTuple
    from leyden.trainer.cli.callables import LRSchedulerTypeUnion as LRSchedulerTypeUnion
    from leyden.trainer.cli.callables import OptimizerCallable as OptimizerCallable
    from leyden.trainer.cli.callables import ReduceLROnPlateau as ReduceLROnPlateau
    from leyden.trainer.cli.instantiate import instantiate_class as instantiate_class
    from leyden.trainer.cli.instantiate import instantiate_module as instantiate_module
    from leyden.trainer.cli.lightning_cli import LightningCLI as LightningCLI
    from leyden.trainer.cli.parser import LightningArgumentParser as LightningArgumentParser
    from leyden.trainer.cli.save_config import SaveConfigCallback as SaveConfigCallback
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "ArgsType": ".callables",
            "LRSchedulerCallable": ".callables",
            "LRSchedulerTypeTuple": ".callables",
            "LRSchedulerTypeUnion": ".callables",
            "LightningArgumentParser": ".parser",
            "LightningCLI": ".lightning_cli",
            "OptimizerCallable": ".callables",
            "ReduceLROnPlateau": ".callables",
            "SaveConfigCallback": ".save_config",
            "instantiate_class": ".instantiate",
            "instantiate_module": ".instantiate",
        },
    )
