"""Mesh leaves: GLB, PLY or STL files; reading gives what trimesh makes of them, `pip install "leyden[mesh]"`."""

import io
from typing import Any

from leyden.core.errors import ConfigError
from leyden.core.optional import require

FILE_TYPES = ("glb", "ply", "stl")


def encode(mesh: Any, file_type: str) -> bytes:
    """Return a file of a `trimesh` mesh or scene.

    Raises:
        ConfigError: `file_type` is none of `FILE_TYPES`.
    """
    if file_type not in FILE_TYPES:
        raise ConfigError(f"Mesh(file_type={file_type!r}): accepted are 'glb', 'ply' and 'stl'.")
    return bytes(mesh.export(file_type=file_type))


def decode(data: Any) -> Any:
    """Return the mesh or scene of a file, as `trimesh.load` does."""
    return load().load(io.BytesIO(data), file_type=file_type(data))


def file_type(data: Any) -> str:
    """Return which of `FILE_TYPES` the bytes are: the first two begin with a name, the third has none.

    Example:
        >>> file_type(b"glTF..."), file_type(b"ply..."), file_type(bytes(84))
        ('glb', 'ply', 'stl')
    """
    start = bytes(memoryview(data)[:4])
    return "glb" if start == b"glTF" else "ply" if start[:3] == b"ply" else "stl"


def load() -> Any:
    """Import trimesh."""
    return require("trimesh", purpose="mesh leaves", extra="mesh")
