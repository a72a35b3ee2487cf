"""What tells that a replica is as it was when it was loaded."""

from torch import nn


def fingerprint(*models: nn.Module) -> list[tuple[object, ...]]:
    """Return what must not change: modules, their hooks and modes, parameters and versions."""
    state: list[tuple[object, ...]] = [
        (
            name,
            id(module),
            module.training,
            len(module._forward_hooks),  # noqa: SLF001 - torch has no public count
            len(module._forward_pre_hooks),  # noqa: SLF001
            len(module._backward_hooks),  # noqa: SLF001
            len(module._backward_pre_hooks),  # noqa: SLF001
        )
        for model in models
        for name, module in model.named_modules()
    ]
    state += [
        (id(tensor), tensor.requires_grad, tensor.data_ptr(), tensor._version)  # noqa: SLF001 - counts writes
        for model in models
        for tensor in (*model.parameters(), *model.buffers())
    ]
    return state
