"""Runs a claim beside its peers: interleaved rounds in fresh processes, ratios of medians with their spread, one JSON file.

A benchmark is a module `benchmarks/<part>_<what>.py`; README.md beside this file shows one. Ideas:

- Only ratios from one run mean anything: machines differ by more than any claim. Rounds go A B C, B C A, …, so that a
  machine that slows down slows all of them.
- Every measurement is a fresh process with one thread on one core, in the peer's own environment where it is a peer's.
- A worker's module is imported in environments without Leyden, so this file needs the standard library alone.
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
PEERS_FOLDER = ROOT / ".cache/peers"
SERVERS_FOLDER = ROOT / "benchmarks/serve_peers"
PEERS = {  # name -> what is installed beside torch in its environment
    "lightning": ("lightning==2.6.6",),
    "accelerate": ("accelerate==1.15.0",),
    "ignite": ("pytorch-ignite==0.5.5",),
    "litdata": ("litdata==0.2.76", "pillow", "zstd", "pyarrow", "cryptography"),
    "mosaicml": ("mosaicml-streaming==0.13.0", "numpy==2.1.3"),
    "webdataset": ("webdataset==1.0.2",),
    "datasets": ("datasets==5.2.0",),
    **{
        name: tuple((SERVERS_FOLDER / name / "requirements.txt").read_text(encoding="utf-8").split())
        for name in ("fastapi", "litserve", "mosec")
    },
}
SHARED_PINS = ("torch", "numpy")  # the same in all environments; a peer's other dependencies are its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One contestant of a benchmark.

    Args:
        run: Measures once and returns metric → number; it imports what it needs when it is called. It gets `Benchmark.seconds`,
            if there are any.
        peer: The environment it runs in, a key of `PEERS`; `None` is Leyden's own.
        cores: How many cores its processes share; `None` leaves them all.
    """

    run: Callable[..., Mapping[str, float]]
    peer: str | None = None
    cores: int | None = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is claimed: `of` takes at most `limit` times what `to` takes; without a limit it is only shown.

    Args:
        of: The variant above the line.
        to: The variant below it; `None` compares the number itself, which is a ratio already or means little elsewhere.
        metric: The number compared.
        limit: The largest value that keeps the claim.
    """

    of: str
    to: str | None = None
    metric: str = "seconds"
    limit: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A claim, who is measured for it, and which comparisons decide it.

    Args:
        claim: One sentence, as the README says it.
        variants: Name → contestant.
        comparisons: What is compared.
        rounds: How often each variant is measured, at least five.
        seconds: How long each measurement lasts, where that is to choose; `run` gets it.
    """

    claim: str
    variants: Mapping[str, Variant]
    comparisons: Sequence[Comparison]
    rounds: int = 5
    seconds: float | None = None


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of this process that `call()` takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main(benchmark: Benchmark, name: str, argv: Sequence[str] | None = None) -> int:
    """Run the benchmark of one module, print its comparisons and write `results/<name>.json`.

    Args:
        benchmark: The module's claim.
        name: The module's name, `benchmarks.fabric_step`, also when it runs as `__main__`.
        argv: The arguments after the module; those of this process if omitted.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=benchmark.claim)
    parser.add_argument("--rounds", type=int, default=benchmark.rounds, help="how often each variant is measured")
    parser.add_argument("--seconds", type=float, default=benchmark.seconds, help="how long a measurement lasts, where that is to choose")
    parser.add_argument("--without-peers", action="store_true", help="leave out what needs another environment")
    parser.add_argument("--peer-python", metavar="PYTHON", help="run peers with this one, which has them, not in environments of their own")
    parser.add_argument("--worker", choices=list(benchmark.variants), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        return _work(benchmark.variants[args.worker], args.seconds)
    variants = {key: variant for key, variant in benchmark.variants.items() if not (args.without_peers and variant.peer)}
    pythons = {
        key: (args.peer_python or prepare_peer(variant.peer)) if variant.peer else sys.executable for key, variant in variants.items()
    }
    seconds = None if benchmark.seconds is None else args.seconds
    values = measure(variants, lambda key: _start_worker(pythons[key], name, key, seconds), args.rounds)
    outcomes = [outcome for comparison in benchmark.comparisons if (outcome := compare(comparison, values))]
    report = {
        "name": name.rpartition(".")[2],
        "claim": benchmark.claim,
        "command": " ".join(["python", "-m", name, *(sys.argv[1:] if argv is None else argv)]),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {key: _versions(pythons[key]) for key in variants},
        "machine": {"system": platform.system(), "machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count(), "gpus": _gpus()},
        "rounds": args.rounds,
        "values": values,
        "comparisons": outcomes,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{report['name']}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{report['name']}: {benchmark.claim}", *map(_line, outcomes), sep="\n")
    return 0 if all(outcome["held"] is not False for outcome in outcomes) else 1


def measure(variants: Mapping[str, Variant], once: Callable[[str], Mapping[str, float]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return variant → metric → one value for each round; each round begins with another variant.

    Args:
        variants: Who takes part.
        once: Measures the variant of that name once.
        rounds: How many rounds.
    """
    values: dict[str, dict[str, list[float]]] = {key: {} for key in variants}
    for key in _interleaved(list(variants), rounds):
        for metric, value in once(key).items():
            values[key].setdefault(metric, []).append(float(value))
    return values


def _interleaved(keys: Sequence[str], rounds: int) -> Iterator[str]:
    for index in range(rounds):
        start = index % len(keys)
        yield from (*keys[start:], *keys[:start])


def compare(comparison: Comparison, values: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any] | None:
    """Return the ratio of the medians, and the smallest and largest ratio of one round; `None` if a side was left out."""
    above = values.get(comparison.of, {}).get(comparison.metric)
    below = [1.0] * len(above or ()) if comparison.to is None else values.get(comparison.to, {}).get(comparison.metric)
    if not above or not below:
        return None
    rounds = [a / b for a, b in zip(above, below, strict=True)]
    value = statistics.median(above) / statistics.median(below)
    held = None if comparison.limit is None else value <= comparison.limit
    numbers = {"value": round(value, 4), "low": round(min(rounds), 4), "high": round(max(rounds), 4)}
    return {**dataclasses.asdict(comparison), **numbers, "held": held}


def _line(outcome: Mapping[str, Any]) -> str:
    sides = outcome["of"] if outcome["to"] is None else f"{outcome['of']} / {outcome['to']}"
    verdict = "" if outcome["limit"] is None else f"  {'held' if outcome['held'] else 'NOT HELD'}: at most {outcome['limit']:g}"
    return f"  {outcome['metric']}: {sides} = {outcome['value']:.3f} ({outcome['low']:.3f} to {outcome['high']:.3f}){verdict}"


def prepare_peer(name: str) -> str:
    """Return the Python of a peer's environment, making it first if its requirements changed.

    Args:
        name: A key of `PEERS`.
    """
    folder = PEERS_FOLDER / name
    python, ready = folder / "bin/python", folder / ".ready"
    own = {requirement.partition("==")[0] for requirement in PEERS[name]}
    shared_names = tuple(pin for pin in SHARED_PINS if pin not in own)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split()[0] for line in lines if line.startswith(shared_names)]
    wanted = "\n".join([*pins, *PEERS[name]])
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        print(f"making the environment of the peer {name} in {folder.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        shared = folder / "constraints.txt"
        shared.write_text("\n".join(pins), encoding="utf-8")
        subprocess.run([python, "-m", "pip", "install", "-qq", "-c", shared, *shared_names, *PEERS[name]], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return str(python)


def _work(variant: Variant, seconds: float | None) -> int:
    if variant.cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: variant.cores])
    print(json.dumps(dict(variant.run() if seconds is None else variant.run(seconds))))
    return 0


def _start_worker(python: str, module: str, key: str, seconds: float | None) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    options = [] if seconds is None else [f"--seconds={seconds}"]
    result = subprocess.run(
        [python, "-m", module, "--worker", key, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"error: {module} --worker {key} ended with status {result.returncode}:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def _versions(python: str) -> dict[str, str]:
    """Return the versions in that environment of what is measured."""
    code = "import json\nfrom benchmarks.harness import installed_versions\nprint(json.dumps(installed_versions()))"
    return json.loads(subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, torch, Leyden and the peers in this environment."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", "leyden", *PEERS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()


def run_all(argv: Sequence[str]) -> int:
    """Run every benchmark in its own process; the status is 1 if a claim is not held or a benchmark fails.

    Args:
        argv: Words a module's name must contain (`step`), and options for every benchmark (`--rounds=11`).
    """
    words, options = [word for word in argv if not word.startswith("-")], [word for word in argv if word.startswith("-")]
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*_*.py") if not path.stem.startswith("_"))
    failed = []
    for name in names:
        if all(word in name for word in words):
            result = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], cwd=ROOT, check=False)
            failed += [name] if result.returncode else []
    if failed:
        print("not held:", *failed, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:]))
