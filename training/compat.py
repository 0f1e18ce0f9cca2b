# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Private names of libraries, and names that differ between their versions, sorted by library: one function each.

Of a private name it says why nothing public does, of one that differs up to which version.

tests/test_compat.py has a canary for each, which names the library whose upgrade broke it. Libraries are imported
inside the functions, because the floor is cheap to import.
"""

from typing import TYPE_CHECKING, Any, cast


if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from datasets import IterableDataset
    from torch import nn
    from transformers import PreTrainedModel


# --- accelerate


def reset_accelerate() -> None:
    """Forget the precision of an earlier run of this program; Accelerate has no public way to start a second one."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()


# --- datasets


def resolve_features(dataset: "IterableDataset") -> "IterableDataset":
    """The stream with its features, read off the first rows where no metadata say them (WebDataset).

    The public `features` is None for such a stream, and `cast` and `select_columns` need them.
    """
    return dataset._resolve_features()


# --- huggingface_hub


def bound_hub_client(seconds: float, longest_pause: float) -> None:
    """Gives huggingface_hub's client a limit for each wait, and the pauses that a server asks for one too.

    Its calls of the API pass `timeout=None`, and it obeys a Retry-After of any length; publicly there is only a whole
    client to put in the place of its own, which is made by a private function.

    Args:
        seconds: without a byte, after which a request has failed.
        longest_pause: seconds; a server that asks for more is taken to have asked for this.
    """
    import huggingface_hub
    from huggingface_hub.utils import _http

    present: Any = _http._GLOBAL_CLIENT_FACTORY
    if getattr(present, "bounds", None) == (seconds, longest_pause):
        return
    inner = getattr(present, "inner", present)

    def limit(request: Any) -> None:
        given = request.extensions.get("timeout") or {}
        phases = ("connect", "read", "write", "pool")
        limits = {phase: min(given.get(phase) or seconds, seconds) for phase in phases}
        request.extensions = {**request.extensions, "timeout": limits}

    def shorten(response: Any) -> None:
        asked = str(response.headers.get("Retry-After", "")).strip()
        if asked.isdigit() and (len(asked) > 9 or int(asked) > longest_pause):
            response.headers["Retry-After"] = str(int(longest_pause))
        if "ratelimit" in response.headers:  # the same wish in another header: "api";r=0;t=99999
            del response.headers["ratelimit"]
            response.headers.setdefault("Retry-After", str(int(longest_pause)))

    def factory() -> Any:
        client = inner()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks.get("request", []), limit],
            "response": [*hooks.get("response", []), shorten],
        }
        return client

    factory.bounds, factory.inner = (seconds, longest_pause), inner  # type: ignore[attr-defined]
    huggingface_hub.set_client_factory(factory)


# --- torch


def traces_transformers() -> bool:
    """Whether this torch can trace transformers' models.

    Their decorators look at the code of the function they wrap, which dynamo of torch 2.6 does not follow; 2.8 does.
    """
    import torch

    return torch.__version__ >= "2.8"


def check_tracing(what: str) -> None:
    """Raises ValueError where `traces_transformers` is false."""
    import torch

    if not traces_transformers():
        raise ValueError(f"{what} needs torch 2.8 or newer, this is {torch.__version__}")


def compile_without_ddp_splits() -> None:
    """Leave a compiled block whole: inside DDP, dynamo would split it where a bucket of gradients ends.

    That is meant for a whole model, whose backward would else be over before the first bucket is sent.
    """
    import torch._dynamo

    torch._dynamo.config.optimize_ddp = False


def allow_graphs(count: int) -> None:
    """Lets dynamo make so many graphs of one function, 8 by default: frozen and adapted blocks have their own.

    Privately, because `torch.compile` takes no such limit.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(count, torch._dynamo.config.recompile_limit)


def empty_shared(shape: tuple[int, ...], dtype: "torch.dtype") -> "torch.Tensor":
    """A tensor in shared memory from the start, as torch's own `default_collate` makes it in a worker.

    The public way, `torch.empty(...).share_memory_()`, allocates twice and copies.
    """
    import math

    import torch

    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]


def stop_loader_workers(batches: Any) -> None:
    """Ends the workers of a DataLoader's iterator now, with SIGKILL where they ignore SIGTERM.

    Publicly they end when the iterator is collected, which an exception's traceback may delay, and those that leave
    signals to their parent would not end then.
    """
    if hasattr(batches, "_workers"):
        batches._shutdown_workers()
        for worker in batches._workers:
            if worker.is_alive():
                worker.kill()


def all_gather_single(full: "torch.Tensor", own: "torch.Tensor", group: "dist.ProcessGroup") -> None:
    """Fills `full` (N * rows, ...) with the `own` (rows, ...) of all N processes.

    torch 2.13 or 2.14 brought the name and 2.14 warns of `all_gather_into_tensor`, the only one before.
    """
    import torch.distributed as dist

    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(full, own, group=group)


def reduce_scatter_single(own: "torch.Tensor", full: "torch.Tensor", group: "dist.ProcessGroup") -> None:
    """Fills `own` (rows, ...) with this process's part of the sum over processes of `full` (N * rows, ...).

    The name came with that of `all_gather_single`; before, it was `reduce_scatter_tensor`.
    """
    import torch.distributed as dist

    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(own, full, group=group)


# --- transformers


def attention_implementation(model: "PreTrainedModel") -> str:
    """Name of the attention that a model computes with; `set_attn_implementation` sets it, nothing public tells it."""
    return model.config._attn_implementation


def enable_activation_checkpointing(model: "PreTrainedModel") -> None:
    """Computes the activations of each block again in backward; `gradient_checkpointing_enable` up to 5.22."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def is_activation_checkpointing(model: "PreTrainedModel") -> bool:
    """Whether it does; `is_gradient_checkpointing` up to 5.22."""
    if hasattr(model, "is_activation_checkpointing"):
        return model.is_activation_checkpointing
    return model.is_gradient_checkpointing


def checkpoints_in_forward(layer_class: "type[nn.Module]") -> bool:
    """Whether activation checkpointing happens in a layer's `forward`, wrapped by transformers; else in `__call__`.

    It moved after 5.17, with 5.23 at the latest.
    """
    return hasattr(layer_class.forward, "__wrapped__")


def install_capturing_hooks(encoder: "PreTrainedModel", attentions: bool = True) -> None:
    """Install the hooks that collect hidden states now: at the first forward, a lock around it breaks the graph.

    Args:
        encoder: of a ViT.
        attentions: those inside the layers too, which collect the attention's weights.
    """
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    maybe_install_capturing_hooks(encoder)
    if not attentions:
        for layer in cast("nn.ModuleList", encoder.layer):
            cast("nn.Module", layer.attention)._forward_hooks.clear()
