"""The environment of a process inside a Leyden job, as the supervisor would set it."""

from pathlib import Path


def job_environ(root: Path, **changes: str) -> dict[str, str]:
    """Make the directories of a job below `root` and return its variables, with `changes`."""
    directories = {"LEYDEN_STEP_DIR": root / "step", "LEYDEN_OUTPUT_DIR": root / "outputs", "LEYDEN_ATTEMPT_DIR": root / "attempts" / "1"}
    for directory in directories.values():
        directory.mkdir(parents=True, exist_ok=True)
    return {
        "LEYDEN_JOB_ID": "job-1",
        "LEYDEN_JOB_NAME": "demo",
        "LEYDEN_ATTEMPT": "1",
        **{name: str(directory) for name, directory in directories.items()},
        "LEYDEN_METRICS_FILE": str(directories["LEYDEN_ATTEMPT_DIR"] / "metrics.jsonl"),
        "LEYDEN_NODE_RANK": "0",
        "LEYDEN_NUM_NODES": "1",
        "LEYDEN_NODE_ADDRESSES": "127.0.0.1",
        "LEYDEN_ACCELERATORS_PER_NODE": "0",
        "LEYDEN_GRACE_SECONDS": "60",
        "LEYDEN_INTERRUPTIBLE": "0",
        **changes,
    }
