"""A tuned value is set wherever it is kept."""

from leyden.trainer import LightningDataModule, LightningModule
from leyden.trainer.callbacks import tuned_attribute


class Module(LightningModule):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()


def test_attributes_and_hyper_parameters_of_module_and_data_are_found_and_set() -> None:
    module, data = Module(), LightningDataModule()
    assert tuned_attribute.holders("lr", module, data) == [module.hparams]
    module.lr = data.lr = 0.2
    assert [tuned_attribute.get(holder, "lr") for holder in tuned_attribute.holders("lr", module, data)] == [0.2, 0.1, 0.2]
    tuned_attribute.put("lr", 0.5, module, data)
    assert (module.lr, module.hparams.lr, data.lr) == (0.5, 0.5, 0.5)


def test_nobody_may_have_it() -> None:
    assert tuned_attribute.holders("batch_size", Module(), None) == []
