"""Trainer stays light and untangled: what importing it brings along, no cycle among its modules, nobody writes onto it.

Calls and collectives per step are counted in `tests/integration/trainer/test_step_weight.py`, dependencies in
`test_dependencies.py`.
"""

import ast
import graphlib
from pathlib import Path

import grimp
import pytest

from leyden.trainer import Trainer
from leyden.trainer.demos.boring_classes import BoringModel
from tests.architecture.test_import_weight import loaded, modules_after

SOURCE = Path(__file__).parents[2] / "src/leyden/trainer"
BOTH_CLASSES = "from leyden.trainer import LightningModule, Trainer"
FORBIDDEN = (
    "torch._dynamo", "torch.distributed", "torch.utils.tensorboard", "numpy", "torchmetrics", "rich", "tqdm", "jsonargparse", "tensorboard",
    "wandb", "mlflow", "deepspeed", "torchao", "bitsandbytes", "obstore", "yaml", "leyden.trainer.cli", "leyden.trainer.tuner",
    # Ours, but only for who makes a trainer, runs it or saves: half of the time that importing both classes took.
    "leyden.trainer.loops", "leyden.trainer.checkpoint", "leyden.trainer.metrics", "leyden.trainer.trainer.assembly",
    "leyden.fabric.checkpoint.single_file",
)  # fmt: skip
SETTABLE = {"should_stop", "callbacks", "accumulate_grad_batches"}
"""What callbacks and finders may set, as documented: Trainer acts on each of them."""


def test_importing_trainer_imports_neither_torch_nor_the_loop() -> None:
    added = modules_after("import leyden.trainer") - modules_after("pass")
    assert {name for name in added if name.startswith("leyden")} <= {"leyden", "leyden.core", "leyden.core.lazy", "leyden.trainer"}
    assert not loaded("torch", added)


def test_the_two_classes_import_nothing_heavy() -> None:
    added = modules_after(BOTH_CLASSES) - modules_after("import torch")
    assert [name for name in FORBIDDEN if loaded(name, added)] == []


def test_the_two_classes_add_at_most_110_modules_to_torch() -> None:
    added = modules_after(BOTH_CLASSES) - modules_after("import torch")
    assert len(added) <= 110, sorted(added)


def test_no_module_of_trainer_imports_itself_by_a_detour() -> None:
    graph = grimp.build_graph("leyden", exclude_type_checking_imports=False, cache_dir=None)
    mine = {module for module in graph.modules if module.startswith("leyden.trainer.")}
    order = graphlib.TopologicalSorter({module: graph.find_modules_directly_imported_by(module) & mine for module in mine})
    order.prepare()  # raises CycleError, which names the cycle


def written_onto_trainer(path: Path) -> set[str]:
    """Return the attributes that a file sets on something called `trainer`."""
    targets = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets.append(node.target)
    attributes = [target for target in targets if isinstance(target, ast.Attribute)]
    return {target.attr for target in attributes if ast.unparse(target.value).rpartition(".")[2].lstrip("_") == "trainer"}


def test_nobody_writes_onto_trainer_but_by_its_setters() -> None:
    own = {*(SOURCE / "trainer").glob("*.py"), SOURCE / "loops/views.py"}  # `trainer.fit_loop.max_epochs = 3` is one of its setters
    files = [path for path in SOURCE.rglob("*.py") if path not in own]
    assert set().union(*map(written_onto_trainer, files)) <= SETTABLE


@pytest.mark.filterwarnings("ignore")
def test_a_run_leaves_no_new_attribute_on_trainer(tmp_path: Path) -> None:
    trainer = Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1, default_root_dir=tmp_path, logger=False)
    before = set(vars(trainer))
    trainer.fit(BoringModel())
    assert set(vars(trainer)) == before
