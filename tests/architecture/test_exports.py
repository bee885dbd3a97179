"""What a package exports lazily is the same in its table, its typed imports and its `__all__`, and is really there."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


def lazy_packages() -> list[str]:
    files = sorted(path for path in SOURCE.rglob("__init__.py") if "exports(" in path.read_text(encoding="utf-8"))
    return [".".join(path.parent.relative_to(SOURCE).parts) for path in files]


def parse(package: str) -> ast.Module:
    return ast.parse((SOURCE / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))


def table_of(package: str) -> dict[str, str]:
    """Return name -> absolute module of the literal table handed to `exports`."""
    calls = [node for node in ast.walk(parse(package)) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exports"]
    assert len(calls) == 1, f"{package} calls exports() {len(calls)} times"
    table = ast.literal_eval(calls[0].args[1])
    return {name: importlib.util.resolve_name(module, package) for name, module in table.items()}


def typed_imports_of(package: str) -> dict[str, str]:
    """Return name -> absolute module of the imports that only type checkers see."""
    found = {}
    for block in ast.walk(parse(package)):
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING":
            for node in block.body:
                assert isinstance(node, ast.ImportFrom), f"{package}: line {node.lineno} is not `from … import …`"
                module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                for alias in node.names:
                    assert alias.asname == alias.name, f"{package}: write `import {alias.name} as {alias.name}`, which re-exports it"
                    is_module = importlib.util.find_spec(f"{module}.{alias.name}") if _is_package(module) else None
                    found[alias.name] = f"{module}.{alias.name}" if is_module else module
    return found


def _is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


@pytest.mark.parametrize("package", lazy_packages())
def test_lazy_table_and_typed_imports_agree(package: str) -> None:
    assert typed_imports_of(package) == table_of(package)


@pytest.mark.parametrize("package", lazy_packages())
def test_every_exported_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(table_of(package)) == dir(module)
    for name in module.__all__:
        assert getattr(module, name) is not None, f"{package}.{name} is None"


@pytest.mark.parametrize("package", lazy_packages())
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018 - the access is the test
