"""Starlette's test client, which asks for another HTTP library than we have: with ours it works and warns."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["TestClient"]
