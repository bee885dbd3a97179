"""`leyden serve` as users run it: files in packages and in other folders, options, mistakes, and starting again on changes."""

import os
import signal
from pathlib import Path

from leyden.serve.command.docker import PROBE
from tests.support.served import commanded, ready
from tests.support.user_files import write

MODEL = """
class Model:
    def __call__(self, x):
        return x**2
"""
SERVER = """
import os
import leyden.serve as ls
from .model import Model

class Squares(ls.LitAPI):
    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return os.getpid() if x == "pid" else self.model(x)

    def encode_response(self, output):
        return {"output": output, "module": type(self).__module__}

server = ls.LitServer(Squares(), accelerator="no-such-device", timeout=7)

@server.app.get("/extra")
def extra():
    return {"extra": 1}

if __name__ == "__main__":
    raise AssertionError("it does not run")
"""
VERSION = """
import leyden.serve as ls

class Version(ls.LitAPI):
    def predict(self, x):
        return {version}
"""


def test_a_file_of_a_package_in_another_folder_is_served_with_options(tmp_path: Path) -> None:
    write(tmp_path, **{"shop/__init__": "", "shop/models/__init__": "", "shop/models/model": MODEL, "shop/models/server": SERVER})
    with commanded(str(tmp_path / "shop/models/server.py"), "--accelerator", "cpu", "--workers-per-device", "2") as script:
        server = ready(script)
        assert server.post(4).json() == {"output": 16, "module": "shop.models.server"}
        assert server.get("/extra").json() == {"extra": 1}
        facts = server.get("/info").json()["server"]
        assert (facts["workers_per_device"], facts["timeout"], facts["devices"]) == (2, 7, ["cpu"])
        exec(PROBE.format(port=server.url.rpartition(":")[2]), {})  # what an image asks: it raises unless the server is ready
        pids = {server.post("pid").json()["output"] for _ in range(20)}
        assert len(pids) == 2
        os.kill(pids.pop(), signal.SIGKILL)
        script.wait_for(lambda: server.get("/health").status_code == 200 and "is gone" in script.stderr, "started again")
        assert not {server.post("pid").json()["output"] for _ in range(20)} <= pids, "a worker that comes later imports the file too"
        assert '"POST /predict HTTP/1.1" 200' in script.stdout + script.stderr
        script.send(signal.SIGTERM)
        assert script.wait().code == 0
        script.wait_until_gone()
        assert [path.name for path in script.folder.glob("*.py")] == ["script.py"], "no client.py"


def test_a_module_and_a_name_are_served_from_the_current_folder(tmp_path: Path) -> None:
    source = VERSION.format(version=1) + "\ndef build():\n    return ls.LitServer([Version(), Version(api_path='/b')], accelerator='cpu')\n"
    with commanded("deep.server:build", "--no-access-log") as script:
        write(script.folder, **{"deep/server": source})  # a folder without __init__.py
        server = ready(script)
        assert [server.post(1, path).json() for path in ("/predict", "/b")] == [1, 1]
        assert '"POST /predict' not in script.stdout + script.stderr
        script.send(signal.SIGINT)
        assert script.wait().code == 0


def test_a_server_that_a_worker_starts_while_it_imports_the_file_is_refused(tmp_path: Path) -> None:
    source = (
        VERSION.format(version=1)
        + "\nimport multiprocessing\nif multiprocessing.parent_process():\n    ls.LitServer(Version()).run(port=0)\n"
    )
    write(tmp_path, unguarded=source)
    with commanded(str(tmp_path / "unguarded.py"), "--accelerator", "cpu") as script:
        finished = script.wait()
        assert finished.code == 1
        last = finished.stderr.splitlines()[-1]
        assert last.startswith("error: no worker of /predict could be set up, so the server stops. Loading the API raised")
        assert last.endswith('Start the server below `if __name__ == "__main__":`, because worker processes import the script.')
        assert finished.stderr.count("Traceback") == 1, "of the worker, in the log"
        script.wait_until_gone()


def test_a_changed_file_is_served_anew(tmp_path: Path) -> None:
    write(tmp_path, server=VERSION.format(version=1))
    with commanded(str(tmp_path / "server.py"), "--accelerator", "cpu", "--reload") as script:
        assert ready(script).post(0).json() == 1
        write(tmp_path, server="import helper" + VERSION.format(version="helper.number"))
        script.wait_for_output("The server has ended. It starts again when a file changes.")
        assert "server.py changed: the server starts again." in script.stdout
        assert "error: server.py, line 1: ModuleNotFoundError: No module named 'helper'" in script.stderr
        write(tmp_path, helper="number = 22")
        assert ready(script, 2).post(0).json() == 22
        assert len(script.descendants()) >= 3
        script.send(signal.SIGTERM)
        assert script.wait().code == 0
        script.wait_until_gone()


def test_nothing_outlives_a_reloader_that_was_killed(tmp_path: Path) -> None:
    write(tmp_path, server=VERSION.format(version=1))
    with commanded(str(tmp_path / "server.py"), "--accelerator", "cpu", "--reload") as script:
        ready(script)
        script.send(signal.SIGKILL)
        assert script.wait_until_gone(10) < 5
