"""Failpoints: rules, counting, actions; the deadly ones in a child process."""

import errno
import signal
import subprocess
import sys
import threading

import pytest

from leyden.core.errors import ConfigError
from leyden.core.failpoints import EXIT_STATUS, InjectedError, armed, failpoint, parse

CHILD = "from leyden.core.failpoints import failpoint\nfor _ in range(3): failpoint('here'); print('passed', flush=True)"


def run_child(rules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD], env={"LEYDEN_FAILPOINT": rules}, capture_output=True, text=True, timeout=60, check=False
    )


def test_nothing_happens_when_nothing_is_armed() -> None:
    with armed(""):
        failpoint("here")


def test_other_names_pass() -> None:
    with armed("there=raise"):
        failpoint("here")


def test_the_first_hit_fails_and_later_ones_pass() -> None:
    with armed("here=raise"):
        with pytest.raises(InjectedError, match="here"):
            failpoint("here")
        failpoint("here")


def test_a_count_names_the_hit() -> None:
    with armed("here:3=raise"):
        failpoint("here")
        failpoint("here")
        with pytest.raises(InjectedError):
            failpoint("here")


def test_several_rules_are_separate() -> None:
    with armed("here:2=raise, there=enospc"):
        with pytest.raises(OSError, match="No space left") as caught:
            failpoint("there")
        assert caught.value.errno == errno.ENOSPC
        failpoint("here")
        with pytest.raises(InjectedError):
            failpoint("here")


def test_arming_ends_with_the_block_and_nests() -> None:
    with armed("here=raise"):
        with armed(""):
            failpoint("here")
        with pytest.raises(InjectedError):
            failpoint("here")
    failpoint("here")


def test_threads_share_one_count() -> None:
    failed = []

    def hit() -> None:
        try:
            failpoint("here")
        except InjectedError:
            failed.append(1)

    with armed("here:5=raise"):
        threads = [threading.Thread(target=hit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert failed == [1]


@pytest.mark.parametrize(
    ("rules", "status", "passed"),
    [
        ("", 0, 3),
        ("here=kill", -signal.SIGKILL, 0),
        ("here:2=kill", -signal.SIGKILL, 1),
        ("here:3=exit", EXIT_STATUS, 2),
        ("here:2=hang/0.01", EXIT_STATUS, 1),
        ("here:2=raise", 1, 1),
    ],
)
def test_a_process_dies_at_the_hit_that_its_environment_names(rules: str, status: int, passed: int) -> None:
    done = run_child(rules)
    assert done.returncode == status, done.stderr
    assert done.stdout.count("passed") == passed


@pytest.mark.parametrize("rule", ["here", "=kill", "here:0=kill", "here:x=kill", "here:-1=kill", "here=hang/x", "here=kill/3"])
def test_a_malformed_rule_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="is not a failpoint rule"):
        parse(rule)


def test_an_unknown_action_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'kill'"):
        parse("here=kil")
