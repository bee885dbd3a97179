"""What a front end is made of, as the routes of its app see it."""

from collections.abc import Callable
from typing import NamedTuple

from leyden.serve.config import ServerConfig
from leyden.serve.front.dispatcher import Dispatcher
from leyden.serve.front.intake import Intake
from leyden.serve.front.readiness import Readiness
from leyden.serve.mcp import Tools


class Parts(NamedTuple):
    """What the routes of an app stand on.

    Args:
        config: Of the server.
        dispatcher: Takes calls.
        intake: Reads heads.
        readiness: Says whether all is well.
        metrics: Returns all numbers as text.
        shut_down: Stops the server; told once a request with the right key asks for it.
        tools: APIs as tools of language models, if any is one.
    """

    config: ServerConfig
    dispatcher: Dispatcher
    intake: Intake
    readiness: Readiness
    metrics: Callable[[], str]
    shut_down: Callable[[], None]
    tools: Tools | None = None
