# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Released VISReg weights and timm state dicts to this model family, and back, without loss.

Strict: a missing, an unexpected or a misshapen key is named in a ValueError, nothing is skipped. timm is not needed.
Shapes: d width of the backbone, m hidden width of its MLP, N patches of the native grid, D dimension of projections.
"""

import math
import re
import uuid
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file

from .checkpoint import atomic_directory, disk_errors, follow_umask, write_checkpoint
from .configuration_visreg import VISRegViTConfig
from .loading import check_finite, load_checkpoint, local_directory, read_header
from .modeling_visreg import VISRegViTForPreTraining, VISRegViTModel


StateDict = dict[str, torch.Tensor]

# timm's names of the layers of a block -> ours. timm's fused qkv layer is three layers here.
_BLOCK = {
    "norm1": ("layernorm_before",),
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}

# The paper's models: width -> (heads, drop path rate, D). Heads and drop path do not follow from shapes.
_PAPER = {
    384: (6, 0.1, 128),
    768: (12, 0.1, 256),
    1024: (16, 0.1, 384),
    1280: (16, 0.2, 426),
    1408: (16, 0.3, 469),
}

# Positions of Linear, BN, Linear, BN, Linear in our projector; the activations between them hold no weights.
_PROJECTOR_POSITIONS = (0, 1, 3, 4, 6)
_PRETRAINING_FOLDER = "pretraining"
_CHECKPOINT_FILE = re.compile(  # in a directory that may be replaced
    r"README\.md|(config|preprocessor_config)\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
    r"|(configuration|modeling|image_processing|decoding)_visreg\.py|(curves|pca)\.png"
)
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SHOWN = 20  # names in a message
# What heads are called in timm and in other code.
_HEADS = ("head.", "head_dist.", "fc.", "fc_norm.", "classifier.", "linear.")


class ReleasedWeights(NamedTuple):
    """Weights read from a file: the backbone under timm's names; the projector as `0.weight`, ..., or empty."""

    backbone: StateDict
    projector: StateDict


def from_timm_state_dict(state_dict: StateDict, config: VISRegViTConfig) -> StateDict:
    """State dict of `VISRegViTModel` from that of timm's `VisionTransformer` (CLS token, no head).

    Raises:
        ValueError: keys are missing, unexpected or of another shape than `config` says; all are named.
    """
    _check_keys(state_dict, _timm_shapes(config), "the timm state dict")
    converted: StateDict = {}
    for theirs, ours in _names(config).items():
        # Clones, because safetensors refuses tensors that share memory.
        parts = state_dict[theirs].chunk(len(ours)) if len(ours) > 1 else [state_dict[theirs]]
        converted.update(zip(ours, (part.clone() for part in parts), strict=True))
    return converted


def to_timm_state_dict(state_dict: StateDict, config: VISRegViTConfig) -> StateDict:
    """State dict of timm's `VisionTransformer` from that of `VISRegViTModel`; the inverse of `from_timm_state_dict`.

    Raises:
        ValueError: keys are missing, unexpected or of another shape than `config` says; all are named.
    """
    names = _names(config)
    shapes: dict[str, tuple[int, ...]] = {}
    for theirs, shape in _timm_shapes(config).items():
        ours = names[theirs]
        part = (shape[0] // len(ours), *shape[1:])
        shapes.update(dict.fromkeys(ours, part))
    _check_keys(state_dict, shapes, "the state dict of VISRegViTModel")
    return {theirs: torch.cat([state_dict[name] for name in ours]) for theirs, ours in names.items()}


def config_from_timm_state_dict(
    state_dict: StateDict,
    num_attention_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    **overrides: Any,
) -> VISRegViTConfig:
    """The configuration that follows from the shapes of a timm state dict.

    Args:
        state_dict: timm's names, without prefixes.
        num_attention_heads: shapes do not define it; by default the paper's for its widths (384, 768, 1024, 1280,
            1408), else `width // 64`.
        image_size: native size in pixels, an int or (height, width); needed where the grid is not square.
        **overrides: other fields of `VISRegViTConfig`; drop path rate and `projection_size` default to the paper's
            for its widths.

    Raises:
        ValueError: the state dict lacks the keys that define the architecture, or the grid or the heads are not clear.
    """
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    if missing := [name for name in needed if name not in state_dict]:
        raise ValueError(f"Not a timm ViT state dict with a CLS token: it lacks {_listed(missing)}.")
    ranks = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2}
    if flat := [name for name, rank in ranks.items() if state_dict[name].ndim != rank]:
        raise ValueError(f"Not a timm ViT state dict: {_listed(flat)} has another number of axes.")
    width, channels, patch, patch_width = state_dict["patch_embed.proj.weight"].shape
    if patch != patch_width:
        raise ValueError(f"Only square patches are known; patch_embed.proj.weight has {patch} x {patch_width}.")
    blocks = {match[1] for name in state_dict if (match := re.match(r"blocks\.(\d+)\.", name))}
    if blocks != {str(index) for index in range(len(blocks))}:
        raise ValueError(f"The {len(blocks)} blocks are not numbered from 0 on: {_listed(sorted(blocks)[:3])}, ...")
    heads, drop_path_rate, projection_size = _PAPER.get(width, (width // 64, 0.1, 256))
    if num_attention_heads is None and (width not in _PAPER and width % 64):
        raise ValueError(f"The number of heads of a width of {width} is not known; pass num_attention_heads.")
    fields = {
        "hidden_size": width,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": num_attention_heads or heads,
        "intermediate_size": state_dict["blocks.0.mlp.fc1.weight"].shape[0],
        "image_size": image_size or _square_side(state_dict["pos_embed"].shape[1] - 1) * patch,
        "patch_size": patch,
        "num_channels": channels,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state_dict,
        "drop_path_rate": drop_path_rate,
        "projection_size": projection_size,
    }
    return VISRegViTConfig(**fields | overrides)


def read_released(path: str | Path, key: str | None = None, drop_head: bool = False) -> ReleasedWeights:
    """Reads released weights or a training checkpoint of the reference code.

    Accepts `.pth` or `.pt` (tensors and plain values only: `weights_only`) and `.safetensors`, which hold either a
    backbone's state dict under timm's names, or a whole network with `backbone.` and `proj.` prefixes, by itself or
    under the key `net_state_dict`. `_orig_mod.` (torch.compile) and `module.` (DDP) are removed, and the name that a
    module of Lightning gives the network (`model.`).

    Args:
        key: of the state dict in the file, such as "model" or "state_dict".
        drop_head: leave out what is neither backbone nor projector: a classifier, another head, a teacher.

    Raises:
        ValueError: the file is not one of these, or a key of the network is neither backbone nor projector; with what
            would be right.
    """
    network = strip_training_prefixes(read_tensors(path, (key,) if key else ("net_state_dict",), needed=bool(key)))
    network = _inner_network(network, path, drop_head)
    if not any(name.startswith("backbone.") for name in network):
        heads = {name for name in network if name.startswith(_HEADS)}
        if heads and not drop_head:
            raise ValueError(f"{path} has a head, {_listed(sorted(heads))}: --drop_head converts the rest.")
        return ReleasedWeights({name: tensor for name, tensor in network.items() if name not in heads}, {})
    parts: dict[str, StateDict] = {"backbone": {}, "proj": {}}
    unknown = []
    for name, tensor in network.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = tensor
        else:
            unknown.append(name)
    if unknown and not drop_head:
        raise ValueError(
            f"{path} holds keys that are neither backbone. nor proj.: {_listed(unknown)}; --drop_head leaves them out."
        )
    return ReleasedWeights(parts["backbone"], parts["proj"])


def _inner_network(network: StateDict, path: str | Path, drop_head: bool) -> StateDict:
    """A network without the name that a module around it gives it: `model.cls_token` -> `cls_token`.

    Raises:
        ValueError: there are several, or other parts beside it that nobody asked to leave out.
    """
    tokens = [name.removesuffix("cls_token") for name in network if name.endswith("cls_token")]
    found = {token.removesuffix("backbone.") for token in tokens}
    if "" in found or not found:
        return network
    if len(found) > 1:
        raise ValueError(f"{path} holds several networks, {_listed(sorted(found))}: save the one that is meant.")
    (prefix,) = found
    others = sorted(name for name in network if not name.startswith(prefix))
    if others and not drop_head:
        raise ValueError(f"{path} holds more than the network {prefix}: {_listed(others)}; --drop_head leaves it out.")
    return {name.removeprefix(prefix): tensor for name, tensor in network.items() if name.startswith(prefix)}


def strip_training_prefixes(state_dict: StateDict) -> StateDict:
    """The state dict without the `_orig_mod.` of torch.compile and the `module.` of DDP, anywhere in a name."""
    wrappers = {"_orig_mod", "module"}
    return {
        ".".join(part for part in name.split(".") if part not in wrappers): tensor
        for name, tensor in state_dict.items()
    }


def convert_checkpoint(
    source: str | Path,
    output_dir: str | Path,
    *,
    num_attention_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    key: str | None = None,
    drop_head: bool = False,
    overwrite: bool = False,
) -> Path:
    """Turns a file that `read_released` reads into a directory that `AutoModel` reads.

    Where the file holds a projector too, `output_dir/pretraining` becomes a directory of `VISRegViTForPreTraining`,
    backbone and projector. Linear and BN layers of the projector are taken in the order of their numbers, whatever
    is numbered between them: `proj.0/1/3/4/6` where activations count, `proj.0/1/4/5/8` where dropout does too.

    Args:
        source: `.pth`, `.pt` or `.safetensors`.
        output_dir: written atomically.
        num_attention_heads, image_size: see `config_from_timm_state_dict`.
        key, drop_head: see `read_released`.
        overwrite: whether to replace a checkpoint that is there; anything else in the directory is not deleted.

    Returns:
        `output_dir`.

    Raises:
        ValueError: what is wrong with the file, or `output_dir` is not empty, or holds more than a checkpoint.
    """
    if overwrite:
        _check_replaceable(Path(output_dir))
    released = read_released(source, key, drop_head)
    _check_types(released.backbone | (released.projector or {}), source)
    sizes = _projector_sizes(released.projector) if released.projector else {}
    config = config_from_timm_state_dict(released.backbone, num_attention_heads, image_size, **sizes)
    backbone = from_timm_state_dict(released.backbone, config)
    with atomic_directory(output_dir, overwrite) as staging:
        if released.projector:
            network = {f"vit.{name}": tensor for name, tensor in backbone.items()}
            network |= _projector_from_released(released.projector, config)
            pretraining = VISRegViTForPreTraining.from_pretrained(None, config=config, state_dict=network)
            write_checkpoint(pretraining, staging / _PRETRAINING_FOLDER)
        model = VISRegViTModel.from_pretrained(None, config=config, state_dict=backbone)
        write_checkpoint(model, staging)
    return Path(output_dir)


def _check_types(weights: StateDict, source: str | Path) -> None:
    """Raises ValueError for numbers that no model here computes with; counters alone are whole."""
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    if others := [f"{name} ({tensor.dtype})" for name, tensor in weights.items() if tensor.dtype not in _FLOATS]:
        raise ValueError(f"{source} holds weights that are not of floating point: {_listed(others)}.")


def _check_replaceable(directory: Path) -> None:
    """Raises ValueError with the first file of a directory that is no part of a checkpoint."""
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    for path in entries:
        if path.name == _PRETRAINING_FOLDER and path.is_dir() and not path.is_symlink():
            _check_replaceable(path)
        elif not _CHECKPOINT_FILE.fullmatch(path.name):
            raise ValueError(f"{path} is no part of a checkpoint, so it is not deleted: move it away first.")


def to_released(model_dir: str | Path, output: str | Path, overwrite: bool = False) -> Path:
    """Writes the backbone of a checkpoint directory as the release has it: timm's names, no head.

    Args:
        model_dir: a directory of any VISReg ViT class.
        output: `.pth`, `.pt` or `.safetensors`; written atomically, with the permissions that the umask gives.
        overwrite: whether to replace a file that is there.

    Returns:
        `output`.

    Raises:
        ValueError: the suffix is another, the file is there, or the directory lacks weights of the backbone.
    """
    output = Path(output)
    if output.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"{output} must end in .pth, .pt or .safetensors.")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists; choose another name or ask to overwrite it.")
    model = load_checkpoint(VISRegViTModel, local_directory(model_dir), dtype=None)
    state_dict = to_timm_state_dict(model.state_dict(), model.config)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = output.with_name(f".{output.name}.{uuid.uuid4().hex}")  # a name that nobody laid a link under
    try:
        with disk_errors(output):
            if output.suffix == ".safetensors":
                save_file(state_dict, staging)
            else:
                torch.save(state_dict, staging)
        follow_umask(output.parent, [staging])
        staging.replace(output)
    finally:
        staging.unlink(missing_ok=True)
    return output


def _names(config: VISRegViTConfig) -> dict[str, tuple[str, ...]]:
    """timm's name of each tensor -> ours, of which there are several where timm stacks them along the first axis."""
    names: dict[str, tuple[str, ...]] = {
        "cls_token": ("embeddings.cls_token",),
        "pos_embed": ("embeddings.position_embeddings",),
        "patch_embed.proj.weight": ("embeddings.patch_embeddings.projection.weight",),
        "patch_embed.proj.bias": ("embeddings.patch_embeddings.projection.bias",),
    }
    for index in range(config.num_hidden_layers):
        for theirs, ours in _BLOCK.items():
            for kind in ("weight", "bias"):
                if (theirs, kind) != ("attn.qkv", "bias") or config.qkv_bias:
                    full_names = tuple(f"encoder.layer.{index}.{name}.{kind}" for name in ours)
                    names[f"blocks.{index}.{theirs}.{kind}"] = full_names
    return names | {f"norm.{kind}": (f"layernorm.{kind}",) for kind in ("weight", "bias")}


def _timm_shapes(config: VISRegViTConfig) -> dict[str, tuple[int, ...]]:
    """timm's name of each tensor -> its shape."""
    d, m, patch = config.hidden_size, cast(int, config.intermediate_size), config.patch_size
    block: dict[str, tuple[int, ...]] = {"norm1": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "norm2": (d,)}
    block |= {"mlp.fc1": (m, d), "mlp.fc2": (d, m)}
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 1 + math.prod(config.grid_size), d),
        "patch_embed.proj.weight": (d, config.num_channels, patch, patch),
        "patch_embed.proj.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    for name in _names(config):
        if match := re.fullmatch(r"blocks\.\d+\.(.+)\.(weight|bias)", name):
            shapes[name] = block[match[1]] if match[2] == "weight" else block[match[1]][:1]
    return shapes


def _projector_numbers(projector: StateDict) -> list[str]:
    """Numbers of the released projector's Linear, BN, Linear, BN, Linear, in this order."""
    numbers = sorted({name.partition(".")[0] for name in projector}, key=lambda number: (len(number), number))
    weights = [projector.get(f"{number}.weight", torch.empty(())) for number in numbers]
    if [weight.ndim for weight in weights] != [2, 1, 2, 1, 2]:
        raise ValueError(
            f"A projector is Linear, BN, Linear, BN, Linear; the one found has the keys {_listed(sorted(projector))}."
        )
    return numbers


def _projector_sizes(projector: StateDict) -> dict[str, int]:
    """The fields of the configuration that follow from a released projector's shapes."""
    first, *_, last = _projector_numbers(projector)
    return {
        "projector_hidden_size": projector[f"{first}.weight"].shape[0],
        "projection_size": projector[f"{last}.weight"].shape[0],
    }


def _projector_from_released(projector: StateDict, config: VISRegViTConfig) -> StateDict:
    """A released projector under its names in `VISRegViTForPreTraining`."""
    d, hidden = config.hidden_size, config.projector_hidden_size
    numbers = _projector_numbers(projector)
    shapes: dict[str, tuple[int, ...]] = {}
    linear_shapes = [(hidden, d), (hidden, hidden), (config.projection_size, hidden)]
    for number, shape in zip(numbers[::2], linear_shapes, strict=True):
        shapes |= {f"{number}.weight": shape, f"{number}.bias": shape[:1]}
    for number in numbers[1::2]:
        shapes |= {f"{number}.{name}": (hidden,) for name in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{number}.num_batches_tracked"] = ()
    _check_keys(projector, shapes, "the projector (proj.)")
    positions = dict(zip(numbers, _PROJECTOR_POSITIONS, strict=True))
    renamed = {}
    for name, tensor in projector.items():
        number, _, kind = name.partition(".")
        renamed[f"projector.{positions[number]}.{kind}"] = tensor
    return renamed


def read_tensors(path: str | Path, keys: tuple[str, ...] = ("net_state_dict",), needed: bool = False) -> StateDict:
    """The tensors of a file of weights, by name; no code in it is run, whatever the file is.

    Args:
        path: `.safetensors`; `.pth` or `.pt` hold a state dict by itself or under the first of `keys` that is there.
        needed: whether one of `keys` has to be there.

    Raises:
        ValueError: it is another file, cut, or holds something else than dense tensors with finite values.
    """
    path = Path(path)
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"{path} must end in .pth, .pt or .safetensors.")
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    content = _unpickled(path) if path.suffix != ".safetensors" else _read_safetensors(path)
    if needed and not (isinstance(content, dict) and any(content.get(key) is not None for key in keys)):
        there = _listed(sorted(map(str, content))) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} has no {' or '.join(keys)}: it holds {there}.")
    if isinstance(content, dict):
        content = next((content[key] for key in keys if content.get(key) is not None), content)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict.")
    if others := [str(name) for name, value in content.items() if not _is_dense(name, value)]:
        fitting = [str(name) for name, value in content.items() if _is_state_dict(value)]
        advice = f" State dicts are under {_listed(fitting)}: --key {fitting[0]} takes one." if fitting else ""
        raise ValueError(f"{path} is not a state dict: these entries are not tensors: {_listed(others)}.{advice}")
    check_finite(content, str(path))
    return content


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(_is_dense(name, part) for name, part in value.items())


def _is_dense(name: Any, value: Any) -> bool:
    """Whether this is an entry of a state dict whose numbers are all there."""
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and not value.is_quantized
    )


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, if that is tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a file of anybody's makes the reader of pickles fail in any way there is
        # torch says first how to run the code all the same, then what it refused.
        refused = re.search(
            r"unsupported (global|operand|type|class)\b.*?(?= was not| whose|[.]?$)", str(error), re.M | re.I
        )
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = (refused[0] if refused else reason)[:300]
        raise ValueError(f"{path} is not a file of tensors and plain values: {reason}") from error


def _read_safetensors(path: Path) -> StateDict:
    read_header(path)
    return load_file(path)


def _check_keys(state_dict: StateDict, shapes: dict[str, tuple[int, ...]], what: str) -> None:
    """Raises a ValueError that names each key that is missing, unexpected or of another shape."""
    problems = []
    if missing := [name for name in shapes if name not in state_dict]:
        problems.append(f"missing {_listed(missing)}")
    if extra := [name for name in state_dict if name not in shapes]:
        problems.append(f"unexpected {_listed(extra)}")
    misshapen = [
        f"{name} {tuple(state_dict[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    if misshapen:
        problems.append(f"misshapen {_listed(misshapen)}")
    if problems:
        raise ValueError(f"Keys of {what} do not fit the configuration: {'; '.join(problems)}.")


def _square_side(num_patches: int) -> int:
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"{num_patches} positions are not a square grid; pass image_size=(height, width).")
    return side


def _listed(names: list[str]) -> str:
    rest = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(name[:120] for name in names[:_SHOWN]) + rest
