"""Where the apps of loggers answer, and who may ask them."""

from typing import Any, final

from starlette.routing import Match, Mount

from leyden.serve.front.asgi import App, Receive, Scope, Send
from leyden.serve.front.edge import Refused
from leyden.serve.front.intake import Intake


@final
class MountedApp(Mount):
    """A mount that answers at its very path, too, where Starlette would send the client to the one with a slash.

    Args:
        path: Where.
        app: What answers.
        intake: Knows the server's keys.
    """

    def __init__(self, path: str, app: App, intake: Intake) -> None:
        super().__init__(path, app=_Guarded(app, intake))

    def matches(self, scope: Any) -> tuple[Match, Any]:
        if scope["type"] == "http" and scope["path"] == scope.get("root_path", "") + self.path:
            scope = {**scope, "path": scope["path"] + "/"}
            match, child = super().matches(scope)
            return match, {**child, "path": scope["path"]}
        return super().matches(scope)


@final
class _Guarded:
    """An app that needs the server's key, as all that is not a probe does."""

    def __init__(self, app: App, intake: Intake) -> None:
        self._app, self._intake = app, intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        if scope["type"] == "http" and (fault := self._intake.keys.refusal(headers)) is not None:
            raise Refused(fault, headers)
        await self._app(scope, receive, send)
