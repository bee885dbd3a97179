"""`class_name`: what a module's class is called in errors, whatever wrappers and strategies made of it."""

from torch import nn


def class_name(module: nn.Module) -> str:
    """Return the name of the class that the user wrote.

    `fully_shard` changes a module's class to one that it makes (`FSDPNet` from `Net`), and `torch.compile` wraps it.

    Example:
        >>> class_name(nn.Linear(2, 2))
        'Linear'
    """
    inner = getattr(module, "_orig_mod", module)
    kind = type(inner)
    while len(kind.__bases__) == 2 and _is_made_by_torch(kind):
        kind = kind.__bases__[1]
    return kind.__name__


def _is_made_by_torch(kind: type) -> bool:
    """Return whether a class is torch's mark before the user's class: `class FSDPNet(FSDPModule, Net)`."""
    mark = kind.__bases__[0]
    return mark.__module__.startswith("torch.distributed.") and kind.__name__.endswith(kind.__bases__[1].__name__)
