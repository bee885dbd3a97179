"""Seeding at its documented path."""

from leyden.fabric.utilities.seed import isolate_rng, pl_worker_init_function, reset_seed, seed_everything

__all__ = ["isolate_rng", "pl_worker_init_function", "reset_seed", "seed_everything"]
