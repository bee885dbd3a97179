"""Packages that Leyden works without: ask for them here, so that the error holds the command that installs them."""

import importlib
import importlib.util
from types import ModuleType

from leyden.core.errors import MissingDependencyError


def require(name: str, *, purpose: str, extra: str | None = None, package: str | None = None) -> ModuleType:
    """Import and return an optional module.

    Args:
        name: The module, possibly dotted.
        purpose: What needs it, as the user calls it: `"WandbLogger"`.
        extra: The extra of Leyden that installs it.
        package: The name to install it by when there is no extra and it differs from the module's.

    Raises:
        MissingDependencyError: It is not installed, or it is and cannot be imported.

    Example:
        >>> require("json", purpose="this example").__name__
        'json'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        target = f'"leyden[{extra}]"' if extra else package or root
        if isinstance(error, ModuleNotFoundError) and error.name is not None and (name + ".").startswith(error.name + "."):
            raise MissingDependencyError(
                f"{purpose} needs the package {package or root!r}, which is not installed. Install it with: pip install {target}",
                name=root,
            ) from error
        raise MissingDependencyError(
            f"{purpose} needs the package {package or root!r}, which is installed but cannot be imported: {error}. "
            f"Mend it with: pip install --force-reinstall {target}",
            name=error.name or root,
        ) from error


def installed(name: str) -> bool:
    """Return whether a top-level module could be imported, without importing it; for a dotted name, whether its root could.

    Example:
        >>> installed("json"), installed("no_such_module")
        (True, False)
    """
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):  # a module without a spec, such as one that a test put into sys.modules
        return False
