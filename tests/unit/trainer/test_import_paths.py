"""Every documented name is found at its documented path, and importing the front door loads nothing that draws."""

import importlib
import subprocess
import sys

import pytest

PATHS = {
    "accelerators": "Accelerator CPUAccelerator CUDAAccelerator MPSAccelerator find_usable_cuda_devices",
    "callbacks": (
        "BackboneFinetuning BaseFinetuning BasePredictionWriter Callback Checkpoint DeviceStatsMonitor EMAWeightAveraging EarlyStopping "
        "GradientAccumulationScheduler LambdaCallback LearningRateMonitor ModelCheckpoint ModelSummary OnExceptionCheckpoint ProgressBar "
        "RichModelSummary RichProgressBar SpikeDetection TQDMProgressBar ThroughputMonitor Timer WeightAveraging"
    ),
    "callbacks.device_stats_monitor": "DeviceStatsMonitor",
    "callbacks.early_stopping": "EarlyStopping",
    "callbacks.finetuning": "BackboneFinetuning BaseFinetuning",
    "callbacks.gradient_accumulation_scheduler": "GradientAccumulationScheduler",
    "callbacks.lambda_function": "LambdaCallback",
    "callbacks.lr_monitor": "LearningRateMonitor",
    "callbacks.model_checkpoint": "ModelCheckpoint",
    "callbacks.model_summary": "ModelSummary",
    "callbacks.on_exception_checkpoint": "OnExceptionCheckpoint",
    "callbacks.prediction_writer": "BasePredictionWriter",
    "callbacks.progress": "ProgressBar RichProgressBar TQDMProgressBar",
    "callbacks.progress.progress_bar": "ProgressBar get_standard_metrics",
    "callbacks.progress.rich_progress": "RichProgressBar RichProgressBarTheme",
    "callbacks.progress.tqdm_progress": "TQDMProgressBar Tqdm",
    "callbacks.rich_model_summary": "RichModelSummary",
    "callbacks.spike": "SpikeDetection",
    "callbacks.throughput_monitor": "ThroughputMonitor",
    "callbacks.timer": "Timer",
    "callbacks.weight_averaging": "EMAWeightAveraging WeightAveraging",
    "core.datamodule": "LightningDataModule",
    "core.hooks": "",
    "core.mixins": "HyperparametersMixin",
    "core.module": "LightningModule",
    "core.optimizer": "LightningOptimizer",
    "core.saving": "load_hparams_from_yaml save_hparams_to_yaml",
    "demos.boring_classes": (
        "BoringDataModule BoringDataModuleNoLen BoringModel DemoModel IterableBoringDataModule ManualOptimBoringModel RandomDataset "
        "RandomDictDataset RandomIterableDataset RandomIterableDatasetWithLen"
    ),
    "demos.lstm": "LightningLSTM SequenceSampler SimpleLSTM",
    "demos.transformer": "LightningTransformer Transformer WikiText2",
    "loggers": "CSVLogger Logger MLFlowLogger TensorBoardLogger WandbLogger",
    "loggers.csv_logs": "CSVLogger ExperimentWriter",
    "loggers.logger": "DummyExperiment DummyLogger Logger rank_zero_experiment",
    "loggers.mlflow": "MLFlowLogger",
    "loggers.tensorboard": "TensorBoardLogger",
    "loggers.wandb": "WandbLogger",
    "plugins": (
        "AsyncCheckpointIO BitsandbytesPrecision CheckpointIO DeepSpeedPrecision DoublePrecision FSDPPrecision HalfPrecision LayerSync "
        "MixedPrecision Precision TorchCheckpointIO TorchSyncBatchNorm TransformerEnginePrecision"
    ),
    "plugins.environments": (
        "ClusterEnvironment KubeflowEnvironment LSFEnvironment LightningEnvironment MPIEnvironment SLURMEnvironment TorchElasticEnvironment"
    ),
    "plugins.io": "AsyncCheckpointIO CheckpointIO TorchCheckpointIO",
    "plugins.layer_sync": "LayerSync TorchSyncBatchNorm",
    "plugins.precision": (
        "BitsandbytesPrecision DeepSpeedPrecision DoublePrecision FSDPPrecision HalfPrecision MixedPrecision Precision "
        "TransformerEnginePrecision"
    ),
    "profilers": "AdvancedProfiler PassThroughProfiler Profiler PyTorchProfiler SimpleProfiler",
    "profilers.advanced": "AdvancedProfiler",
    "profilers.profiler": "Profiler",
    "profilers.pytorch": "PyTorchProfiler",
    "profilers.simple": "SimpleProfiler",
    "strategies": "DDPStrategy DeepSpeedStrategy FSDPStrategy ModelParallelStrategy ParallelStrategy SingleDeviceStrategy Strategy",
    "trainer.states": "RunningStage TrainerFn TrainerState TrainerStatus",
    "trainer.trainer": "Trainer",
    "utilities": (
        "AttributeDict CombinedLoader GradClipAlgorithmType PossibleUserWarning Throughput disable_possible_user_warnings grad_norm "
        "is_shared_filesystem measure_flops move_data_to_device rank_zero_deprecation rank_zero_info rank_zero_only rank_zero_warn "
        "suggested_max_num_workers"
    ),
    "utilities.combined_loader": "CombinedLoader",
    "utilities.data": "AttributeDict extract_batch_size suggested_max_num_workers",
    "utilities.enums": "GradClipAlgorithmType",
    "utilities.exceptions": "MisconfigurationException SIGTERMException",
    "utilities.grads": "grad_norm",
    "utilities.memory": "garbage_collection_cuda get_model_size_mb is_oom_error recursive_detach",
    "utilities.model_helpers": "is_overridden",
    "utilities.model_summary": (
        "DeepSpeedSummary LayerSummary ModelSummary UNKNOWN_SIZE get_human_readable_count parse_batch_shape summarize"
    ),
    "utilities.parsing": "AttributeDict is_picklable",
    "utilities.rank_zero": "rank_zero_debug rank_zero_deprecation rank_zero_info rank_zero_only rank_zero_warn",
    "utilities.seed": "isolate_rng reset_seed seed_everything",
    "utilities.types": (
        "EVAL_DATALOADERS LRSchedulerConfig LRSchedulerConfigType LRSchedulerTypeUnion OptimizerConfig OptimizerLRScheduler "
        "OptimizerLRSchedulerConfig STEP_OUTPUT TRAIN_DATALOADERS"
    ),
    "utilities.warnings": "PossibleUserWarning",
}


@pytest.mark.parametrize("path", PATHS)
def test_documented_names_are_at_their_paths(path: str) -> None:
    module = importlib.import_module(f"leyden.trainer.{path}")
    assert [name for name in PATHS[path].split() if not hasattr(module, name)] == []


def test_one_class_has_one_identity_at_all_its_paths() -> None:
    from leyden.core.errors import ConfigError
    from leyden.trainer.callbacks import progress
    from leyden.trainer.callbacks.progress.tqdm_progress import TQDMProgressBar
    from leyden.trainer.trainer.assembly import TensorBoardLogger
    from leyden.trainer.utilities.exceptions import MisconfigurationException

    assert MisconfigurationException is ConfigError
    assert progress.TQDMProgressBar is TQDMProgressBar
    assert TensorBoardLogger is importlib.import_module("leyden.trainer.loggers").TensorBoardLogger


@pytest.mark.parametrize("statement", ["import leyden.trainer", "import leyden.trainer.callbacks", "import leyden.trainer.utilities"])
def test_importing_loads_nothing_that_draws(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint([name for name in ('rich', 'tqdm', 'torchmetrics', 'jsonargparse') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
