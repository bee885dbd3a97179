"""Starlette's `TestClient`, which warns when it is imported that it would rather have a successor of httpx."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["TestClient"]
