"""`map` computes an embedding of each document and writes it to a file; killed in the middle, and run again, it goes on.

    python examples/data/06_embeddings.py
    python examples/data/06_embeddings.py --no-kill        # the same without the kill: the same files

The function gets an input and a folder. What it writes there appears in the output when the whole job is done; units of inputs that
were done before a kill are not done again, which the log of documents shows.
"""

import argparse
import ast
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import leyden.data as ld

WIDTH = 256


def embed(file: str, output_dir: str, log: str) -> None:
    """Write the embedding of a source file: counts of its names' hashes, of length one. A real model would be called here."""
    source = Path(file).read_text(encoding="utf-8", errors="replace")
    names = Counter(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    embedding = np.zeros(WIDTH, np.float32)
    for name, count in names.items():
        embedding[zlib.crc32(name.encode()) % WIDTH] += np.log1p(count)
    np.save(Path(output_dir) / f"{Path(file).stem}.npy", embedding / max(1e-9, np.linalg.norm(embedding)))
    with Path(log).open("a") as lines:
        lines.write(f"{Path(file).stem}\n")


def job(args: argparse.Namespace) -> ld.Report:
    """Embed all files: the same call whether it starts or goes on."""
    files = sorted(map(str, Path(sysconfig.get_path("stdlib")).glob("*.py")))
    out = Path(args.out)
    return ld.map(partial(embed, log=str(out / "log.txt")), files, str(out / "embeddings"), num_workers=args.workers)


def kill_half_way(args: argparse.Namespace) -> int:
    """Start the job as a program of its own, and kill it and its workers when half of the documents are done; return how many were."""
    command = [sys.executable, __file__, "--only-job", "--out", args.out, "--workers", str(args.workers)]
    half = len(list(Path(sysconfig.get_path("stdlib")).glob("*.py"))) // 2
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None and done(args) < half:
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # on a fast computer it may have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return done(args)


def done(args: argparse.Namespace) -> int:
    """Return how many documents the log holds."""
    log = Path(args.out) / "log.txt"
    return log.read_text().count("\n") if log.exists() else 0


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job, killed or not, and find neighbours; return the counts."""
    if args.only_job:
        return job(args)._asdict()
    out = Path(args.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    before = 0
    if args.kill:
        before = kill_half_way(args)
        print(f"killed with SIGKILL after {before} documents; files in the output: {len(list((out / 'embeddings').glob('*.npy')))}")
    report = job(args)
    files = sorted((out / "embeddings").glob("*.npy"))
    again = done(args) - report.num_rows
    print(f"{report.num_rows} documents, {len(files)} files, {report.seconds:.1f} s; done twice: {again} (in units that the kill cut)")

    vectors = np.stack([np.load(file) for file in files])
    near = np.argsort(-(vectors @ vectors[[file.stem for file in files].index("ast")]))[1:4]
    print("closest to ast.py:", ", ".join(f"{files[place].stem}.py" for place in near))
    return {"documents": report.num_rows, "files": len(files), "before": before, "again": again}


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only-job", action="store_true", help="what is killed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="runs/data/embeddings")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
