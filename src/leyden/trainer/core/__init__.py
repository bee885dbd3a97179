"""What users subclass: `LightningModule`, `LightningDataModule`, `Callback`, and what their methods are made of."""
