"""What most tests of a front end start with; each runs on the short way and through ASGI."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fake_worker import echo
from tests.support.fronts import WAYS, Front, one, serving


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]


@pytest.fixture(scope="module")
def front(way: Any) -> Iterator[Front]:
    with serving(one(middlewares=way), echo) as found:
        yield found


@pytest.fixture
def idle(way: Any) -> Iterator[Front]:
    """A front end whose workers a test makes and drives."""
    with serving(one(middlewares=way)) as found:
        yield found
