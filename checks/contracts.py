"""Import contracts of our own, for what import-linter has no type for; `[tool.importlinter]` in pyproject.toml uses them.

- `TorchFree`: no chain of imports leads from a part to torch. A part that does not exist yet is fine.
- `FrontDoors`: a part is used from outside through its package or the modules it names as doors.
- `BySiblings`: inside a part, a module imports modules, never the `__init__` of a sibling package (which would load all of it).

The lazy root `leyden/__init__.py` names everything and imports nothing until it is asked, so chains through it do not count.
"""

from fnmatch import fnmatchcase

import grimp
from importlinter import Contract, ContractCheck, fields, output


class TorchFree(Contract):
    """No chain of imports leads from `parts` to `forbidden`."""

    type_name = "torch_free"
    parts = fields.ListField(subfield=fields.StringField())
    forbidden = fields.ListField(subfield=fields.StringField())

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - import-linter's signature
        """Look for the shortest chain from each part."""
        for imported in graph.find_modules_directly_imported_by("leyden"):
            graph.remove_import(importer="leyden", imported=imported)
        there = [name for name in self.forbidden if name in graph.modules]  # pyrefly: ignore - a field holds its parsed value
        parts = [part for part in self.parts if part in graph.modules]  # pyrefly: ignore - the same
        chains = [chain for part in parts for name in there for chain in graph.find_shortest_chains(part, name)]
        return ContractCheck(kept=not chains, metadata={"lines": sorted(" -> ".join(chain) for chain in chains)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the chains."""
        _print_lines(check)


class FrontDoors(Contract):
    """Who is outside a part imports the part's package or one of its `doors` (patterns), and nothing else of it."""

    type_name = "front_doors"
    root = fields.StringField()
    doors = fields.ListField(subfield=fields.StringField())

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - import-linter's signature
        """Look at each import between two parts."""
        lines = []
        for importer, imported in _imports(graph, self.root):
            part = _part(imported)
            if _part(importer) == part or imported in (self.root, part):
                continue
            if not any(fnmatchcase(imported, door) for door in self.doors):  # pyrefly: ignore - a field holds its parsed value
                lines.append(f"{importer} imports {imported}: use {part}, or name the module as a door")
        return ContractCheck(kept=not lines, metadata={"lines": sorted(lines)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the imports past the doors."""
        _print_lines(check)


class BySiblings(Contract):
    """Inside a part nobody imports the `__init__` of a package: siblings are imported by module."""

    type_name = "siblings_by_module"
    root = fields.StringField()

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - import-linter's signature
        """Look at each import inside a part."""
        lines = [
            f"{importer} imports the package {imported}: import the module that defines the name"
            for importer, imported in _imports(graph, self.root)
            if _part(importer) == _part(imported) and graph.find_children(imported) and not _is_package(graph, importer)
        ]
        return ContractCheck(kept=not lines, metadata={"lines": sorted(lines)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the imports of packages."""
        _print_lines(check)


def _imports(graph: grimp.ImportGraph, root: object) -> list[tuple[str, str]]:
    pairs = ((module, imported) for module in graph.modules for imported in graph.find_modules_directly_imported_by(module))
    return [(module, imported) for module, imported in pairs if imported.startswith(f"{root}.") and module.startswith(f"{root}.")]


def _part(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _is_package(graph: grimp.ImportGraph, module: str) -> bool:
    return bool(graph.find_children(module))  # an __init__ that re-exports may name packages


def _print_lines(check: ContractCheck) -> None:
    for line in check.metadata["lines"]:
        output.print_error(line)
    output.new_line()
