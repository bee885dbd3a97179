"""Where a script makes its server, found by reading it: below its guard, where nobody but `python server.py` sees it, or above."""

import ast
from pathlib import Path
from typing import NamedTuple


class Servers(NamedTuple):
    """Where `LitServer(…)` is called in a script.

    Args:
        below_guard: Below `if __name__ == "__main__":`.
        in_functions: In functions that do not say that they return one.
        elsewhere: At its top level, or in a function that does.
    """

    below_guard: bool
    in_functions: bool
    elsewhere: bool

    @property
    def are_unseen(self) -> bool:
        """Whether there are some, and none that is found."""
        return (self.below_guard or self.in_functions) and not self.elsewhere


def servers_in(path: Path) -> Servers:
    """Return where a script makes its server.

    Args:
        path: Of the script; it can be parsed.
    """
    tree = ast.parse(path.read_bytes())
    making = [node for node in tree.body if _makes_server(node)]
    guards = [node for node in making if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)]
    silent = [node for node in making if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _says_so(node)]
    return Servers(bool(guards), bool(silent), len(making) > len(guards) + len(silent))


def _says_so(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return function.returns is not None and "LitServer" in ast.unparse(function.returns)


def _makes_server(block: ast.stmt) -> bool:
    calls = [node.func for node in ast.walk(block) if isinstance(node, ast.Call)]
    return any("LitServer" in (getattr(func, "id", ""), getattr(func, "attr", "")) for func in calls)


def unseen(path: Path, name: str) -> str:
    """Return what a user is told whose server nobody finds.

    Args:
        path: Of the script.
        name: What is served instead.
    """
    return (
        f'{name} is served without what {path.name} gives to LitServer below `if __name__ == "__main__":` or in a function, which do not '
        "run here. Move server = LitServer(…) to the top level, above that line, to have it; or return it from `def build() -> LitServer`."
    )
