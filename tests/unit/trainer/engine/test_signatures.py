import functools
from collections.abc import Callable
from typing import Any

import pytest

from leyden.trainer.engine.signatures import parameter, positional_count, takes_anything


class Module:
    def step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...

    def anything(self, *args: Any) -> None: ...


def bound_again(module: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """As FSDP wraps a method of a module."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return wrapped.__get__(module, type(module))


@pytest.mark.parametrize("wrap", [lambda module, method: method, bound_again], ids=["plain", "bound again"])
def test_a_step_takes_what_the_user_wrote_also_behind_a_strategys_wrapper(wrap: Callable[..., Any]) -> None:
    module = Module()
    step = wrap(module, module.step)
    assert positional_count(step) == 3
    assert parameter(step, "dataloader_idx") is not None
    assert not takes_anything(step)
    assert positional_count(wrap(module, module.anything)) is None


def test_a_users_decorator_hides_nothing() -> None:
    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    class Decorated:
        @decorated
        def step(self, batch: Any, batch_idx: int) -> None: ...

    assert positional_count(Decorated().step) == 2
