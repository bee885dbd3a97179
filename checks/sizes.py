"""Size limits that ruff has no rule for, and waivers that give a reason: `python -m checks.sizes src tests`.

| rule | limit | a way out |
|---|---|---|
| SIZE001 | a file of more than 500 lines | its module docstring says why: a sentence that begins with "Long because" |
| SIZE002 | a class of more than 400 lines | `# noqa: SIZE002 - reason` on the line of `class` |
| SIZE003 | a class of more than 20 public methods | `# noqa: SIZE003 - reason` on the line of `class` |
| SIZE004 | a file of more than 800 lines | none; `MAY_BE_LONG` holds the one exception |
| SIZE005 | `# noqa` without rule and reason | write `# noqa: RULE - reason` |
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

LONG, TOO_LONG, CLASS_LINES, CLASS_METHODS = 500, 800, 400, 20
MAY_BE_LONG = {"src/leyden/llm/model.py"}  # an architecture read from top to bottom in one file is the point
NOQA = re.compile(r"#\s*noqa\b(.*)", re.IGNORECASE)
WAIVER = re.compile(r": [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* - \S+")


def findings(path: str, text: str) -> Iterator[str]:
    """Yield `path:line: RULE what is wrong` for one Python file."""
    lines = text.splitlines()
    tree = ast.parse(text)
    if len(lines) > TOO_LONG and path not in MAY_BE_LONG:
        yield f"{path}:1: SIZE004 {len(lines)} lines, more than {TOO_LONG}: split it by noun"
    elif len(lines) > LONG and "Long because" not in (ast.get_docstring(tree) or ""):
        yield f"{path}:1: SIZE001 {len(lines)} lines, more than {LONG}: split it, or say 'Long because …' in the module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _class_findings(path, node, lines)
    for number, comment in _comments(text):
        if (noqa := NOQA.search(comment)) and not WAIVER.match(noqa[1]):
            yield f"{path}:{number}: SIZE005 a waiver without rule and reason: write `# noqa: RULE - reason`"


def _class_findings(path: str, node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    waived = lines[node.lineno - 1].partition("# noqa:")[2]
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    methods = {
        item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_")
    }
    if length > CLASS_LINES and "SIZE002" not in waived:
        yield f"{path}:{node.lineno}: SIZE002 class {node.name} has {length} lines, more than {CLASS_LINES}"
    if len(methods) > CLASS_METHODS and "SIZE003" not in waived:
        yield f"{path}:{node.lineno}: SIZE003 class {node.name} has {len(methods)} public methods, more than {CLASS_METHODS}"


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def main(arguments: list[str]) -> int:
    """Print the findings in the Python files below the given folders, and return 1 if there are any."""
    paths = sorted(path for argument in arguments for path in Path(argument).rglob("*.py"))
    found = [finding for path in paths for finding in findings(path.as_posix(), path.read_text(encoding="utf-8"))]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
