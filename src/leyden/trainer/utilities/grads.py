"""The size of gradients."""

import math

import torch
from torch import nn

from leyden.core.errors import ConfigError


def grad_norm(module: nn.Module, norm_type: float | str, group_separator: str = "/") -> dict[str, torch.Tensor]:
    """Return the norm of each parameter's gradient, and of all of them together.

    Args:
        module: The module, after `backward`.
        norm_type: The p of the p-norm, or `"inf"`.
        group_separator: What stands before the parameter's name.

    Returns:
        `grad_<p>_norm/<parameter>` → its norm, and `grad_<p>_norm_total`; empty without gradients.

    Raises:
        ConfigError: `norm_type` is no positive number.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> layer(torch.tensor([3.0, 4.0])).backward()
        >>> grad_norm(layer, 2)
        {'grad_2.0_norm/weight': tensor(5.), 'grad_2.0_norm_total': tensor(5.)}
    """
    order = _order(norm_type)
    name = f"grad_{order}_norm"
    gradients = {key: parameter.grad for key, parameter in module.named_parameters() if parameter.grad is not None}
    norms = {f"{name}{group_separator}{key}": torch.linalg.vector_norm(gradient.detach(), order) for key, gradient in gradients.items()}
    if norms:
        device = next(iter(norms.values())).device
        norms[f"{name}_total"] = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms.values()]), order)
    return norms


def _order(norm_type: float | str) -> float:
    try:
        order = float(norm_type)
    except (TypeError, ValueError):
        order = math.nan
    if not order > 0:
        raise ConfigError(f"`norm_type` must be a positive number or 'inf' (infinity norm). Got {norm_type!r}. Use 2 for the usual length.")
    return order
