"""`HookPlan`: who is called at each hook, found once per run, so that a hook nobody overrides costs nothing.

A callee is an id (`"module"`, or a callback's `state_key`, `#2` for a repeat) and a function that takes the hook's own
arguments. The plan is built again when the list of callbacks changes (`CallbackList.version`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, SupportsIndex, overload

from leyden.trainer.core.callback import Callback, Checkpoint, MonitoringCallback
from leyden.trainer.engine.hookspec import HOOKS
from leyden.trainer.engine.state import Calls

MODULE = "module"
# Those that act on the metrics of an epoch come after the module has logged its last. Those that save come after everybody who
# wants the batch, because a resumed run calls the rest of a hook without it.
_LATE: dict[str, Any] = {"on_train_epoch_end": MonitoringCallback, "on_train_batch_end": Checkpoint}


class CallbackList(list[Callback]):
    """A list that counts its changes."""

    version = 0  # of the class: unpickling extends the list before it sets the attribute

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        super().__init__(callbacks)
        self.version = 0

    def append(self, item: Callback) -> None:
        super().append(item)
        self.version += 1

    def extend(self, items: Iterable[Callback]) -> None:
        super().extend(items)
        self.version += 1

    def insert(self, index: SupportsIndex, item: Callback) -> None:
        super().insert(index, item)
        self.version += 1

    def remove(self, item: Callback) -> None:
        super().remove(item)
        self.version += 1

    def pop(self, index: SupportsIndex = -1) -> Callback:
        self.version += 1
        return super().pop(index)

    def clear(self) -> None:
        super().clear()
        self.version += 1

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        super().sort(key=key, reverse=reverse)
        self.version += 1

    def reverse(self) -> None:
        super().reverse()
        self.version += 1

    @overload
    def __setitem__(self, index: SupportsIndex, value: Callback) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Callback]) -> None: ...
    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        self.version += 1

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        super().__delitem__(index)
        self.version += 1

    def __iadd__(self, items: Iterable[Callback]) -> "CallbackList":
        self.extend(items)
        return self


class HookPlan(dict[str, Calls]):
    """Hook → its callees, found when a hook is first looked up; a later look is the dictionary's own, which costs no call.

    Args:
        module: The user's module.
        module_base: The class whose methods count as not overridden.
        callbacks: In order.
        trainer: What callbacks get as their first argument.
        wrap: Applied to each call, such as a profiler's; `None` leaves them alone.
    """

    def __init__(
        self,
        module: Any,
        module_base: type,
        callbacks: Sequence[Callback],
        trainer: Any,
        wrap: "Callable[[str, str, Callable[..., Any]], Callable[..., Any]] | None" = None,
    ) -> None:
        super().__init__()
        self._module, self._base, self._trainer, self._wrap = module, module_base, trainer, wrap
        self._callbacks = list(zip(callback_ids(callbacks), callbacks, strict=True))
        self.version = getattr(callbacks, "version", 0)

    def __missing__(self, name: str) -> Calls:
        calls = self[name] = self._find(name)
        return calls

    def overrides(self, name: str) -> bool:
        """Return whether the user's module overrides a method."""
        return is_overridden(self._module, name, self._base)

    def method(self, name: str) -> Callable[..., Any]:
        """Return a method of the user's module, wrapped as callees are."""
        return self._wrapped(MODULE, name, getattr(self._module, name))

    def _find(self, name: str) -> Calls:
        hook = HOOKS[name]
        before: list[tuple[str, Callable[..., Any]]] = []
        after: list[tuple[str, Callable[..., Any]]] = []
        if hook.callback:
            late = _LATE.get(name, ())
            for key, callback in self._callbacks:
                if is_overridden(callback, name, Callback):
                    call = partial(getattr(callback, name), self._trainer, self._module)
                    (after if isinstance(callback, late) else before).append((key, self._wrapped(key, name, call)))
        own = [(MODULE, self.method(name))] if hook.module and self.overrides(name) else []
        return (*before, *own, *after)

    def _wrapped(self, key: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return call if self._wrap is None else self._wrap(key, name, call)


def callback_ids(callbacks: Iterable[Callback]) -> list[str]:
    """Return each callback's `state_key`, numbered where it repeats.

    Example:
        >>> callback_ids([Callback(), Callback()])
        ['Callback', 'Callback#2']
    """
    seen: Counter[str] = Counter()
    ids = []
    for callback in callbacks:
        key = callback.state_key
        seen[key] += 1
        ids.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return ids


def is_overridden(obj: Any, name: str, base: type) -> bool:
    """Return whether `obj` has another `name` than `base`: in its class, or set on the instance.

    Example:
        >>> class Mine(Callback):
        ...     def on_fit_start(self, trainer, pl_module): ...
        >>> is_overridden(Mine(), "on_fit_start", Callback), is_overridden(Mine(), "on_fit_end", Callback)
        (True, False)
    """
    if name in getattr(obj, "__dict__", ()):
        return True
    own, inherited = getattr(type(obj), name, None), getattr(base, name, None)
    return own is not None and own is not inherited
