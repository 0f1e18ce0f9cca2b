# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How many kernels a GPU would be asked to launch: operations of torch that compute, and kernels in Triton.

Nothing needs a GPU: the operations are those that torch dispatches, whatever the device of the tensors is, and the
kernels those that Triton's interpreter, or a GPU where there is one, is asked to run. An operation counts as one
launch. Some make more: a sort, the sum of many numbers.
"""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from unittest import mock

from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes


OURS = "visreg"
WITHOUT_LAUNCH = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "device", "is_same_size"}


class Launches(TorchDispatchMode):
    """`names`: of the operations and kernels, in order. Operators of ours count as what their code launches."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, _, name = function._schema.name.partition("::")
        if namespace == OURS:
            with self:
                return OPDEFS[function._schema.name]._init_fn(*args, **(kwargs or {}))
        is_view = any(value.alias_info and not value.alias_info.is_write for value in function._schema.returns)
        if not is_view and name not in WITHOUT_LAUNCH:
            self.names.append(name)
        return function(*args, **(kwargs or {}))

    def __len__(self) -> int:
        return len(self.names)


@contextlib.contextmanager
def counted_launches() -> Iterator[Launches]:
    """What is launched inside the block, backward included."""
    launches = Launches()
    with contextlib.ExitStack() as stack:
        if find_spec("triton") is not None:
            from triton.runtime.interpreter import InterpretedFunction
            from triton.runtime.jit import JITFunction

            for kind in (InterpretedFunction, JITFunction):
                stack.enter_context(mock.patch.object(kind, "run", _counted(kind.run, launches)))
        stack.enter_context(launches)
        yield launches


def _counted(run, launches):
    def counted(kernel, *args, **options):
        launches.names.append(kernel.fn.__name__)
        with _disable_current_modes():  # the interpreter copies its arguments by torch's operations
            return run(kernel, *args, **options)

    return counted
