"""Loggers with the real thing at the other end: TensorBoard's reader, W&B and MLflow offline, processes that end in every way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError
from leyden.fabric.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from leyden.fabric.loggers.writer_thread import flush_all
from leyden.fabric.rank_zero import rank_zero_only
from tests.support.event_files import read_scalars
from tests.support.ports import free_port
from tests.support.wandb_files import read_history, read_records


@pytest.fixture(autouse=True)
def _rank_zero() -> Iterator[None]:
    rank_zero_only.rank = 0
    yield
    rank_zero_only.rank = None


# -- TensorBoard reads what we write ----------------------------------------------------------------------------------


def read_with_tensorboard(directory: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory), size_guidance={"tensors": 0, "scalars": 0, "images": 0, "histograms": 0}).Reload()


def test_tensorboard_reads_every_kind_of_event(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    for step in range(300):
        logger.log_metrics({"loss": 1.0 / (step + 1), "val/accuracy": step}, step=step)
    experiment = logger.experiment
    experiment.add_text("note", "a *first* try ü", 1)
    experiment.add_histogram("weights", torch.arange(-50.0, 50.0), 2)
    experiment.add_image("picture", torch.rand(3, 8, 6), 3)
    logger.finalize("success")

    events = read_with_tensorboard(tmp_path / "run")
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [
        (step, pytest.approx(1.0 / (step + 1))) for step in range(300)
    ]
    assert [point.value for point in events.Scalars("val/accuracy")] == list(range(300))
    assert all(abs(point.wall_time - time.time()) < 600 for point in events.Scalars("loss"))
    assert events.Tensors("note/text_summary")[0].tensor_proto.string_val == ["a *first* try ü".encode()]
    (histogram,) = events.Histograms("weights")
    value = histogram.histogram_value
    assert (histogram.step, value.min, value.max, value.num, sum(value.bucket)) == (2, -50.0, 49.0, 100.0, 100.0)
    (image,) = events.Images("picture")
    assert (image.step, image.height, image.width, image.encoded_image_string[:4]) == (3, 8, 6, b"\x89PNG")


def test_tensorboard_understands_hyperparameters(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    logger.log_hyperparams({"lr": 0.1, "optimizer": {"name": "sgd"}, "nesterov": True}, metrics={"val/loss": 0.5})
    logger.finalize("success")
    events = read_with_tensorboard(tmp_path / "run")
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    def content(tag: str) -> Any:
        data = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data
        assert data.plugin_name == "hparams"
        return plugin_data_pb2.HParamsPluginData.FromString(data.content)

    started = content("session_start_info").session_start_info.hparams
    assert started["lr"].number_value == 0.1
    assert started["optimizer/name"].string_value == "sgd"
    assert started["nesterov"].bool_value is True
    experiment = content("experiment").experiment
    assert {info.name: info.type for info in experiment.hparam_infos} == {
        "lr": api_pb2.DATA_TYPE_FLOAT64,
        "optimizer/name": api_pb2.DATA_TYPE_STRING,
        "nesterov": api_pb2.DATA_TYPE_BOOL,
    }
    assert [info.name.tag for info in experiment.metric_infos] == ["val/loss"]
    assert content("session_end_info").session_end_info.status == api_pb2.STATUS_SUCCESS
    assert [(point.step, point.value) for point in events.Scalars("val/loss")] == [(0, 0.5)]


def test_runs_of_add_hparams_lie_below_with_discrete_domains(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    logger.experiment.add_hparams({"lr": 0.1}, {"loss": 0.5}, {"lr": [0.1, 0.01]}, run_name="trial", global_step=4)
    logger.finalize("success")
    events = read_with_tensorboard(tmp_path / "run" / "trial")
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = plugin_data_pb2.HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert [value.number_value for value in content.experiment.hparam_infos[0].domain_discrete.values] == [0.1, 0.01]
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [(4, 0.5)]


def test_a_purge_step_hides_points_of_the_earlier_file(tmp_path: Path) -> None:
    for start, purge in ((0, None), (3, 3)):
        logger = TensorBoardLogger(tmp_path, name="", version="run", purge_step=purge)
        for step in range(start, start + 5):
            logger.log_metrics({"loss": float(start)}, step)
        logger.finalize("success")
    events = read_with_tensorboard(tmp_path / "run")
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [
        (0, 0.0),
        (1, 0.0),
        (2, 0.0),
        *((step, 3.0) for step in range(3, 8)),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_methods_of_summary_writer_go_into_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    logger.log_metrics({"loss": 0.5}, 0)
    logger.log_graph(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(1, 4))
    logger.experiment.add_pr_curve("pr", torch.tensor([0, 1, 1]), torch.tensor([0.1, 0.8, 0.6]), global_step=2)
    logger.experiment.add_images("many", torch.rand(2, 3, 4, 4), 1)
    logger.finalize("success")
    assert len(list((tmp_path / "run").glob("events*"))) == 1
    events = read_with_tensorboard(tmp_path / "run")
    assert any("Linear" in node.name for node in events.Graph().node)
    assert events.Tensors("pr")[0].step == 2
    assert [image.step for image in events.Images("many")] == [1]
    assert [point.value for point in events.Scalars("loss")] == [0.5]


# -- Weights & Biases, offline ----------------------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield module
    module.finish()


def quiet(wandb: Any) -> Any:
    # W&B reads its variables once per process, so WANDB_MODE would come too late after another test.
    return wandb.Settings(mode="offline", console="off", x_disable_stats=True)


def test_wandb_gets_rows_steps_config_and_media(wandb: Any, tmp_path: Path) -> None:
    logger = WandbLogger("first", tmp_path, project="digits", id="abc123", prefix="run", settings=quiet(wandb))
    assert (logger.name, logger.version, logger.save_dir) == ("digits", "abc123", str(tmp_path))
    logger.log_hyperparams({"lr": 0.1, "optimizer": {"name": "sgd"}})
    logger.log_metrics({"loss": 0.5}, step=10)
    logger.log_metrics({"loss": 0.25})
    logger.log_table("table", columns=["a", "b"], data=[[1, 2]], step=12)
    logger.log_image("picture", [torch.rand(3, 4, 4)], step=13, caption=["noise"])
    with pytest.raises(ConfigError, match="caption= has 2 values for 1"):
        logger.log_image("picture", [torch.rand(3, 4, 4)], caption=["a", "b"])
    logger.finalize("success")
    run = logger.experiment
    assert isinstance(run, wandb.Run)
    assert run.config["optimizer"] == {"name": "sgd"}
    run.finish()
    assert [point for point in read_history(tmp_path) if point[0] == "run-loss"] == [("run-loss", 10, 0.5), ("run-loss", 11, 0.25)]
    (record,) = [record.run for record in read_records(tmp_path) if record.WhichOneof("record_type") == "run"]
    assert (record.run_id, record.project, record.display_name) == ("abc123", "digits", "first")
    assert list((tmp_path / "wandb").rglob("*.png"))
    assert list((tmp_path / "wandb").rglob("*.table.json"))


def test_wandb_reuses_a_run_that_is_open(wandb: Any, tmp_path: Path) -> None:
    run = wandb.init(dir=tmp_path, project="mine", settings=quiet(wandb))
    logger = WandbLogger(save_dir=tmp_path)
    with pytest.warns(UserWarning, match="open in this process already"):
        assert logger.experiment is run
    assert WandbLogger(experiment=run).experiment is run


def test_wandb_uploads_checkpoints_as_artifacts(wandb: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "epoch=1.ckpt"
    checkpoint.write_bytes(b"weights")
    callback = SimpleNamespace(best_k_models={str(checkpoint): 0.5}, best_model_path=str(checkpoint), last_model_path="")
    logger = WandbLogger(save_dir=tmp_path, log_model=True, checkpoint_name="digits-model", settings=quiet(wandb))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.after_save_checkpoint(callback)
    logger.finalize("success")
    logger.experiment.finish()
    artifacts = [
        record.request.log_artifact.artifact if record.WhichOneof("record_type") == "request" else record.artifact
        for record in read_records(tmp_path)
        if record.WhichOneof("record_type") in ("request", "artifact")
    ]
    (artifact,) = [artifact for artifact in artifacts if artifact.name == "digits-model"]
    assert artifact.type == "model"
    assert sorted(artifact.aliases) == ["best", "latest"]


def test_training_goes_on_while_wandb_is_down_and_rows_arrive_later(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, answers = wandb.init, iter([False, False, True])

    def init(**arguments: Any) -> Any:
        if not next(answers):
            raise wandb.errors.CommError("no route to the service")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    logger = WandbLogger(save_dir=tmp_path, settings=quiet(wandb))
    logger.log_metrics({"loss": 0.5}, 0)
    assert not flush_all(30)
    assert "no route to the service" in caplog.text
    logger.log_metrics({"loss": 0.25}, 1)
    logger.finalize("success")
    logger.experiment.finish()
    assert read_history(tmp_path) == [("loss", 0, 0.5), ("loss", 1, 0.25)]


def test_wandb_refuses_to_upload_from_an_offline_run(wandb: Any) -> None:
    with pytest.raises(ConfigError, match="offline=True cannot do"):
        WandbLogger(offline=True, log_model="all")


# -- MLflow, in a local database and without a server ------------------------------------------------------------------


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*noload.*")
def test_mlflow_fills_a_local_database(mlflow: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "epoch=1.ckpt"
    checkpoint.write_bytes(b"weights")
    logger = MLFlowLogger("digits", "first", save_dir=tmp_path / "mlruns", tags={"team": "nlp"}, log_model="all", prefix="run")
    assert logger.tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert not (tmp_path / "mlruns").exists(), "nothing is opened before it is used"
    for step in range(1500):
        logger.log_metrics({"loss": 1.0 / (step + 1), "step_time": step}, step=step)
    logger.log_hyperparams({"lr": 0.1, "optimizer": {"name": "sgd"}, "long": "x" * 10_000})
    logger.after_save_checkpoint(SimpleNamespace(best_model_path=str(checkpoint)))
    logger.finalize("success")

    client = mlflow.tracking.MlflowClient(logger.tracking_uri)
    run = client.get_run(logger.run_id)
    assert client.get_experiment(logger.experiment_id).name == "digits"
    assert (run.info.run_name, run.info.status, run.data.tags["team"]) == ("first", "FINISHED", "nlp")
    assert {name: len(value) for name, value in run.data.params.items()} == {"lr": 3, "optimizer/name": 3, "long": 6000}
    points = client.get_metric_history(logger.run_id, "run-loss")
    assert [(point.step, point.value) for point in points] == [(step, 1.0 / (step + 1)) for step in range(1500)]
    assert [file.path for file in client.list_artifacts(logger.run_id, "model/checkpoints/epoch=1")] == [
        "model/checkpoints/epoch=1/epoch=1.ckpt"
    ]

    second = MLFlowLogger("digits", tracking_uri=logger.tracking_uri, run_id=logger.run_id)
    second.log_metrics({"loss": 0.5}, step=1500)
    second.finalize("failed")
    assert second.experiment_id == logger.experiment_id
    assert client.get_run(logger.run_id).info.status == "FAILED"
    assert len(client.get_metric_history(logger.run_id, "loss")) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_training_goes_on_while_mlflow_is_down(mlflow: Any, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    logger = MLFlowLogger("digits", tracking_uri=uri)
    for step in range(100):
        logger.log_metrics({"loss": 1.0}, step=step)
    assert not flush_all(30), "nothing could be written"
    with pytest.warns(UserWarning, match="100 entries were dropped because the back-end failed"):
        logger.finalize("success")
    assert "Training goes on" in caplog.text
    assert uri in caplog.text


# -- processes that end -------------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys, threading
from leyden.fabric.loggers import CSVLogger, TensorBoardLogger
from leyden.fabric.loggers.writer_thread import flush_all
root, end = sys.argv[1:]
csv, board = CSVLogger(root, version="csv"), TensorBoardLogger(root, version="board")
for step in range(2500):
    csv.log_metrics({"loss": 0.5}, step)
    board.log_metrics({"loss": 0.5}, step)
if end == "raise":
    threading.Thread(target=lambda: csv.log_metrics({"loss": 0.5}, 2500)).start()
    raise RuntimeError("the training failed")
signal.signal(signal.SIGTERM, lambda *_: (flush_all(10), os._exit(143)))
csv.log_metrics({"loss": 0.5}, 2500)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(("end", "code"), [("raise", 1), ("die", 143)])
def test_every_row_is_there_when_training_raises_or_dies(tmp_path: Path, end: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), end], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == code, done.stderr
    assert ("the training failed" in done.stderr) == (end == "raise")
    lines = (tmp_path / "lightning_logs/csv/metrics.csv").read_text().splitlines()
    assert lines == ["loss,step", *(f"0.5,{step}" for step in range(2501))]
    assert len(read_scalars(tmp_path / "lightning_logs/board")) == 2500


KILLED = """
import sys
from leyden.fabric.loggers import CSVLogger
logger = CSVLogger(sys.argv[1], version=0)
step = 0
while True:
    logger.log_metrics({"loss": 0.5}, step)
    if step == 300:
        logger.save()
        print("saved", flush=True)
    step += 1
"""


def test_a_killed_process_keeps_what_was_flushed_and_the_next_one_resumes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        process.send_signal(signal.SIGKILL)
    logger = CSVLogger(tmp_path, version=0, resume=True)
    logger.log_metrics({"loss": 0.25}, step=200)
    logger.finalize("success")
    lines = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    assert lines == ["loss,step", *(f"0.5,{step}" for step in range(200)), "0.25,200"]


HUNG = """
import threading, sys
from leyden.fabric.loggers import writer_thread
writer_thread.EXIT_SECONDS = 0.5
class Hung:
    def prepare(self, entry): return entry
    def write(self, prepared): threading.Event().wait()
writer_thread.process_writer().open(Hung(), "HungLogger", is_remote=True).put((0.0, 1, {"loss": 0.5}))
"""


def test_a_hung_back_end_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "HungLogger: 1 entries were not written." in done.stderr


WANDB = """
import sys, wandb
from leyden.fabric.loggers import WandbLogger
logger = WandbLogger(save_dir=sys.argv[1], offline=True, settings=wandb.Settings(console="off", x_disable_stats=True))
for step in range(50):
    logger.log_metrics({"loss": 0.5}, step)
"""


def test_rows_reach_wandb_before_it_ends_its_run_at_exit(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    # WANDB_SERVICE would make the child a guest of this process's W&B service, which outlives it.
    environ = {**{name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}, "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", WANDB, str(tmp_path)], env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [step for _, step, _ in read_history(tmp_path)] == list(range(50))
