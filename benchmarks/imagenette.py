# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Accuracy on Imagenette against the wall-clock time of training: ours, and beside it the loop on lightly's parts.

    python -m benchmarks.imagenette --data IMAGENETTE --output FOLDER --setting cpu --minutes 8 --seeds 3
    python -m benchmarks.imagenette --data IMAGENETTE --output FOLDER --setting h100 --minutes 7 --sides ours
    python -m benchmarks.imagenette --data IMAGENETTE --output FOLDER --setting h100 --minutes 2.5 --sides lightly

Both sides get the same network, views, batch, optimizer and minutes; how many updates a side makes in them is measured
once and kept, so that seeds differ in nothing else. They learn from nine tenths of the training images; the curve is
20-NN on the other tenth, and choices (`--learning_rate`) are made there. The validation split is looked at once, after
the last update. Seconds are those of training: measuring does not count. A run is a process; FOLDER keeps a JSON file
for each that is finished, and what is there is not repeated. table.md and imagenette.png are written after every run.

An update is timed for at most a third of the minutes, so that a CPU can try a GPU's setting:
`--setting h100 --minutes 1 --batch 16 --limit 500`.

The settings: `h100` is the recipe imagenette_h100; `cpu` a ViT of width 96 and 4 blocks, patch 8, 2 x 64 + 4 x 32 px.
Images are packed (`visreg pack`) into FOLDER first, at the size that the setting wants.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from visreg_training.backbones import Backbone, wrap_backbone
from visreg_training.config import LearningRateSchedule, config_from, from_keywords
from visreg_training.config.estimate import step_cost
from visreg_training.config.options import PretrainOptions
from visreg_training.config.recipe import read_recipe
from visreg_training.data import open_stream
from visreg_training.data.options import PackOptions
from visreg_training.data.pack import pack
from visreg_training.evaluation.features import extract_features
from visreg_training.evaluation.frozen import frozen_accuracy
from visreg_training.evaluation.protocols.knn import knn_accuracy
from visreg_training.loop.run import build_run, build_step_on_meta
from visreg_training.loop.updates import prepare, updates
from visreg_training.loop.views import build_batches
from visreg_training.run_folder import write_json, write_text

from .lightly_loop import SETTINGS, LightlyLoop
from .measuring import ROOT, machine
from .quality import from_timm


SIDES = ("ours", "lightly")
CPU = SETTINGS["cifar10"] | {
    "hidden_size": 96,
    "num_attention_heads": 3,
    "patch_size": 8,
    "global_size": 64,
    "local_size": 32,
    "num_slices": 1024,
    "learning_rate": 2e-3,
    "global_batch_size": 128,
}
SIZES = {"cpu": 80, "h100": 160}  # pixels of the packed images' shorter side
WARMUP = 0.05  # share of the updates
POINTS = 6  # of a curve, after its first
KNN_IMAGES = 2048  # that the curve's 20-NN looks among
CALIBRATION = ((8, 0.1), (30, 0.25))  # updates left out, then timed: at most so many, or a share of the minutes
# stable-pretraining's table: ViT-S/16, 200 epochs, 20-NN and linear accuracy.
PUBLISHED = {"VISReg, 200 epochs": (0.865, 0.902), "DINO, 200 epochs": (0.838, 0.861)}
COLORS = {"ours": "tab:blue", "lightly": "tab:gray"}
Step = Callable[[], object]


def options_of(setting: str, folder: Path, seed: int, steps: int, changes: dict) -> PretrainOptions:
    """The options of a run of so many updates."""
    base = dict(CPU) if setting == "cpu" else read_recipe("imagenette_h100")
    for name in ("dataset", "dataset_config", "eval_split", "split", "streaming", "output_dir", "probe_every"):
        base.pop(name, None)
    workers = min(int(base["num_workers"]), os.cpu_count() or 1)
    fixed = {"dataset": str(folder / "data" / "train.parquet"), "output_dir": str(folder / "run"), "seed": seed}
    fixed |= {"max_steps": steps, "epochs": 100, "warmup_epochs": 100 * WARMUP, "online_probe": False}
    return from_keywords(**base | {"num_workers": workers} | fixed | changes)


def prepare_images(data: str, folder: Path, size: int, limit: int | None = None) -> None:
    """Three files: nine tenths of the training images, the other tenth, and the validation split.

    `limit` images of either split, drawn at random, for a trial.
    """
    from datasets import load_dataset

    if (folder / "data" / "validation.parquet").is_file():
        return
    for split in ("train", "validation"):
        pack(open_stream(data, split=split, streaming=False), folder / "packed", PackOptions(size=size, quality=95))
    rows = {
        split: load_dataset("parquet", data_files=str(folder / f"packed/data/{split}-*.parquet"), split="train")
        for split in ("train", "validation")
    }
    drawn = {split: table.shuffle(seed=0).take(min(limit or len(table), len(table))) for split, table in rows.items()}
    tenth = len(drawn["train"]) // 10
    (folder / "data").mkdir(exist_ok=True)
    drawn["train"].take(tenth).to_parquet(str(folder / "data" / "tenth.parquet"))
    drawn["train"].skip(tenth).to_parquet(str(folder / "data" / "train.parquet"))
    drawn["validation"].to_parquet(str(folder / "data" / "validation.parquet"))


def images(folder: Path, *names: str, limit: int | None = None) -> Iterable[tuple]:
    """(image, label, id) of some of the files."""
    return chain(*(open_stream(folder / "data" / f"{name}.parquet").examples(limit=limit) for name in names))


def curve_point(backbone: Backbone, folder: Path) -> float:
    """20-NN accuracy on the tenth."""
    train, tenth = (extract_features(backbone, images(folder, name, limit=KNN_IMAGES)) for name in ("train", "tenth"))
    return knn_accuracy(train.features, train.labels, tenth.features, tenth.labels)


@contextmanager
def our_side(options: PretrainOptions) -> Iterator[tuple[Step, Callable[[], Backbone]]]:
    """One update of the loop of `visreg pretrain`, and its backbone."""
    run = build_run(options, choose_missing=False)
    with closing(build_batches(run)) as batches:
        every = updates(run, prepare(run), batches)
        yield lambda: next(every), lambda: wrap_backbone(run.model)


@contextmanager
def lightly_side(options: PretrainOptions) -> Iterator[tuple[Step, Callable[[], Backbone]]]:
    """The same of the loop on lightly's parts."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = vars(options) | config_from(options).to_dict()
    loop = LightlyLoop(str(options.dataset), sizes, options.seed, device)
    steps = int(options.max_steps or 1)
    schedule = LearningRateSchedule(options.learning_rate, steps, round(WARMUP * steps))
    rates = iter(map(schedule.learning_rate, range(steps)))
    yield lambda: loop.step(next(rates)), lambda: wrap_backbone(from_timm(loop.backbone, sizes).to(device))


def synchronized() -> float:
    """The time, once the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def train(step: Step, steps: int, batch: int, measure: Callable[[], float]) -> dict:
    """Every update; [seconds of training, images, accuracy] on the way."""
    due = {round(steps * (number + 1) / POINTS) for number in range(POINTS)}
    curve, seconds, started = [[0.0, 0, measure()]], 0.0, synchronized()
    for done in range(1, steps + 1):
        step()
        if done in due:
            seconds += synchronized() - started
            curve.append([seconds, done * batch, measure()])
            print(f"{done}/{steps}: {seconds:.0f} s, 20-NN {curve[-1][2]:.3f} on a tenth", file=sys.stderr, flush=True)
            started = synchronized()
    return {"seconds": seconds, "images_per_second": steps * batch / seconds, "curve": curve}


def calibrate(step: Step, minutes: float) -> float:
    """Seconds of an update, of a run that takes so many minutes."""
    for most, share in CALIBRATION:
        started, done = synchronized(), 0
        while done < most and synchronized() - started < 60 * share * minutes:
            step()
            done += 1
    return (synchronized() - started) / done


def changes_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is asked for in place of the setting's options."""
    asked = {"learning_rate": arguments.learning_rate, "global_batch_size": arguments.batch}
    return {name: value for name, value in asked.items() if value is not None}


def run_one(arguments: argparse.Namespace, side: str, seed: int) -> None:
    """One training in this process, or (seed -1) the measurement of an update; writes its JSON file."""
    folder, make = arguments.output, our_side if side == "ours" else lightly_side
    measured = result_path(folder, side, -1)
    steps = sum(most for most, _share in CALIBRATION)
    if seed >= 0:
        steps = max(POINTS, round(60 * arguments.minutes / json.loads(measured.read_text())["seconds"]))
    options = options_of(arguments.setting, folder, max(seed, 0), steps, changes_of(arguments))
    with make(options) as (step, backbone):
        if seed < 0:
            write_json(measured, {"seconds": calibrate(step, arguments.minutes)})
            return
        found = train(step, steps, options.global_batch_size, lambda: eager(lambda: curve_point(backbone(), folder)))
        if not arguments.choose:
            final = (images(folder, "train", "tenth"), images(folder, "validation"))
            found["after"] = eager(lambda: frozen_accuracy(backbone(), *final).accuracy)
    cost = step_cost(build_step_on_meta(options, config_from(options)), options.resolutions(), 8, 8, 2)
    found |= {"side": side, "seed": seed, "minutes": arguments.minutes, "steps": steps, "machine": device_name()}
    found |= {"tflops": cost.flops / 8 * found["images_per_second"] / 1e12, "recipe": options.as_recipe()}
    write_json(result_path(folder, side, seed), found)


def eager(call: Callable[[], Any]) -> Any:
    """Measuring has other sizes than the updates: not worth compiling for."""
    with torch.compiler.set_stance("force_eager"):
        return call()


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine().split(";")[0]


def result_path(folder: Path, side: str, seed: int) -> Path:
    return folder / (f"{side}-{seed}.json" if seed >= 0 else f"{side}-update.json")


def finished(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for side in SIDES for path in sorted(folder.glob(f"{side}-[0-9]*.json"))]


def table(records: list[dict]) -> str:
    """Markdown: mean and sample standard deviation over seeds."""
    lines = [
        "| side | seeds | minutes | updates | images/s | TFLOP/s | 20-NN, tenth | 20-NN, test | linear, test |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for side in SIDES:
        rows = [record for record in records if record["side"] == side]
        if rows:
            last = spread([100 * row["curve"][-1][2] for row in rows])
            after = [
                spread([100 * row["after"][name] for row in rows if "after" in row]) for name in ("knn", "linear")
            ]
            rate, tflops = (spread([row[name] for row in rows]) for name in ("images_per_second", "tflops"))
            minutes, steps = (statistics.mean(row[name] for row in rows) for name in ("seconds", "steps"))
            cells = [side, str(len(rows)), f"{minutes / 60:.1f}", f"{steps:.0f}", rate, tflops, last, *after]
            lines.append(f"| {' | '.join(cells)} |")
    first = statistics.mean(100 * record["curve"][0][2] for record in records)
    return "\n".join(
        [
            *lines,
            "",
            f"Untrained: {first:.1f} % 20-NN on the tenth. Machine: {records[0]['machine']}. Test: validation split.",
        ]
    )


def spread(values: list[float]) -> str:
    """`32.1 ± 0.4`; empty for no value."""
    if not values:
        return ""
    digits = 3 if max(values) < 1 else 1
    text = f"{statistics.mean(values):.{digits}f}"
    return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def draw(records: list[dict], path: Path, published: bool) -> None:
    """20-NN on the tenth against minutes of training, a line a run; a diamond is 20-NN on validation at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), constrained_layout=True)
    seen: set[str] = set()
    for record in records:
        side, minutes = record["side"], [point[0] / 60 for point in record["curve"]]
        label = None if side in seen else side
        seen.add(side)
        axis.plot(minutes, [100 * point[2] for point in record["curve"]], "o-", ms=3, color=COLORS[side], label=label)
        if "after" in record:
            axis.plot(minutes[-1], 100 * record["after"]["knn"], "D", color=COLORS[side])
    if published:
        for name, (knn, _linear) in PUBLISHED.items():
            axis.axhline(100 * knn, ls="--", lw=0.8, color="tab:orange")
            axis.text(0, 100 * knn, f"{name}: {100 * knn:.1f}", va="bottom", fontsize=8)
    axis.set(xlabel="minutes of training", ylabel="20-NN accuracy, %", title=f"Imagenette on {records[0]['machine']}")
    axis.grid(alpha=0.3)
    axis.legend(title="lines: a tenth of the training images; diamonds: validation", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="Imagenette with the splits train and validation: what open_stream takes")
    parser.add_argument("--output", type=Path, required=True, help="folder of one setting and one number of minutes")
    parser.add_argument("--setting", choices=SIZES, default="cpu")
    parser.add_argument("--minutes", type=float, default=8, help="of training, each run (default: 8)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--learning_rate", type=float, help="in place of the setting's")
    parser.add_argument("--batch", type=int, help="images an update, in place of the setting's")
    parser.add_argument("--limit", type=int, help="images of each split, for a trial (default: all)")
    parser.add_argument("--choose", action="store_true", help="look at the tenth alone, never at validation")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.run:
        run_one(arguments, arguments.run[0], int(arguments.run[1]))
        return
    arguments.output = arguments.output.resolve()
    arguments.output.mkdir(parents=True, exist_ok=True)
    prepare_images(arguments.data, arguments.output, SIZES[arguments.setting], arguments.limit)
    words = ["--output", str(arguments.output), "--setting", arguments.setting, "--minutes", str(arguments.minutes)]
    words += ["--choose"] if arguments.choose else []
    words += ["--learning_rate", str(arguments.learning_rate)] if arguments.learning_rate else []
    words += ["--batch", str(arguments.batch)] if arguments.batch else []
    environment = {"GOMP_SPINCOUNT": "2000"} | os.environ
    pairs = [(side, seed) for seed in range(-1, arguments.seeds) for side in arguments.sides]
    for side, seed in pairs:
        if not result_path(arguments.output, side, seed).is_file():
            command = [sys.executable, "-m", "benchmarks.imagenette", *words, "--run", side, str(seed)]
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
        if records := finished(arguments.output):
            write_text(arguments.output / "table.md", table(records) + "\n")
            draw(records, arguments.output / "imagenette.png", published=arguments.setting == "h100")
    print(table(finished(arguments.output)))


if __name__ == "__main__":
    main()
