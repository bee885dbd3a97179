"""A front end in an event loop of somebody else's server: it hears from a supervisor in another thread who its workers are."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from leyden.serve.front.dispatcher import unheard
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.front.process import Control, hear


@contextlib.asynccontextmanager
async def attached(front: FrontEnd, control: socket.socket) -> AsyncIterator[None]:
    """Hear what the supervisor says, while the context lasts.

    Args:
        front: In the running event loop.
        control: Its end of the control socket.
    """
    control.settimeout(0)
    loop = asyncio.get_running_loop()
    transport, line = await loop.create_connection(lambda: Control(lambda frame: hear(front, frame), _stay), sock=control)
    front.dispatcher.tell = line.tell
    try:
        yield
    finally:
        front.dispatcher.tell = unheard
        transport.close()


def _stay() -> None:
    """Do nothing: the workers are gone, and each request says so."""
