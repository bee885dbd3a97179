"""Questions about modules, at their documented path."""

from leyden.trainer.core.callback import Callback
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.core.module import LightningModule
from leyden.trainer.engine import plan


def is_overridden(method_name: str, instance: object, parent: type | None = None) -> bool:
    """Return whether an object has a method of its own in place of its base's.

    Args:
        method_name: The method.
        instance: A module, data module or callback.
        parent: The base; found by itself for these three.

    Raises:
        ValueError: The base is not known, or has no such method.
    """
    base = parent or next((kind for kind in (LightningModule, LightningDataModule, Callback) if isinstance(instance, kind)), None)
    if base is None:
        raise ValueError(f"Expected a parent: {type(instance).__name__} is no LightningModule, LightningDataModule or Callback.")
    if not hasattr(instance, method_name):
        return False
    if not hasattr(base, method_name):
        raise ValueError(f"The parent should define the method: {base.__name__} has no {method_name!r}.")
    return plan.is_overridden(instance, method_name, base)
