"""A fit in processes that Trainer starts itself: what `test_launched_fits` starts in some way, and looks at afterwards."""

import json
import sys
from pathlib import Path
from typing import Any

from leyden.trainer.callbacks import EarlyStopping, ModelCheckpoint
from leyden.trainer.core.callback import Callback
from tests.support.lines import Line, points, quiet_trainer, weights_of


class Counting(Callback):
    """Has state, and an attribute that is none."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]


def fitted(root: Path, strategy: str, **options: Any) -> dict[str, Any]:
    """Fit, test and predict on two ranks; return everything that a user would look at afterwards."""
    counting, stopping, saver = Counting(), EarlyStopping("val_loss", patience=9), ModelCheckpoint(root / strategy, monitor="val_loss")
    trainer = quiet_trainer(root, strategy=strategy, devices=2, callbacks=[counting, stopping, saver], **options)
    module = Line()
    trainer.fit(module, points(), points(8))
    return {
        "weights": weights_of(module),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "logged": sorted(trainer.logged_metrics),
        "place": [trainer.global_step, trainer.current_epoch, str(trainer.state.status), trainer.state.finished],
        "batches": counting.batches,
        "best": [stopping.best_score.item(), Path(saver.best_model_path).name, float(saver.best_model_score or 0)],
        "tested": trainer.test(dataloaders=points(8), verbose=False),
        "predicted": [list(output.shape) for output in trainer.predict(module, points(8)) or []],
    }


def main() -> None:
    """Fit as the command line says, and write down what rank 0 found."""
    root, strategy = Path(sys.argv[1]), sys.argv[2]
    found = fitted(root, strategy)
    (root / f"found-{strategy}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
