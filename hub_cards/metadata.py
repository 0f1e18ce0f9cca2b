# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run folder says about its model. A file or a number that is not there is left out, never guessed.

Every file is read once, here, and local folders are cut off its paths, because they name people and machines.
"""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError, safe_open

from visreg_training.bounded import check_shape
from visreg_training.run_folder import RunFolder, read_object

from .allowlist import is_other_family
from .license import Origin, origin_of_record
from .markup import plain


logger = logging.getLogger(__name__)

# The types of what is looked at in files that anybody may have edited.
_NUMBER = int | float
_DATA = {"dataset": str, "config": str, "split": str, "revision": str, "num_examples": _NUMBER, "fingerprint": str}
_TAKEN = {"layers": _NUMBER, "pooling": str, "limit": _NUMBER, "transform": {"size": [_NUMBER]}}
_SELECTION = {"on": str}
EVALUATION = {
    **dict.fromkeys(("protocol", "dataset", "config", "split", "revision", "metric"), str),
    "model": {"weights": str},
    "value": _NUMBER,
    "interval": [_NUMBER],
    "metrics": {},
    "settings": {"solver": str, "protocol": str},
    "features": _TAKEN,
    "selection": _SELECTION,
    "data": {"train": _DATA, "test": _DATA},
    "notes": [str],
}
RECORD = {"plan": {}, "source": _DATA, "held_out": _DATA, "environment": {}, "model": {"name": str}, "origin": {}}
_MEASURED = {"settings": {"knn": {}, "linear": {}}, "features": _TAKEN, "train": _DATA, "notes": [str]}
SUMMARY = {"evaluation": _MEASURED}


@dataclass
class RunMetadata:
    """The files of a run folder, read.

    Attributes:
        folder: where they lie.
        records: content of recipe.yaml, run.json and summary.json, by file name, of those that are there.
        initialized_from: `initialize_from` as it was given: a Hub id, a local directory, or None.
        plan, source, held_out, environment: of run.json.
        name: of the architecture.
        summary: numbers of summary.json; of a run under way, how far its newest checkpoint is.
        evaluations: content of evaluation/*.json, by file name, of results that were measured on these weights.
        config: config.json of the model.
        parameters: numbers in the model's weights, None without weights.
        unfinished: whether the weights are of a checkpoint of a run under way.
        origin: of the weights, where run.json or the card of a checkpoint directory says it.
    """

    folder: RunFolder
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    initialized_from: str | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    unfinished: bool = False
    origin: Origin | None = None

    @property
    def other_family(self) -> bool:
        """Whether the network is one of transformers or timm, not our own ViT."""
        return is_other_family(self.config)

    @property
    def width(self) -> Any:
        """Numbers in a feature, None where config.json does not say."""
        stages, embedding = self.config.get("hidden_sizes"), self.config.get("embed_dim")
        if isinstance(embedding, int) and isinstance(depths := self.config.get("depths"), list):
            return embedding * 2 ** (len(depths) - 1)  # Swin
        last = stages[-1] if isinstance(stages, list) and stages else None
        return self.config.get("hidden_size") or last or self.config.get("num_features")

    @property
    def network(self) -> str:
        """What kind of network it is, in words."""
        names = self.config.get("architectures") or [self.config.get("architecture")]
        return f"A network of another family ({plain(names[0])})" if self.other_family else "A Vision Transformer"

    @property
    def recipe(self) -> dict[str, Any]:
        """The options that say how the model came about."""
        return self.records.get(self.folder.recipe.name, {})


def read_metadata(folder: RunFolder, model: Path) -> RunMetadata:
    """What `folder` says about the checkpoint directory `model`; for a checkpoint without a run, both are the same.

    Raises:
        ValueError: a file of the run is not what it should be.
    """
    recipe, record = read_object(folder.recipe), public(read_shaped(folder.record, RECORD))
    summary = public(read_shaped(folder.summary, SUMMARY))
    records = {folder.recipe.name: public_recipe(recipe), folder.record.name: record, folder.summary.name: summary}
    newest = None if folder.finished() else folder.newest_checkpoint()
    return RunMetadata(
        folder=folder,
        records={name: content for name, content in records.items() if content},
        initialized_from=start if isinstance(start := recipe.get("initialize_from"), str) else None,
        plan=_present(record.get("plan")),
        source=_present(record.get("source")),
        held_out=_present(record.get("held_out")),
        environment=_present(record.get("environment")),
        name=(record.get("model") or {}).get("name"),
        summary=_progress(newest, record) if newest else _present(summary),
        config=read_object(model / "config.json"),
        parameters=count_parameters(model),
        evaluations=own_evaluations(folder, model),
        unfinished=newest is not None,
        origin=origin_of_record(record),
    )


def read_shaped(path: Path, shape: dict[str, Any]) -> dict[str, Any]:
    """`read_object`, whose values are of the types that a card takes them for.

    Raises:
        ValueError: it cannot be read, or a value is of another type; the message names the file and the value.
    """
    content = read_object(path)
    check_shape(content, shape, str(path))
    return content


def own_evaluations(folder: RunFolder, model: Path) -> dict[str, Any]:
    """Results in evaluation/, by file name. Those of other weights are left out, and named in the log."""
    found = {path.name: public(read_shaped(path, EVALUATION)) for path in sorted(folder.evaluation.glob("*.json"))}
    stated = {name: digest for name, content in found.items() if (digest := measured_weights(content))}
    if not stated:
        return found
    # Here, because they import torch, which a card without results can do without.
    from modeling_visreg import VISRegViTModel
    from modeling_visreg.checkpoint import weights_digest
    from modeling_visreg.loading import load_checkpoint

    if is_other_family(read_object(model / "config.json")):
        own = _digest_of_other(model)
    else:
        own = weights_digest(load_checkpoint(VISRegViTModel, model).state_dict())
    for name in (name for name, digest in stated.items() if digest != own):
        logger.warning("Left out of the card, because it was measured on other weights: %s", folder.evaluation / name)
        del found[name]
    return found


def _digest_of_other(model: Path) -> str:
    """The digest that results of a network of another family state: weights as in memory, zeros for a pooler that the
    checkpoint lacks.
    """
    from modeling_visreg.checkpoint import weights_digest

    if "architecture" in read_object(model / "config.json"):  # timm's, whose names in memory are those of the file
        from safetensors.torch import load_file

        return weights_digest(load_file(model / "model.safetensors"))
    import torch
    from transformers import AutoModel

    try:
        network, report = AutoModel.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # of any type: the configuration may hold anything
        raise ValueError(f"{model} cannot be opened: {error}".splitlines()[0]) from error
    weights = network.state_dict()
    for name in report["missing_keys"]:
        weights[name].zero_()
    return weights_digest(weights)


def measured_weights(result: dict[str, Any]) -> str | None:
    """The digest of the weights that a result was measured on, None where its file does not say."""
    return (result.get("model") or {}).get("weights")


def public_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it may be shown: the options that say how the model came about, and names that are no options."""
    if not recipe:
        return {}
    from visreg_training.config import option_names, shown_on_card  # here: it imports torch

    hidden = set(option_names()) - shown_on_card()
    return {name: public(value) for name, value in recipe.items() if name not in hidden}


def public(content: Any) -> Any:
    """The same content with local folders cut off its paths, at any depth."""
    if isinstance(content, dict):
        return {key: public(value) for key, value in content.items()}
    if isinstance(content, list):
        return [public(value) for value in content]
    if isinstance(content, str) and content.startswith(("/", "~", "./", "../")):
        return PurePath(content).name
    if isinstance(content, str) and PureWindowsPath(content).drive:
        return PureWindowsPath(content).name
    return content


def dataset_label(name: str, revision: Any) -> str:
    """The name of a data set; that of a local folder, such as `data`, would read as one and is marked.

    What comes from the Hub has an organization or, at least, a revision.
    """
    if name == "digits":
        return "digits (scikit-learn)"
    return name if revision or "/" in name else f"a local folder ({name})"


def count_parameters(model: Path) -> int | None:
    """Numbers in the safetensors files of a directory, read from their headers.

    Raises:
        ValueError: one of them cannot be read, or is a pipe, which would be waited for.
    """
    total = 0
    for path in sorted(model.glob("*.safetensors")):
        if not path.is_file():
            raise ValueError(f"{path.name} is no regular file")
        try:
            with safe_open(path, "np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path.name} cannot be read: {error}") from error
    return total or None


def is_number(value: Any) -> bool:
    """Whether this is a finite number, as only those are shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _progress(checkpoint: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The numbers that are known of a run under way."""
    state = read_object(checkpoint / "state.json")
    batch = (record.get("plan") or {}).get("global_batch_size")
    step = state.get("step")
    seen = step * batch if is_number(step) and is_number(batch) else None
    return _present({"steps": step, "images_seen": seen, "train_seconds": state.get("seconds")})


def _present(content: Any) -> dict[str, Any]:
    """A dict without its None and its numbers that are not finite."""
    if not isinstance(content, dict):
        return {}
    return {
        key: value
        for key, value in content.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
