"""Numbers in the variables that launchers set, with errors that name the variable."""

from collections.abc import Mapping

from leyden.core.errors import ConfigError


def integer(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Return the whole number in `name`; without it, `default`.

    Raises:
        ConfigError: The variable holds no whole number, or is missing and there is no default.

    Example:
        >>> integer({"RANK": "3"}, "RANK")
        3
    """
    found = optional_integer(environ, name)
    if found is not None:
        return found
    if default is None:
        raise ConfigError(f"the environment variable {name} is not set, but this launcher sets it. Start the script with the launcher.")
    return default


def optional_integer(environ: Mapping[str, str], name: str) -> int | None:
    """Return the whole number in `name`, or `None` if it is not set.

    Raises:
        ConfigError: The variable holds no whole number.
    """
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"the environment variable {name}={text!r} should be a whole number. Correct it, or unset it.") from None
