"""Which engine does the units of a job."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from leyden.core.errors import ConfigError
from leyden.data.write.engines.ray import RayEngine, run_on_ray
from leyden.data.write.journal import Journal
from leyden.data.write.plan import Plan
from leyden.data.write.running import Running, do_units
from leyden.data.write.unit import Task

ENGINES = ("auto", "local", "ranks", "ray")
DoUnits = Callable[[Journal, Plan, Sequence[Any], Task, Running], None]


def engine_named(engine: Any) -> DoUnits:
    """Return what does units.

    Args:
        engine: A name, or a `RayEngine`.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(engine, RayEngine):
        return partial(run_on_ray, engine)
    if engine not in ENGINES:
        raise ConfigError(f"engine={engine!r} is not accepted: it takes {', '.join(map(repr, ENGINES))}, or RayEngine(num_actors).")
    return partial(run_on_ray, None) if engine == "ray" else do_units
