"""How the ranks of a run come to be, find each other, stop together and die together.

`script` and `function` start processes, `children` and `lifeline` are the two ends of what ties them together, `group` joins
them, `agreement` lets all of them act at the same step. Nothing here knows models or data.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from .agreement import Agreement as Agreement
    from .agreement import Decision as Decision
    from .function import FunctionLauncher as FunctionLauncher
    from .launcher import Launcher as Launcher
    from .script import ScriptLauncher as ScriptLauncher
    from .signals import Stop as Stop
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Agreement": ".agreement",
            "Decision": ".agreement",
            "FunctionLauncher": ".function",
            "Launcher": ".launcher",
            "ScriptLauncher": ".script",
            "Stop": ".signals",
        },
    )
