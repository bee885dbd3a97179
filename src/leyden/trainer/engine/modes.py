"""Training and evaluation mode of every submodule, kept exactly: a frozen backbone in eval mode stays in eval mode."""

from torch import nn


def capture_modes(module: nn.Module) -> list[tuple[nn.Module, bool]]:
    """Return each submodule with its mode, the module itself first."""
    return [(part, part.training) for part in module.modules()]


def restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    """Put captured modes back, without a call of anybody's `train`."""
    for part, is_training in modes:
        part.training = is_training


def names_in_eval(module: nn.Module) -> list[str]:
    """Return the names of submodules that are not in training mode (`""` is the module itself).

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.ReLU())
        >>> _ = net[0].eval()
        >>> names_in_eval(net)
        ['0']
    """
    return [name for name, part in module.named_modules() if not part.training]


def set_modes(module: nn.Module, in_eval: list[str]) -> None:
    """Put every submodule in training mode except the named ones."""
    names = set(in_eval)
    for name, part in module.named_modules():
        part.training = name not in names
