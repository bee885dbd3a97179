import errno
import math
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigTypeError
from leyden.fabric.loggers import event_file
from leyden.fabric.loggers.event_file import EventFile, Histogram
from tests.support.event_files import fields, read_events, read_scalars


def written(directory: Path, *records: bytes) -> list[dict]:
    file = EventFile(directory)
    file.write(list(records))
    return read_events(file.path)


@pytest.mark.parametrize(("data", "crc"), [(b"123456789", 0xE3069283), (b"\x00" * 32, 0x8A9136AA), (b"", 0)])
def test_checksum_is_crc32c_masked(data: bytes, crc: int) -> None:
    assert event_file.masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_a_file_begins_with_its_version_and_a_name_that_tensorboard_looks_for(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "run", suffix=".mine")
    assert not file.path.exists()
    file.write([event_file.scalars((5.0, 1, {"loss": 0.5}))])
    first, second = read_events(file.path)
    assert first[3] == [b"brain.Event:2"]
    assert struct.unpack("<d", second[1][0]) == (5.0,)
    assert file.path.name.startswith("events.out.tfevents.")
    assert file.path.name.endswith(".mine")


def test_a_row_is_one_event(tmp_path: Path) -> None:
    events = written(tmp_path, event_file.scalars((0.0, 3, {"loss": 0.5, "accuracy": 1})))
    assert len(events) == 2
    assert read_scalars(tmp_path) == [("loss", 3, 0.5), ("accuracy", 3, 1.0)]


def test_numbers_beyond_float32_become_infinite(tmp_path: Path) -> None:
    written(tmp_path, event_file.scalars((0.0, 0, {"big": 1e300, "small": -1e300, "inf": math.inf, "nan": math.nan, "true": True})))
    values = {tag: value for tag, _, value in read_scalars(tmp_path)}
    assert math.isnan(values.pop("nan"))
    assert values == {"big": math.inf, "small": -math.inf, "inf": math.inf, "true": 1.0}


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigTypeError, match="'note'"):
        event_file.scalars((0.0, 0, {"note": "text"}))


@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1), st.dictionaries(st.text(max_size=200), st.floats(width=32, allow_nan=False), max_size=4)
        ),
        max_size=5,
    )
)
def test_rows_of_any_tags_steps_and_values_come_back(rows: list[tuple[int, dict[str, float]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        written(Path(directory), *(event_file.scalars((1.0, step, values)) for step, values in rows))
        assert read_scalars(Path(directory)) == [(tag, step, value) for step, values in rows for tag, value in values.items()]


def test_histogram_counts_lie_beside_their_limits(tmp_path: Path) -> None:
    _, event = written(tmp_path, event_file.histogram(0.0, 2, "weights", Histogram([0.0, 1.0], [1, 3], -1.0, 1.0, 2.0, 4.0)))
    value = fields(fields(event[5][0])[1][0])
    histogram = fields(value[5][0])
    assert [struct.unpack("<d", histogram[field][0])[0] for field in range(1, 6)] == [-1.0, 1.0, 4.0, 2.0, 4.0]
    assert struct.unpack("<2d", histogram[6][0]) == (0.0, 1.0)
    assert struct.unpack("<2d", histogram[7][0]) == (1.0, 3.0)


def test_a_purge_step_is_announced_once_at_the_head(tmp_path: Path) -> None:
    file = EventFile(tmp_path, purge_step=100)
    file.write([event_file.scalars((0.0, 100, {"loss": 1.0}))])
    file.write([event_file.scalars((0.0, 101, {"loss": 1.0}))])
    events = read_events(file.path)
    assert [event.get(2, [None])[0] for event in events] == [None, 100, 100, 101]
    assert fields(events[1][7][0]) == {1: [1]}


def test_two_files_of_one_moment_have_two_names(tmp_path: Path) -> None:
    assert EventFile(tmp_path).path != EventFile(tmp_path).path


def test_a_failed_write_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EventFile(tmp_path)
    file.write([event_file.scalars((0.0, 0, {"loss": 0.5}))])
    size = file.path.stat().st_size

    def fail(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(event_file, "append_or_undo", fail)
        with pytest.raises(OSError, match="No space left"):
            file.write([event_file.scalars((0.0, 1, {"loss": 0.5}))])
    assert file.path.stat().st_size == size
    file.write([event_file.scalars((0.0, 1, {"loss": 0.5}))])
    assert len(read_events(file.path)) == 3


def test_the_writer_has_at_most_two_hundred_lines() -> None:
    assert len(Path(event_file.__file__).read_text().splitlines()) <= 200
