# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Does adapting a pretrained backbone to some photos help? 20-NN and linear accuracy before and after, with intervals.

    python -m benchmarks.adapt --model FOLDER --data FOLDER_WITH_TRAIN_AND_TEST --output FOLDER [--minutes 25]

Sides: the start as it is; all of it trained on; adapters of low rank; the same architecture from random weights. Each
run is `pretrain` with the defaults for one's own images, at a size of views and a number of updates that fit the time:
an update is timed first, and what remains of `--minutes` after four evaluations is divided among the three. The test
images are looked at once a side; nothing is chosen on them. A side that adapt.json has is not repeated.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from visreg_training.backbones import open_backbone
from visreg_training.evaluation import FeatureCache, FeatureOptions, evaluate, open_sources
from visreg_training.evaluation.protocols.knn import KnnOptions
from visreg_training.evaluation.protocols.linear import LinearOptions
from visreg_training.pretrain import pretrain

from .measuring import machine


SIDES = ("start", "all of it", "LoRA", "from scratch")
TIMED_UPDATES = 4


def what_learns(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options by which a side differs from the others."""
    if side == "from scratch":
        return {"model": arguments.model, "from_scratch": True}
    return {"initialize_from": arguments.model} | ({"lora_rank": arguments.rank} if side == "LoRA" else {})


def train(side: str, arguments: argparse.Namespace, updates: int, folder: Path) -> dict[str, Any]:
    """One run of so many updates; returns its summary."""
    views = {"num_global": 2, "num_local": 2, "global_size": arguments.size, "local_size": arguments.local_size}
    return pretrain(
        dataset=arguments.data,
        output_dir=str(folder),
        overwrite=True,
        online_probe=False,
        max_steps=updates,
        global_batch_size=arguments.batch,
        num_slices=1024,
        num_workers=1,
        seed=arguments.seed,
        log_every=10,
        save_every=10**6,
        **views,
        **what_learns(side, arguments),
    )


def measure(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """20-NN and linear accuracy of a model with 95% intervals over the test images, at the size of the views."""
    backbone, sources = open_backbone(model), open_sources(arguments.data)
    cache, found = FeatureCache(arguments.output / "features"), {}
    features = FeatureOptions(layers=1, image_size=arguments.size)
    for name, options in (("knn", KnnOptions()), ("linear", LinearOptions())):
        result = evaluate(backbone, sources, options, features, cache, batch_size=64)
        found[name] = {"value": result["value"], "interval": result["interval"]}
    return found


def carry_out(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every side within the time; a row each. What adapt.json has is not repeated."""
    path = arguments.output / "adapt.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    for side in SIDES[len(rows) :]:
        row = {"side": side, "updates": 0, "seconds": 0.0}
        model = arguments.model
        if rows:
            share = (60 * arguments.minutes - len(SIDES) * rows[0]["measured_in"]) / (len(SIDES) - 1)
            model = str(arguments.output / side.replace(" ", "_"))
            row |= train_for(side, arguments, share, Path(model))
        began = time.perf_counter()
        row |= measure(model, arguments)
        rows.append(row | {"measured_in": time.perf_counter() - began})
        path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    return rows


def train_for(side: str, arguments: argparse.Namespace, seconds: float, folder: Path) -> dict[str, Any]:
    """A run of as many updates as fit the seconds, those of timing an update included."""
    began = time.perf_counter()
    timed = train(side, arguments, TIMED_UPDATES, arguments.output / "timed")
    left = seconds - (time.perf_counter() - began)
    updates = max(1, int(left / (timed["train_seconds"] / TIMED_UPDATES)))
    summary = train(side, arguments, updates, folder)
    return {"updates": updates, "seconds": summary["train_seconds"], "loss": summary["final_loss"]}


def table(rows: list[dict[str, Any]], batch: int) -> str:
    """Markdown: accuracies in percent with their intervals."""
    lines = ["| side | updates | images seen | minutes | 20-NN | linear |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        cells = [f"{100 * row[name]['value']:.1f} ({shown(row[name]['interval'])})" for name in ("knn", "linear")]
        seen = f"{row['updates']} | {row['updates'] * batch:,} | {row['seconds'] / 60:.1f}"
        lines.append(f"| {row['side']} | {seen} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(interval: list[float]) -> str:
    return " to ".join(f"{100 * bound:.1f}" for bound in interval)


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """In words: better only where the intervals do not overlap."""
    before, lines = rows[0], []
    for row in rows[1:]:
        for name in ("knn", "linear"):
            (low, high), (least, most) = row[name]["interval"], before[name]["interval"]
            word = "better than" if low > most else "worse than" if high < least else "not told apart from"
            lines.append(
                f"{row['side']}, {name}: {word} the start ({row[name]['value'] - before[name]['value']:+.3f})"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a pretrained backbone")
    parser.add_argument("--data", required=True, help="labeled images with a train and a test split")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, and of adapt.json")
    parser.add_argument("--minutes", type=float, default=25, help="of everything (default: 25)")
    parser.add_argument("--size", type=int, default=98, help="pixels of a global view, and of the test (default: 98)")
    parser.add_argument("--local_size", type=int, default=56, help="pixels of a local view (default: 56)")
    parser.add_argument("--batch", type=int, default=64, help="images an update (default: 64)")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters (default: 16)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = carry_out(arguments)
    print(f"\n{machine()}\n\n{table(rows, arguments.batch)}\n")
    print("\n".join(verdict(rows)))


if __name__ == "__main__":
    main()
