"""`CompilePolicy`: what `torch.compile` is applied to, and when.

`blocks` compiles each repeated block in place, before sharding or DDP: N equal blocks cost one compilation, no collective
lands inside a graph, and no name changes. `model` compiles the wrapped module last. A module the user compiled already is
taken apart before wrapping and put together again around the result; `torch.compile` itself is never patched, and
`torch._dynamo` (a second of import) is only looked at when somebody else imported it.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed
from leyden.fabric.names import class_name

Scope = Literal["blocks", "model"]
SCOPES = ("blocks", "model")


@dataclass(frozen=True, slots=True)
class CompilePolicy:
    """What to compile and how.

    Args:
        scope: `"blocks"` (each repeated block, in place) or `"model"` (the whole wrapped module).
        backend: Passed to `torch.compile`.
        mode: Passed to `torch.compile`.
        dynamic: Passed to `torch.compile`.
        fullgraph: Passed to `torch.compile`.
        options: Passed to `torch.compile`.
        blocks: The classes whose instances are blocks; `None` finds repeated ones.

    Raises:
        ConfigError: Another scope.

    Example:
        >>> CompilePolicy("blocks", backend="eager").scope
        'blocks'
    """

    scope: Scope
    backend: Any = "inductor"
    mode: str | None = None
    dynamic: bool | None = None
    fullgraph: bool = False
    options: dict[str, Any] | None = None
    blocks: tuple[type[nn.Module], ...] | None = None

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ConfigError(f"compile={self.scope!r}: accepted are {listed(SCOPES)}.{closest(str(self.scope), SCOPES)}")

    @property
    def arguments(self) -> dict[str, Any]:
        """The keywords for `torch.compile`."""
        return {"backend": self.backend, "mode": self.mode, "dynamic": self.dynamic, "fullgraph": self.fullgraph, "options": self.options}

    def compile_blocks(self, module: nn.Module) -> None:
        """Compile the blocks of `module` in place, if that is the scope.

        Raises:
            ConfigError: There is no block to compile.
        """
        if self.scope != "blocks":
            return
        blocks = list(self._instances(module))
        if not blocks:
            raise ConfigError(
                f'compile="blocks", but {class_name(module)} has no repeated block. Name the classes, '
                'compile=CompilePolicy("blocks", blocks=(Block,)), or use compile="model".'
            )
        for block in blocks:
            block.compile(**self.arguments)

    def compile_model(self, module: nn.Module) -> nn.Module:
        """Return the compiled module, if that is the scope; else `module`."""
        if self.scope != "model":
            return module
        import torch

        compiled: Any = torch.compile(module, **self.arguments)
        return compiled

    def _instances(self, module: nn.Module) -> Iterator[nn.Module]:
        if self.blocks is None:
            return iter(repeated_blocks(module))
        wanted = tuple(self.blocks)
        return (child for child in module.modules() if isinstance(child, wanted))


def as_policy(compile: object) -> CompilePolicy | None:
    """Turn `Fabric(compile=…)` into a policy.

    Raises:
        ConfigTypeError: It is neither `None`, a word nor a policy.
    """
    if compile is None or isinstance(compile, CompilePolicy):
        return compile
    if isinstance(compile, str):
        return CompilePolicy(compile)  # pyrefly: ignore[bad-argument-type] - checked there
    raise ConfigTypeError(f"compile={compile!r}: accepted are None, {listed(SCOPES)} and CompilePolicy(…).")


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the children of `ModuleList`s and `Sequential`s that repeat: at least two of one class, with parameters.

    The outermost ones only: a block inside a block belongs to its block.
    """
    found: list[nn.Module] = []
    inside: set[int] = set()
    for parent in module.modules():
        if not isinstance(parent, (nn.ModuleList, nn.Sequential)) or id(parent) in inside:
            continue
        for block in _same_class_children(parent):
            if id(block) not in inside:
                found.append(block)
                inside.update(id(part) for part in block.modules())
    return found


def _same_class_children(parent: Iterable[nn.Module]) -> list[nn.Module]:
    children = [child for child in parent if next(child.parameters(), None) is not None]
    counts = Counter(type(child) for child in children)
    return [child for child in children if counts[type(child)] > 1]


def take_apart(module: nn.Module) -> tuple[nn.Module, Callable[[nn.Module], nn.Module] | None]:
    """Return the module inside a compiled one, and the function that compiles another one the same way.

    For a module that was never compiled, the function is `None`.
    """
    dynamo = sys.modules.get("torch._dynamo")
    optimized: Any = getattr(getattr(dynamo, "eval_frame", None), "OptimizedModule", None)
    if optimized is None or not isinstance(module, optimized):
        return module, None
    compiled: Any = module
    inner, again = take_apart(compiled._orig_mod)

    def recompile(wrapped: nn.Module) -> nn.Module:
        return type(compiled)(again(wrapped) if again else wrapped, compiled.dynamo_ctx)

    return inner, recompile
