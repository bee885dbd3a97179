"""Two models in one server, and a page in the browser that talks to both: it draws digits, and shows a text as it is written.

    python examples/serve/05_page.py                        # with the checkpoints of `make demo`; without them it trains first
    open http://localhost:8000/page

`server.app` is a FastAPI app, so pages, files and routes of your own stand beside the models.
"""

import importlib
from pathlib import Path

from fastapi.responses import FileResponse

import leyden.serve as ls

digits, texts = importlib.import_module("01_digits"), importlib.import_module("02_bytes")
PAGE = Path(__file__).with_name("page.html")


def server_of(runs: Path) -> ls.LitServer:
    """Return the server: both models, each with a process of its own, and the page."""
    models = [digits.Digits(digits.checkpoint_of(runs)), texts.Writer(texts.checkpoint_of(runs))]
    server = ls.LitServer(models, timeout=10, deadline=120)

    @server.app.get("/page")
    def page() -> FileResponse:
        return FileResponse(PAGE)

    return server


if __name__ == "__main__":
    args = digits.arguments().parse_args()
    server_of(args.runs).run(host="127.0.0.1", port=args.port, generate_client_file=False)
