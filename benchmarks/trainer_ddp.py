"""A DDP step of `Trainer` on two gloo ranks makes no collective but the reduction of gradients; a logged row makes one.

Collectives are those that gloo counts in the default group, per step: (220 steps - 20 steps) / 200. CPU time is that of both
ranks, gloo's threads included, which is what varies most; it is shown, but the collectives decide.
"""

import sys
from typing import Any

from benchmarks.fits import FEW, MANY, Batches, fit
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.ranks import on_ranks, slowest
from benchmarks.training import network, train

STEPS, EPOCHS = 400, 3
NUM_LOGGED = 2


def _num_collectives() -> int:
    """Return how many collectives gloo has counted."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_group()._get_sequence_number_for_group()


def _module(base: Any, *, num_logged: int) -> Any:
    from torch.nn.functional import cross_entropy

    class Small(base):
        def __init__(self) -> None:
            super().__init__()
            self.model, self._optimizer = network()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            inputs, targets = batch
            loss = cross_entropy(self.model(inputs), targets)
            for number in range(num_logged):
                self.log(f"loss{number}", loss, on_step=True, sync_dist=True)
            return loss

        def configure_optimizers(self) -> Any:
            return self._optimizer

    return Small()


def _cost(run: Any, steps: int) -> dict[str, float]:
    """Return the CPU time of an epoch, and the collectives of a step.

    Args:
        run: Trains over the given batches so many epochs.
        steps: The batches of an epoch.
    """

    def collectives(count: int) -> int:
        run(Batches(count), 1)
        before = _num_collectives()
        run(Batches(count), 1)
        return _num_collectives() - before

    timed = Batches(steps)
    run(timed, EPOCHS + 2)
    return {"seconds": timed.fastest(), "collectives": (collectives(MANY) - collectives(FEW)) / (MANY - FEW)}


def raw_rank(steps: int) -> dict[str, float]:
    """Measure torch's DDP."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    model, optimizer = network()
    wrapped = DistributedDataParallel(model)

    def run(data: Any, epochs: int) -> None:
        for _ in range(epochs):
            train(wrapped, optimizer, data, torch.Tensor.backward)

    result = _cost(run, steps)
    dist.destroy_process_group()
    return result


def leyden_rank(steps: int, num_logged: int) -> dict[str, float]:
    """Measure Leyden's `Trainer(strategy="ddp")`."""
    from leyden.trainer import LightningModule, Trainer
    from leyden.trainer.loggers import DummyLogger

    settings = {"logger": DummyLogger(), "log_every_n_steps": 1} if num_logged else {}
    return _cost(lambda data, epochs: _fit(Trainer, _module(LightningModule, num_logged=num_logged), data, epochs, settings), steps)


def lightning_rank(steps: int, num_logged: int) -> dict[str, float]:
    """Measure Lightning's `Trainer(strategy="ddp")`."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers.logger import DummyLogger

    settings = {"logger": DummyLogger(), "log_every_n_steps": 1} if num_logged else {}
    return _cost(lambda data, epochs: _fit(Trainer, _module(LightningModule, num_logged=num_logged), data, epochs, settings), steps)


def _fit(trainer: Any, module: Any, data: Any, epochs: int, settings: dict[str, Any]) -> None:
    fit(trainer, module, data, epochs=epochs, devices=2, strategy="ddp", **settings)


def _summed(results: list[dict[str, float]]) -> dict[str, float]:
    return {**slowest(results), "seconds": sum(result["seconds"] for result in results)}


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure torch's DDP on two ranks."""
    return _summed(on_ranks(raw_rank, steps))


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure Leyden on two ranks."""
    return _summed(on_ranks(leyden_rank, steps, 0))


def leyden_logging(steps: int = STEPS) -> dict[str, float]:
    """Measure Leyden on two ranks that log two reduced values at each step."""
    return _summed(on_ranks(leyden_rank, steps, NUM_LOGGED))


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure Lightning on two ranks."""
    return _summed(on_ranks(lightning_rank, steps, 0))


def lightning_logging(steps: int = STEPS) -> dict[str, float]:
    """Measure Lightning on two ranks that log two reduced values at each step."""
    return _summed(on_ranks(lightning_rank, steps, NUM_LOGGED))


BENCHMARK = Benchmark(
    claim="a step of `Trainer(strategy='ddp')` on two ranks makes the one collective of its gradients, and one more if it writes a row",
    variants={
        "raw": Variant(run=raw, cores=2),
        "leyden": Variant(run=leyden, cores=2),
        "leyden logging": Variant(run=leyden_logging, cores=2),
        "lightning": Variant(run=lightning, peer="lightning", cores=2),
        "lightning logging": Variant(run=lightning_logging, peer="lightning", cores=2),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", metric="collectives", limit=1.0),
        Comparison(of="leyden logging", to="raw", metric="collectives", limit=2.0),
        Comparison(of="lightning", to="raw", metric="collectives"),
        Comparison(of="lightning logging", to="raw", metric="collectives"),
        Comparison(of="leyden", to="raw"),
        Comparison(of="leyden logging", to="raw"),
        Comparison(of="lightning", to="raw"),
        Comparison(of="lightning logging", to="raw"),
    ],
    rounds=7,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_ddp"))
