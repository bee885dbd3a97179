"""What the short way relies on in uvicorn's class beyond its public settings, and whether it is all there."""

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

RELIED_ON: Final = (
    "on_message_begin on_url on_header on_headers_complete on_body on_message_complete on_response_complete connection_made "
    "connection_lost data_received send_400_response handle_websocket_upgrade _unsupported_upgrade_warning shutdown pause_writing "
    "resume_writing url headers parser cycle pipeline transport flow connections server_state expect_100_continue access_log "
    "access_logger limit_concurrency client config"
)


def missing() -> list[str]:
    """Return which names of uvicorn's class the short way relies on, and are not there."""
    config = uvicorn.Config(_no_app, log_config=None, lifespan="off")
    loop = asyncio.new_event_loop()
    try:
        found = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    finally:
        loop.close()
    found.on_message_begin()
    lacking = [str(name) for name in RELIED_ON.split() if not hasattr(found, name)]
    return lacking if hasattr(found.server_state, "default_headers") else [*lacking, "server_state.default_headers"]


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""
