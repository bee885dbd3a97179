"""`make demo`: train for real on one and on two processes, kill a run with -9, resume it, draw curves, serve what was trained.

Everything is written to `runs/demo` (or the folder given): losses, checkpoints, and `curves.png`.
"""

import asyncio
import contextlib
import csv
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

HERE = Path(__file__).parent / "fabric"
TRAINER = Path(__file__).parent / "trainer"
SERVE = Path(__file__).parent / "serve"
BYTE_STEPS, MODEL_STEPS = 100, 200
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
STEP = re.compile(r"step +(\d+)/(\d+)")


def main(out: Path) -> None:
    """Run every part and say where the results lie."""
    start = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    digits, text = out / "digits", out / "bytes"
    curves = same_curve(digits)
    kill_and_resume(digits, curves["ddp on 2"])
    byte_curves = language_model(text)
    rows = trainer(out)
    serve(out)
    picture = draw(curves, byte_curves, rows, out / "curves.png")
    shown = out.resolve().relative_to(Path.cwd()) if out.resolve().is_relative_to(Path.cwd()) else out
    print(f"\nDone in {time.monotonic() - start:.0f} s. Losses and checkpoints: {shown}/   curves: {shown / picture.name}")
    print(f"Look into a checkpoint: leyden ckpt inspect {shown}/language_model/version_0/checkpoints/last.ckpt")
    print(f"Look into the text that was streamed: leyden data inspect {shown}/bytes/text")
    print(f"Draw a digit in your browser: python {SERVE.parent.name}/serve/05_page.py --runs {shown}   http://localhost:8000/page")


def same_curve(out: Path) -> dict[str, list[float]]:
    """Train the digits network as a raw loop, on one process, and on two with two strategies; compare the losses."""
    title("1  The same loss curve: raw loop, one process, ddp on two, fsdp on two (scikit-learn's digits, 10 epochs)")
    torch.set_num_threads(1)
    raw_loop = module_at(HERE / "01_digits_raw.py")
    raw_loop.main(out / "raw.json")
    raw_loop.main(out / "raw64.json", torch.float64)
    curves = {"raw loop": read_json(out / "raw.json")}
    for name, arguments in {
        "fabric on 1": [],
        "ddp on 2": ["--devices", "2", "--strategy", "ddp"],
        "fsdp on 2": ["--devices", "2", "--strategy", "fsdp"],
        "ddp on 2, float64": ["--devices", "2", "--strategy", "ddp", "--precision", "64-true"],
    }.items():
        run("01_digits.py", "--out", str(out), "--name", slug(name), *arguments, label=name)
        curves[name] = read_column(out / slug(name) / "metrics.csv", "loss")
    raw64, ours64 = read_json(out / "raw64.json"), curves.pop("ddp on 2, float64")
    print(f"\n{'largest relative difference from the raw loop':58}{'allowed':>10}")
    for name in ("fabric on 1", "ddp on 2", "fsdp on 2"):
        report(name, difference(curves[name], curves["raw loop"]), 1e-5)
    report("ddp on 2, float64", difference(ours64, raw64), 1e-12)
    return curves


def kill_and_resume(out: Path, unbroken: list[float]) -> None:
    """Kill both processes of a run at a random step with -9, resume, and compare every loss with the unbroken run, bit for bit."""
    target = random.randrange(60, 200)
    title(f"2  kill -9 at step {target}, then resume: the losses must equal the unbroken run's, bit for bit")
    arguments = ("01_digits.py", "--out", str(out), "--name", "killed", "--devices", "2", "--strategy", "ddp")
    run(*arguments, label="killed", kill_at=target)
    run(*arguments, "--resume", label="resumed")
    losses = read_column(out / "killed" / "metrics.csv", "loss")
    if losses != unbroken:
        first = next((i for i, (a, b) in enumerate(zip(losses, unbroken, strict=False)) if a != b), min(len(losses), len(unbroken)))
        raise SystemExit(f"the resumed run differs from the unbroken one at step {first + 1} ({len(losses)} and {len(unbroken)} steps)")
    print(f"all {len(losses)} losses are equal, bit for bit")


def language_model(out: Path) -> dict[str, list[float]]:
    """Train the byte-level language model on one process and sharded over two, on text that is streamed from disk."""
    title("3  A byte-level language model on the Python standard library, written as tokens and streamed: one process, sharded over two")
    curves = {}
    for name, arguments in {"one process": [], "fsdp": ["--devices", "2", "--strategy", "fsdp"]}.items():
        run("02_bytes.py", "--out", str(out), "--name", slug(name), "--steps", str(BYTE_STEPS), *arguments, label=name)
        curves[name] = read_column(out / slug(name) / "metrics.csv", "bits_per_byte")
    report("fsdp on two", difference(curves["fsdp"], curves["one process"]), 1e-3)
    return curves


def trainer(out: Path) -> Path:
    """Train a language model with Trainer, its bar and its summary shown as they are; return the file of its rows."""
    title("4  Trainer: a module, one call of fit; its summary, its progress bar, checkpoints of the best and of the last step")
    command = [sys.executable, str(TRAINER / "04_language_model.py"), "--steps", str(MODEL_STEPS), "--out", str(out)]
    sys.stdout.flush()
    if code := subprocess.run(command, env=ENVIRONMENT, check=False).returncode:
        raise SystemExit(f"04_language_model.py failed with exit code {code}")
    folder = out / "language_model" / "version_0"
    print("checkpoints:", *sorted(path.name for path in (folder / "checkpoints").iterdir()))
    return folder / "metrics.csv"


def serve(out: Path) -> None:
    """Serve both models in one server, send it requests one by one, many at once, and as a stream; stop it by SIGTERM."""
    title("5  Serve: both models in one server; single requests, many that are computed in batches, a stream; then SIGTERM")
    pixels, labels = load_digits(return_X_y=True)
    images = [{"image": image.tolist()} for image in pixels[1500:]]
    with server(SERVE / "05_page.py", "--runs", str(out)) as url, httpx.Client(base_url=url, timeout=30) as client:
        answers = [post(client, image) for image in images]
        print(f"/digits is sent {images[0]['image'][:8]}…, a {labels[1500]}, and answers {answers[0].text}")
        milliseconds = statistics.median(answer.elapsed.total_seconds() for answer in answers) * 1e3
        print(f"one by one: {len(answers)} requests, p50 {milliseconds:.2f} ms, this client included")
        before, start = batches(client), time.perf_counter()
        together = asyncio.run(post_all(client.base_url, images * 8))
        seconds, size = time.perf_counter() - start, len(together) / (batches(client) - before)
        right = sum(answer["digit"] == label for answer, label in zip(together, labels[1500:].tolist() * 8, strict=True)) / len(together)
        print(f"32 at once: {len(together)} requests, {len(together) / seconds:.0f}/s, {size:.1f} in a batch, {right:.1%} right")
        write(client)


def write(client: httpx.Client) -> None:
    """Show a text as it is written."""
    start, first, pieces = time.perf_counter(), 0.0, list[str]()
    with client.stream("POST", "/write", json={"prompt": "def ", "count": 240, "temperature": 0.6}) as stream:
        for piece in stream.iter_text():
            first = first or time.perf_counter() - start
            pieces.append(piece)
    seconds = time.perf_counter() - start
    print(f"/write streams: {len(pieces)} pieces, the first after {first * 1e3:.1f} ms, {240 / seconds:.0f} bytes/s\ndef {''.join(pieces)}")


def post(client: httpx.Client, image: dict[str, list[float]]) -> httpx.Response:
    """Send a digit, and return the answer, which must be one."""
    return client.post("/digits", json=image).raise_for_status()


async def post_all(url: httpx.URL, images: list[dict[str, list[float]]]) -> list[dict[str, float]]:
    """Send digits over 32 connections, and return the answers; by hand, as an HTTP library would take longer than the server."""
    answers = await asyncio.gather(*(post_some(url, images[number::32]) for number in range(32)))
    return [answers[number % 32][number // 32] for number in range(len(images))]


async def post_some(url: httpx.URL, images: list[dict[str, list[float]]]) -> list[dict[str, float]]:
    """Send digits over one connection, one after the other."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    answers = []
    for image in images:
        body = json.dumps(image).encode()
        writer.write(b"POST /digits HTTP/1.1\r\nhost: demo\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        answers.append(json.loads(await reader.readexactly(int(re.findall(r"content-length: (\d+)", head)[0]))))
    writer.close()
    return answers


def batches(client: httpx.Client) -> float:
    """Return how many batches of digits were computed."""
    return float(re.findall(r'batch_size_count{api="/digits"} (\S+)', client.get("/metrics").text)[0])


@contextlib.contextmanager
def server(script: Path, *arguments: str) -> Iterator[str]:
    """Start a server on a free port, and give its URL when it is ready; afterwards stop it by SIGTERM."""
    command = [sys.executable, str(script), *arguments, "--port", "0"]
    start, lines = time.monotonic(), list[str]()
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            lines.append(line)
            if ready := re.search(r"Leyden serves .* at (http\S+)", line):
                url = ready[1]
                break
        try:
            if url:
                print(f"{line.strip()}, ready after {time.monotonic() - start:.1f} s")
                threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True).start()  # its log does not fill the pipe
                yield url
                start = time.monotonic()
        finally:
            process.terminate()
        if not url or process.wait() != 0:
            raise SystemExit(f"{script.name} failed with exit code {process.wait()}:\n{''.join(lines[-30:])}")
        print(f"the server ended with exit code 0, {time.monotonic() - start:.1f} s after SIGTERM")


def run(script: str, *arguments: str, label: str, kill_at: int | None = None) -> None:
    """Run an example, show its progress on one line and the rest below it; kill it when it reaches `kill_at`."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        step = STEP.search(line)
        if step is None:
            print(line, end="")
            continue
        print(f"\r{label:>12} {line.rstrip()}", end="" if sys.stdout.isatty() else "\n", flush=True)
        if kill_at is not None and int(step[1]) >= kill_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"\n{label:>12} killed with SIGKILL after step {step[1]}")
            return
        if sys.stdout.isatty() and step[1] == step[2]:
            print()
    if process.wait() != 0:
        raise SystemExit(f"{script} failed with exit code {process.returncode}:\n{''.join(lines[-30:])}")


def draw(digits: dict[str, list[float]], text: dict[str, list[float]], rows: Path, file: Path) -> Path:
    """Draw the three sets of curves beside each other."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 4.5), layout="constrained")
    styles = zip(digits.items(), ("-", "--", "-.", ":"), (4.5, 3.0, 2.0, 1.2), strict=True)
    for (name, losses), style, width in styles:
        left.plot(range(1, len(losses) + 1), losses, style, linewidth=width, label=name)
    left.set(title="Fabric, digits: four runs, one curve", xlabel="step", ylabel="cross-entropy (nats)", yscale="log")
    for (name, bits), style, width in zip(text.items(), ("-", "--"), (3.0, 1.5), strict=True):
        middle.plot(range(1, len(bits) + 1), bits, style, linewidth=width, label=name)
    middle.set(title="Fabric, Python's standard library, byte by byte", xlabel="step", ylabel="bits per byte")
    for name, style in (("train/bits", "-"), ("val/bits", "o--")):
        right.plot(read_column(rows, "step", beside=name), read_column(rows, name), style, label=name)
    right.set(title="Trainer, the same text", xlabel="step", ylabel="bits per byte")
    rates = right.twinx()
    rates.plot(read_column(rows, "step", beside="lr-AdamW"), read_column(rows, "lr-AdamW"), color="grey", linewidth=1)
    rates.set_ylabel("learning rate (grey)")
    rates.set_ylim(bottom=0)
    for axes in (left, middle, right):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(file, dpi=120)
    return file


def difference(ours: list[float], expected: list[float]) -> float:
    """Return the largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, expected, strict=True))


def report(name: str, found: float, allowed: float) -> None:
    """Print a difference beside what is allowed; stop the demo where it is larger."""
    print(f"  {name:50}{found:12.1e}{allowed:10.0e}")
    if not found <= allowed:
        raise SystemExit(f"{name}: the difference {found:.1e} is larger than {allowed:.0e}")


def read_column(file: Path, name: str, beside: str | None = None) -> list[float]:
    """Return a column of a metrics file, rows without it, or without the one beside it, left out."""
    with file.open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows) if row[beside or name]]


def read_json(file: Path) -> list[float]:
    """Return the losses of the raw loop."""
    return json.loads(file.read_text())["losses"]


def module_at(file: Path) -> object:
    """Import a script whose name is no identifier."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slug(name: str) -> str:
    """Return a folder name."""
    return re.sub(r"\W+", "_", name)


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
