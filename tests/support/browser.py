"""A real browser for tests: Debian's Chromium, driven over a pipe by its own protocol, so that nothing has to be installed beside it.

https://chromedevtools.github.io/devtools-protocol/
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The last four keep it from looking for hosts that a closed network does not have.
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


class Browser:
    """One page of a browser. Use `browsing`, which leaves nothing behind."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, os.fdopen(receive, "rb")
        self._number = 0
        self._session: dict[str, str] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        os.write(self._send, json.dumps({"id": self._number, "method": method, "params": params, **self._session}).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _message(self) -> bytes:
        parts = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            assert byte, "the browser has ended"
            parts += byte
        return bytes(parts)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.ask("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is in the page; of a promise, what it becomes."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true in the page."""
        wait = f"""new Promise(resolve => {{
            const until = performance.now() + {seconds * 1000};
            const look = () => ({condition}) ? resolve(true) : performance.now() > until ? resolve(false) : setTimeout(look, 10);
            look();
        }})"""
        assert self.value(wait), f"not within {seconds} s: {condition}"

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Move the mouse through points with its button held."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser with one empty page."""
    assert CHROMIUM is not None
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="leyden-browser-", ignore_cleanup_errors=True) as folder:
        # The browser reads at 3 and writes at 4; a shell puts the pipes there.
        command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "browser", CHROMIUM, *_OPTIONS, f"--user-data-dir={folder}"]
        fds = (theirs_in, theirs_out)
        process = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        browser = None
        try:
            browser = Browser(ours_out, ours_in)
            yield browser
        finally:
            process.kill()
            process.wait()
            os.close(ours_out)
            if browser is not None:
                browser._receive.close()
