"""A fit that notes every batch, for tests that run it in attempts of a job: `python -m`, or `fitted` in ranks."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from leyden.trainer.core.callback import Callback
from tests.support.lines import Line, points, quiet_trainer, weights_of


class Noting(Callback):
    """Writes (attempt, step, samples) of every batch to `<root>/steps-<rank>`, and says when twenty steps are done."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        with (self.root / f"steps-{trainer.global_rank}").open("a") as file:
            file.write(json.dumps([int(os.environ.get("LEYDEN_ATTEMPT", "0")), trainer.global_step, batch[0].tolist()]) + "\n")
        if trainer.global_step == 20:
            print("running", flush=True)  # noqa: T201 - what the test waits for


def fitted(root: Path, total: int, options: dict[str, Any]) -> tuple[int, list[float]]:
    """Fit for `total` steps, -1 is without end; return the steps and the weights."""
    trainer = quiet_trainer(root, max_epochs=-1, max_steps=total, callbacks=[Noting(root)], enable_checkpointing=False, **options)
    module = Line()
    trainer.fit(module, points(shuffle=True), points(8))
    return trainer.global_step, weights_of(module)


def continued(root: Path, total: int, options: dict[str, Any]) -> list[tuple[int, list[float]]]:
    """Return how the job's next attempt ends, and how the same fit ends unbroken outside of jobs."""
    next_attempt = fitted(root, total, options)
    for name in [name for name in os.environ if name.startswith("LEYDEN_")]:
        del os.environ[name]
    return [next_attempt, fitted(root / "unbroken", total, options)]


if __name__ == "__main__":
    fitted(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
    (Path(sys.argv[1]) / "ended").touch()
