"""Records: nested samples of numbers, text and arrays; some of the columns, samples by key, tables, and what the files hold.

    python examples/data/03_records.py

No tensor is made here, so torch is never imported: `output="numpy"`.
"""

import argparse
import ast
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import leyden.data as ld

Sample = dict[str, Any]


def functions_of(file: str) -> Iterator[Sample]:
    """Yield a record of each documented function of a source file; a file without any yields none."""
    source = Path(file).read_text(encoding="utf-8", errors="replace")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            body = lines[node.lineno - 1 : node.end_lineno]
            yield {
                "name": node.name,
                "place": {"file": Path(file).name, "line": node.lineno},
                "doc": text,
                "arguments": [argument.arg for argument in node.args.args],
                "widths": np.array([len(line) for line in body], np.int32),  # of any length
                "is_private": node.name.startswith("_"),
            }


def key_of(record: Sample) -> str:
    """Return what a record is found by."""
    return f"{record['place']['file']}:{record['place']['line']}"


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Write the records, and read them in several ways; return what was found."""
    files = sorted(map(str, Path(sysconfig.get_path("stdlib")).glob("*.py")))[: args.files]
    folder = str(Path(args.out) / "records")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run, which has a second version
    report = ld.optimize(functions_of, files, folder, num_workers=args.workers, key_fn=key_of, compression="zstd")
    print(f"{report.num_rows:,} functions of {len(files)} files, {report.num_bytes:,} bytes, {report.seconds:.1f} s")

    records = ld.StreamingDataset(folder, shuffle=True, output="numpy")
    first = records[0]
    again = records.get_by_key(key_of(first))  # or records["ast.py:33"]
    print(f"by number and by key: {first['name']} in {key_of(first)}, {len(first['widths'])} lines; same: {again['doc'] == first['doc']}")

    # Some columns: the others are neither checked nor decoded.
    names = ld.StreamingDataset(folder, columns=["name", "is_private"], output="numpy")
    table = names.take(slice(None))  # columns at once
    print(f"{int(table['is_private'].sum()):,} of {len(table['name']):,} functions are private")

    # Batches of arrays that differ in length: lists, or padded to the longest.
    with ld.StreamingDataLoader(records, batch_size=100, num_workers=args.workers, ragged=0) as loader:
        longest = max(batch["widths"].shape[1] for batch in loader)
    print(f"the longest function has {longest} lines")

    # A second version; who reads the first one is not disturbed.
    more = ld.optimize(functions_of, [__file__], folder, num_workers=0, key_fn=key_of, compression="zstd", mode="append")
    old, new = (ld.StreamingDataset(folder, version=version, output="numpy") for version in (1, 2))
    print(f"version {more.version}: {new.num_rows:,} rows, of which {new.num_rows - old.num_rows} are of this file: {new[-1]['name']}")
    found = ld.inspect(folder, rows=2)
    print("", *found.lines(), sep="\n")  # what `leyden data inspect` prints
    return {"rows": (old.num_rows, new.num_rows), "longest": longest, "faults": len(ld.verify(folder).faults)}


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="runs/data")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
