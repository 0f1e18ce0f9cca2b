# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Features after the same steps: our loop beside one written on lightly's parts, three seeds each.

    python -m benchmarks.quality --data CIFAR10_FOLDER --output FOLDER [--images 10000] [--epochs 10]

Same images, views, model sizes, projector, steps, learning rate and its schedule, weight decay. Both sides' backbones
are measured by one piece of code: 20-NN and linear accuracy of the frozen features on the test split, before the first
step and after the last. Each run is a process with one thread, two at a time; FOLDER keeps a JSON file a run, and runs
that are finished are not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from modeling_visreg import VISRegViTConfig, VISRegViTModel, from_timm_state_dict
from visreg_training import pretrain
from visreg_training.backbones import wrap_backbone
from visreg_training.config import LearningRateSchedule
from visreg_training.data import open_stream
from visreg_training.evaluation.frozen import frozen_accuracy

from .measuring import ROOT


SIDES = ("ours", "lightly")
SETTING = "cifar10"
WARMUP_EPOCHS = 1
METRICS = ("knn", "linear")


def sample_images(data: Path, folder: Path, images: int) -> None:
    """The training images of both sides, drawn at random from the train split, and the test images: two files."""
    from datasets import load_dataset

    for split, count in (("train", images), ("test", None)):
        path = folder / f"{split}.parquet"
        if not path.is_file():
            rows = load_dataset("parquet", data_files=str(data / "data" / f"{split}-*.parquet"), split="train")
            rows.shuffle(seed=0).select(range(count or len(rows))).to_parquet(str(path))


def accuracy(backbone: VISRegViTModel, folder: Path) -> dict[str, float]:
    """20-NN and linear accuracy of the frozen features, of either side."""
    train, test = (open_stream(str(folder / f"{split}.parquet")).examples() for split in ("train", "test"))
    return frozen_accuracy(wrap_backbone(backbone), train, test).accuracy


def from_timm(backbone: torch.nn.Module, options: dict) -> VISRegViTModel:
    """lightly's side's backbone as our class: the same function (tests/modeling_visreg/test_timm_parity.py)."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "drop_path_rate", "patch_size")
    config = VISRegViTConfig(image_size=options["global_size"], **{name: options[name] for name in names})
    model = VISRegViTModel(config)
    model.load_state_dict(from_timm_state_dict(backbone.state_dict(), config))
    return model


def run_lightly(folder: Path, options: dict, seed: int, epochs: int) -> tuple[dict, dict]:
    """Accuracy before the first step and after the last."""
    from .lightly_loop import LightlyLoop

    loop = LightlyLoop(str(folder / "train.parquet"), options, seed)
    before = accuracy(from_timm(loop.backbone, options), folder)
    steps_an_epoch = len(loop.loader)
    schedule = LearningRateSchedule(options["learning_rate"], epochs * steps_an_epoch, WARMUP_EPOCHS * steps_an_epoch)
    for step in range(schedule.total_steps):
        loss = loop.step(schedule.learning_rate(step))
        if step % steps_an_epoch == 0:
            print(f"lightly, seed {seed}: step {step} of {schedule.total_steps}, loss {loss:.4f}", flush=True)
    return before, accuracy(from_timm(loop.backbone, options), folder)


def run_ours(folder: Path, options: dict, seed: int, epochs: int) -> tuple[dict, dict]:
    """The same through `pretrain`, as a user calls it."""
    output = folder / f"ours-{seed}"
    beginning = {"dataset": str(folder / "train.parquet"), "output_dir": str(output), "seed": seed, "overwrite": True}
    length = {"epochs": epochs, "warmup_epochs": WARMUP_EPOCHS, "log_every": 39}
    before = accuracy(first_model(options, seed), folder)
    pretrain(**options, **beginning, **length, online_probe=False)
    return before, accuracy(VISRegViTModel.from_pretrained(output / "model"), folder)


def first_model(options: dict, seed: int) -> VISRegViTModel:
    """The backbone that `pretrain` starts from."""
    from visreg_training.config import from_keywords
    from visreg_training.loop.run import build_model

    return build_model(from_keywords(**options, dataset="any", output_dir="unused", seed=seed)).base_model


def run_one(side: str, seed: int, folder: Path, epochs: int) -> None:
    """One training in this process; writes its JSON file."""
    from .lightly_loop import SETTINGS

    torch.set_num_threads(1)
    options = SETTINGS[SETTING] | {"num_workers": 0}
    started = time.time()
    before, after = (run_ours if side == "ours" else run_lightly)(folder, options, seed, epochs)
    record = {"side": side, "seed": seed, "epochs": epochs, "before": before, "after": after}
    record["seconds"] = round(time.time() - started)
    path = result_path(folder, side, seed)
    path.with_suffix(".part").write_text(json.dumps(record))
    path.with_suffix(".part").replace(path)


def result_path(folder: Path, side: str, seed: int) -> Path:
    return folder / f"{side}-{seed}.json"


def run_all(folder: Path, seeds: int, epochs: int, together: int) -> None:
    """Every run that is not finished, `together` at a time."""
    waiting = [(side, seed) for seed in range(seeds) for side in SIDES if not result_path(folder, side, seed).exists()]
    running: list[subprocess.Popen] = []
    while waiting or running:
        while waiting and len(running) < together:
            side, seed = waiting.pop(0)
            command = [sys.executable, "-m", "benchmarks.quality", "--output", str(folder.resolve())]
            command += ["--epochs", str(epochs)]
            running.append(subprocess.Popen([*command, "--run", side, str(seed)], cwd=ROOT))
        time.sleep(1)
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            if process.returncode:
                raise SystemExit(f"a run ended with code {process.returncode}")
            print(table(folder, seeds), flush=True)


def table(folder: Path, seeds: int) -> str:
    """Markdown: mean and sample standard deviation over the runs that are finished."""
    lines = [
        "| side | seeds | 20-NN before | 20-NN after | linear before | linear after |",
        "|---|---|---|---|---|---|",
    ]
    for side in SIDES:
        paths = [result_path(folder, side, seed) for seed in range(seeds)]
        records = [json.loads(path.read_text()) for path in paths if path.is_file()]
        cells = []
        for metric in METRICS:
            for moment in ("before", "after"):
                values = [record[moment][metric] for record in records]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}" if values else "-")
        lines.append(f"| {side} | {len(records)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the CIFAR-10 data set, with data/*.parquet")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and their results")
    parser.add_argument("--images", type=int, default=10_000, help="of the train split")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="of each side")
    parser.add_argument("--together", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--run", nargs=2, metavar=("SIDE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        side, seed = arguments.run
        run_one(side, int(seed), arguments.output, arguments.epochs)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    if not (arguments.output / "test.parquet").is_file() and arguments.data is None:
        parser.error("--data is needed to begin")
    sample_images(arguments.data, arguments.output, arguments.images)
    run_all(arguments.output, arguments.seeds, arguments.epochs, arguments.together)
    print(table(arguments.output, arguments.seeds))


if __name__ == "__main__":
    main()
