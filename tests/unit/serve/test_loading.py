"""What holds while a user's file is imported."""

import pytest

from leyden.core.errors import StateError
from leyden.serve import LitServer
from leyden.serve.loading import importing, refuse_while_importing, replaceable, replacements
from leyden.serve.test_examples import SimpleLitAPI


def test_no_server_starts_while_a_file_is_imported() -> None:
    server = LitServer(SimpleLitAPI(), accelerator="cpu")
    with importing():
        for start in (lambda: server.run(port=0), server.start, refuse_while_importing):
            with pytest.raises(StateError, match='Start the server below `if __name__ == "__main__":`'):
                start()
    refuse_while_importing()


def test_replacements_win_and_end_with_the_context() -> None:
    class Made:
        @replaceable
        def __init__(self, a: int, b: int = 2, *, c: int = 3) -> None:
            self.all = (a, b, c)

    with importing({"b": 20, "c": 30}):
        assert replacements() == {"b": 20, "c": 30}
        assert Made(1).all == Made(1, 5, c=6).all == Made(b=7, a=1).all == (1, 20, 30)
        with importing():
            assert Made(1).all == (1, 2, 3)
    assert (Made(1).all, replacements()) == ((1, 2, 3), {})


def test_a_wrong_argument_is_told_as_ever() -> None:
    with importing({"timeout": 3}), pytest.raises(TypeError, match="no_such"):
        LitServer(SimpleLitAPI(), no_such=1)  # type: ignore[call-arg]
