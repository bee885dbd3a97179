"""Seeding at its documented path."""

from leyden.fabric.rng import isolate_rng as isolate_rng
from leyden.fabric.rng import pl_worker_init_function as pl_worker_init_function
from leyden.fabric.rng import reset_seed as reset_seed
from leyden.fabric.rng import seed_everything as seed_everything
