# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A result as one JSON file, and several of them as one markdown table.

Every file has `protocol`, `dataset`, `config`, `split`, `revision`, `fingerprint`, `metric`, `value` (a share of 1),
`interval` (two shares), `metrics`, `notes` (sentences without which the value would mislead), `selection` (null, or
what was chosen `on` which images), `settings`, `features`, `model`, `data`, `versions`, `device`, `processes`,
`seconds` and `created` (UTC).
"""

import math
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...bounded import check_shape, parse_json, read_text
from ...distributed import process_state
from ...run_folder import Json, write_json
from ..outcome import Outcome


SCHEMA = 1
_PACKAGES = ("visreg", "torch", "transformers", "datasets", "accelerate", "scikit-learn", "timm")


def make_result(
    protocol: str,
    outcome: Outcome,
    model: Json,
    data: Json,
    features: Json | None,
    seconds: dict[str, float],
    entry: str | None = None,
) -> Json:
    """The content of the file.

    Args:
        model: `Backbone.description()`.
        data: description of each source; the test split is named at the top level too.
        features: what features were taken and how, None where the protocol takes none.
        entry: the key of the data set in the table of suites.
    """
    test = data["test"]
    state = process_state()
    result = {"schema": SCHEMA, "protocol": protocol}
    result |= {name: test.get(name) for name in ("dataset", "config", "split", "revision", "fingerprint")}
    result |= {"entry": entry, "metric": outcome.metric, "value": outcome.value, "interval": list(outcome.interval)}
    result |= {"interval_level": 0.95, "metrics": outcome.metrics, "notes": outcome.notes}
    result |= {"selection": outcome.selection}
    result |= {"settings": outcome.settings, "features": features, "model": model, "data": data}
    result |= {"versions": versions(), "device": str(state.device), "processes": state.num_processes}
    result |= {"seconds": {name: round(value, 3) for name, value in seconds.items()}}
    result["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return without_nan(result)


def versions() -> dict[str, str]:
    """Python and the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def without_nan(content: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


_NUMBER = int | float
_WORDS = ("protocol", "dataset", "metric")
_IMAGES = {"fingerprint": str, "split": str}
_SHAPE = {
    **dict.fromkeys((*_WORDS, "config", "split", "entry"), str),
    "model": {"name": str, "weights": str},
    "value": _NUMBER,
    "interval": [_NUMBER],
    "metrics": {"balanced_accuracy": _NUMBER, "majority_share": _NUMBER},
    "settings": {"solver": str, "protocol": str, "images": str},
    "features": {
        **dict.fromkeys(("layers", "limit", "seed"), _NUMBER), "pooling": str, "transform": {"size": [_NUMBER]}
    },
    "selection": {"on": str},
    "data": {
        **dict.fromkeys(("train", "test"), _IMAGES), **dict.fromkeys(("train_images", "test_images"), _NUMBER),
        "train_share": _NUMBER, "share_rule": str,
    },
    "notes": [str],
}  # fmt: skip


def write_result(result: Json, path: Path) -> Path:
    """One JSON file, whole or absent.

    Args:
        path: a file ending in .json, or a folder, where the file is named after protocol, data and split.
    """
    if path.suffix != ".json":
        path = path / f"{file_name(result)}.json"
    write_json(path, result)
    return path


def file_name(result: Json) -> str:
    """Protocol, data, split, and what is not the default: other ways of measuring have files of their own."""
    name = result.get("entry") or Path(str(result["dataset"])).name
    parts = [result["protocol"], name, result.get("split") or "test"]
    settings, features = result.get("settings") or {}, result.get("features") or {}
    if settings.get("solver") == "lbfgs" or str(settings.get("images", "")).startswith("random"):
        parts.append("lbfgs" if settings["solver"] == "lbfgs" else "augmented")
    if features.get("layers") not in (None, default_layers(result["protocol"])):
        parts.append(f"{features['layers']}-blocks")
    if features.get("image_size"):
        size = features["image_size"]
        parts.append(f"{size}px" if isinstance(size, int) else "x".join(map(str, size)) + "px")
    if ((result.get("data") or {}).get("train") or {}).get("subset"):
        parts.append("subset")
    if settings.get("protocol"):
        parts.append(settings["protocol"])
    if (result.get("selection") or {}).get("on") == "test":
        parts.append("chosen-on-test")
    return "-".join("".join(c if c.isalnum() or c in "._-" else "_" for c in part) for part in parts)


def default_layers(protocol: str) -> int | None:
    """Blocks that a protocol takes by default; None for one that is not known, or takes none."""
    from ..protocols import get_protocol, protocol_names  # here: protocols report by this folder

    if protocol not in protocol_names():
        return None
    known = get_protocol(protocol)
    return known.layers if known.takes_features else None


def way(result: Json) -> str:
    """`chosen on test; SGD, random crops; CLS of the last 4 blocks; 224 px`: how a result was measured, as far as its
    file says; results of other ways are not compared."""
    settings, features = result.get("settings") or {}, result.get("features") or {}
    on = (result.get("selection") or {}).get("on")
    parts = [f"chosen on {on}" if on else "nothing chosen"]
    if settings.get("protocol"):
        parts.insert(0, f"{settings['protocol']} protocol")
    if solver := settings.get("solver"):
        crops = ", random crops" if str(settings.get("images", "")).startswith("random") else ""
        parts.append({"sgd": "SGD", "lbfgs": "L-BFGS"}.get(solver, solver) + crops)
    if layers := features.get("layers"):
        taken = {"mean": "patches", "both": "CLS and patches"}.get(features.get("pooling"), "CLS")
        parts.append(f"{taken} of the last " + (f"{layers} blocks" if layers > 1 else "block"))
    size = (features.get("transform") or {}).get("size") or features.get("size")
    if size:
        parts.append(f"{size[0]} px" if size[0] == size[1] else f"{size[0]} x {size[1]} px")
    return "; ".join(parts)


def images_of(result: Json) -> tuple:
    """Which images a result was learned from and tested on; None for what its file does not say."""
    data, taken = result.get("data") or {}, result.get("features") or {}
    of = [((data.get(split) or {}).get("fingerprint"), data.get(f"{split}_images")) for split in ("train", "test")]
    return (*of, taken.get("limit"), taken.get("seed"), data.get("train_share"), data.get("share_rule"))


def read_result(path: Path) -> Json:
    """The content of a file of `write_result`.

    Raises:
        ValueError: it is something else.
    """
    try:
        content = parse_json(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no result of `visreg evaluate`: {error}") from error
    if not isinstance(content, dict) or not {"protocol", "dataset", "metric", "value", "model"} <= content.keys():
        raise ValueError(f"{path} is no result of `visreg evaluate`")
    check_result(content, str(path))
    return content


def check_result(content: Json, where: str) -> None:
    """Raises ValueError, with the field, where one that is shown is of another type: files are edited by hand."""
    check_shape(content, _SHAPE, where)
    if content["model"] is None:
        raise ValueError(f"{where}: model is missing")
    for name, value in (*((name, content[name]) for name in _WORDS), ("model.name", content["model"].get("name"))):
        if value is None:
            raise ValueError(f"{where}: {name} is missing")
    size = ((content.get("features") or {}).get("transform") or {}).get("size")
    for name, pair in (("interval", content.get("interval")), ("features.transform.size", size)):
        if pair is not None and (len(pair) != 2 or None in pair):
            raise ValueError(f"{where}: {name} is not two numbers")


def percent(result: Json, interval: bool = True) -> str:
    """`75.7 (74.9 to 76.4)`; where classes differ in size, `75.7 (74.9 to 76.4; balanced 51.0, majority 70.2)`."""
    if result["value"] is None:
        return "undefined"
    shown = f"{100 * result['value']:.1f}"
    low, high = result.get("interval") or (None, None)
    beside = [f"{100 * low:.1f} to {100 * high:.1f}"] if interval and low is not None else []
    metrics = result.get("metrics") or {}
    if interval and "balanced_accuracy" in metrics:
        balanced, majority = metrics["balanced_accuracy"], metrics["majority_share"]
        beside.append(f"balanced {100 * balanced:.1f}, majority {100 * majority:.1f}")
    return f"{shown} ({'; '.join(beside)})" if beside else shown


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table; the first column is text, the others are aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
