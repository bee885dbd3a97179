"""What `devices=` may be, as functions of its value and of how many devices this machine has.

`None`, booleans, fractions and mixed lists are `ConfigTypeError`; values that can name no device are `ConfigError`.
"""

from collections.abc import Sequence

from leyden.core.errors import ConfigError, ConfigTypeError

ACCEPTED = 'Accepted are "auto", a number of devices, -1 for all of them, and, where devices have ids, a list such as [0, 2] or "0,2".'


def normalise(devices: object) -> int | str | list[int]:
    """Return `devices` as `"auto"`, a count (-1: all) or a list of ids, whatever it is written as.

    Raises:
        ConfigTypeError: A type that is never accepted.
        ConfigError: A text that is no number, a count of zero, or an empty list.

    Example:
        >>> normalise("0,"), normalise("3"), normalise("-1"), normalise([2])
        ([0], 3, -1, [2])
    """
    if isinstance(devices, str):
        return _from_text(devices)
    if isinstance(devices, bool) or not isinstance(devices, (int, list, tuple)):
        raise ConfigTypeError(f"devices={devices!r} is {_type_name(devices)}. {ACCEPTED}")
    if isinstance(devices, int):
        return _count(devices, devices)
    return _ids(devices, devices)


def process_count(devices: object) -> int:
    """Return the number of processes that `devices` means on a CPU: `"auto"` is one.

    Raises:
        ConfigTypeError: -1, or a list: processors have no ids.
        ConfigError: See `normalise`.
    """
    parsed = normalise(devices)
    if parsed == "auto":
        return 1
    if not isinstance(parsed, int) or parsed < 1:
        raise ConfigTypeError(
            f'devices={devices!r} with accelerator="cpu" should be an int > 0: the number of processes. '
            "Write devices=2 for two processes on this machine."
        )
    return parsed


def device_ids(devices: object, available: int, name: str) -> list[int]:
    """Return the ids that `devices` means on an accelerator `name` with `available` devices.

    Raises:
        ConfigError: An id twice, one that is not there, or more devices than there are.
    """
    parsed = normalise(devices)
    present = list(range(available))
    if parsed in ("auto", -1):
        return present
    chosen = list(range(parsed)) if isinstance(parsed, int) else [int(index) for index in parsed]
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"devices={devices!r} names a device twice. Name each once: devices={sorted(set(chosen))}.")
    absent = [index for index in chosen if index not in present]
    if absent:
        raise ConfigError(
            f"devices={devices!r} asks for {name} devices {chosen}, but this process sees {present or 'none'}: {absent} are not there. "
            'Choose among those, or write devices="auto" for all of them.'
        )
    return chosen


def only_device(devices: object, name: str) -> list[int]:
    """Return `[0]` for an accelerator that has one device.

    Raises:
        ConfigError: More than one device, or another id.
    """
    parsed = normalise(devices)
    if parsed not in ("auto", 1, -1, [0]):
        raise ConfigError(f"devices={devices!r}, but accelerator={name!r} has one device. Write devices=1.")
    return [0]


def _from_text(text: str) -> int | str | list[int]:
    stripped = text.strip()
    if stripped.lower() == "auto":
        return "auto"
    parts = [part.strip() for part in stripped.split(",")]
    try:
        if len(parts) == 1:
            return _count(int(stripped), text)
        return _ids([int(part) for part in parts if part], text)
    except ConfigError:
        raise
    except ValueError:
        raise _invalid(text) from None


def _count(count: int, given: object) -> int:
    if count == 0 or count < -1:
        raise _invalid(given)
    return count


def _ids(ids: Sequence[object], given: object) -> list[int]:
    numbers = [index for index in ids if isinstance(index, int) and not isinstance(index, bool)]
    if len(numbers) < len(ids):
        raise ConfigTypeError(f"devices={given!r} holds more than numbers. {ACCEPTED}")
    if not numbers or min(numbers) < 0:
        raise _invalid(given)
    return numbers


def _invalid(given: object) -> ConfigError:
    return ConfigError(f"devices={given!r} is not a valid input: it names no device. {ACCEPTED}")


def _type_name(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
