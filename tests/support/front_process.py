"""A front end in a process of its own: `python -m tests.support.front_process LISTENER CONTROL DRAIN_TIMEOUT`, both inherited."""

import socket
import sys

from leyden.serve.config import ApiConfig, Secrets, ServerConfig
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.front.process import FrontProcess

if __name__ == "__main__":
    listener, control = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    config = ServerConfig(
        apis=(ApiConfig(), ApiConfig(path="/stream", is_stream=True)),
        secrets=Secrets(shutdown_key="stop"),
        drain_timeout=float(sys.argv[3]),
    )
    FrontProcess(FrontEnd(config), listener, control, {"log_level": "warning", "access_log": False}).run()
