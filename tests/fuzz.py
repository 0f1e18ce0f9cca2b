# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`make fuzz`: commands on files as nobody should write them, for a given time.

usage: fuzz.py [--minutes 30] [--cases N] [--seed 0] [--targets resume,card] [--only resume:12] [--keep FOLDER]

A case is a function of (seed, target, number): what it mutates, and how. Every one has to end with a documented exit
code (0, 2, 3; 75 for a run that was long and got a SIGTERM), with one line where it is not 0, without a traceback, in
bounded time and memory, and to change nothing but what its command writes. Each finding is printed with the line that
repeats it; the exit code is 1 if there is any.

One process imports everything, and forks for each case: some hundred a minute. It computes nothing itself.
"""

import argparse
import faulthandler
import hashlib
import os
import random
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


# Read by libraries when they are loaded. No Hub is there: a name that leads to one is answered at once.
_HOME = tempfile.mkdtemp(prefix="visreg-fuzz-")
os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_HOME": f"{_HOME}/hf",
    "HOME": _HOME,
    "MKL_NUM_THREADS": "1",
    "MPLCONFIGDIR": f"{_HOME}/mpl",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHINDUCTOR_CACHE_DIR": f"{_HOME}/inductor",
}

import datasets  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402

from helpers import fork_server, forked  # noqa: E402
from helpers.mutations import mutate_file  # noqa: E402
from visreg_training.cli import main as visreg  # noqa: E402


LIMIT = 60.0  # CPU seconds of a case with its children; pretraining is stopped by SIGTERM after a quarter of them
WAITING = 300.0  # seconds of a case by the clock: what waits takes no CPU, and a busy machine gives it little
MEMORY = 2 << 30  # bytes that a case may take beyond what the process had that forked it
CODES = {0, 2, 3}
LATE = ("torch.export", "torch._dynamo")  # what commands import when they are called, beyond what any test needs
LATE += tuple(f"datasets.packaged_modules.{kind}.{kind}" for kind in ("webdataset", "parquet"))
STOPPED = 75
WRITES = ("out", "tmp", "home", "dev")  # folders of a case that any command may write into


@dataclass
class Case:
    """One command line, and what it may write.

    Attributes:
        argv: of `visreg`.
        mutated: files that are mutated; a glob that matches several stands for one of them.
        writes: paths in the case's folder that the command may change, beside `WRITES`.
    """

    argv: list[str]
    mutated: list[str]
    writes: list[str] = field(default_factory=list)


@dataclass
class Running:
    """A case under way."""

    name: str
    case: Case
    folder: Path
    pid: int
    started: float
    did: str
    before: dict[str, tuple]
    asked: bool = False
    looked: float = 0.0
    code: int | None = None


# --- what is right, and mutated


def make_corpus(folder: Path) -> None:
    """Small ones of everything that a command reads: images, tar, parquet, a run with its models and results."""
    import io
    import tarfile

    import numpy as np
    from PIL import Image

    os.chdir(folder)
    draws = np.random.default_rng(0)
    samples = []
    for split, count in (("train", 12), ("test", 6)):
        for number in range(count):
            label, suffix = number % 2, (".png", ".jpg", ".gif", ".bmp", ".webp", ".tif")[number % 6]
            pixels = draws.integers(0, 255, (24, 24, 3), dtype=np.uint8) // (1 + label)
            path = folder / "photos" / split / ("cat", "dog")[label] / f"{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            samples.append((split, label, file.getvalue()))
    for split in ("train", "test"):
        own = [(label, content) for one, label, content in samples if one == split]
        (folder / "tars").mkdir(exist_ok=True)
        with tarfile.open(folder / "tars" / f"{split}-0.tar", "w") as tar:
            for number, (label, content) in enumerate(own):
                for suffix, data in (("png", content), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"s{number}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        rows = {
            "image": [{"bytes": content, "path": None} for _, content in own],
            "label": [label for label, _ in own],
        }
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        table = datasets.Dataset.from_dict(rows, features=kinds)
        table.to_parquet(folder / "tables" / f"{split}-0.parquet")
        table.save_to_disk(folder / "saved" / split)
    shutil.copyfile(folder / "photos" / "train" / "cat" / "0.png", folder / "query.png")
    changes = {"fraction": None, "epochs": None, "dataset": "photos", "eval_split": "test", "max_steps": 4}
    changes |= {"num_hidden_layers": 4, "global_batch_size": 4, "save_every": 2, "log_every": 1, "output_dir": "run"}
    forked.write_recipe(folder / "recipe.yaml", **changes)
    visreg(["pretrain", "--config", "recipe.yaml"])
    shutil.copytree(folder / "run" / "model", folder / "model")
    model = ["--model", "model", "--dataset", "photos", "--cache_dir", "cache"]
    for protocol, more in (("knn", ["--k", "3"]), ("linear", [])):
        output = ["--output", "run/evaluation"]
        visreg(["evaluate", protocol, "--model", "run", "--dataset", "photos", "--cache_dir", "cache", *more, *output])
    visreg(["features", *model, "--output", "features.safetensors"])
    visreg(["convert", "model", "weights.pth"])
    visreg(["convert", "model", "weights.safetensors"])
    shutil.rmtree(folder / "home", ignore_errors=True)


_RUN = [
    f"run/{name}"
    for name in ("run.json", "recipe.yaml", "metrics.jsonl", "before.json", "summary.json", "images.json")
]
_STATE = [
    f"run/checkpoints/step-00000004/{name}"
    for name in ("state.json", "state.json", "config.json", "optimizer.pt", "probe.pt", "model.safetensors")
]
_RESULTS = ["run/evaluation/*.json"]
_MODEL = [
    "model/config.json",
    "model/config.json",
    "model/model.safetensors",
    "model/model.safetensors",
    "model/preprocessor_config.json",
]
_DATA = [
    "photos/train/*/*",
    "photos/train/*/*",
    "tars/train-0.tar",
    "tables/train-0.parquet",
    "saved/train/*.json",
    "saved/train/*.arrow",
]
_WEIGHTS = ["weights.pth", "weights.safetensors"]


def a_dataset(draws: random.Random) -> str:
    return draws.choice(["photos", "photos", "tars", "tables", "saved/train", "tables/*.parquet", "tars/train-0.tar"])


def recipe(draws: random.Random) -> Case:
    """A recipe that somebody wrote."""
    argv = ["pretrain", "--config", "recipe.yaml", "--output_dir", "out/run"]
    return Case([*argv, *draws.choice([[], ["--max_steps", "2"]])], ["recipe.yaml"])


def resume(draws: random.Random) -> Case:
    """A run that goes on, or begins again."""
    argv = ["pretrain", "--config", "recipe.yaml", "--output_dir", "run", "--max_steps", "4"]
    more = draws.choice([["--resume", "auto"], ["--resume", "auto"], ["--resume", "auto"], ["--overwrite"], []])
    return Case([*argv, *more], [*_RUN, *_STATE, *_STATE], ["run"])


def start(draws: random.Random) -> Case:
    """A run from a checkpoint."""
    argv = ["pretrain", "--config", "recipe.yaml", "--output_dir", "out/run", "--max_steps", "1", "--initialize_from"]
    return Case([*argv, "model"], _MODEL)


def train_data(draws: random.Random) -> Case:
    """A run on somebody's images."""
    argv = [
        "pretrain",
        "--config",
        "recipe.yaml",
        "--output_dir",
        "out/run",
        "--max_steps",
        "2",
        "--eval_split",
        "none",
    ]
    kind = draws.choice(["photos", "tars", "tables", "saved/train"])
    argv += ["--dataset", kind, "--max_bad_share", draws.choice(["0.01", "0.9"])]
    if draws.random() < 0.3 and kind != "saved/train":
        argv += ["--streaming", "true"]
    return Case(argv, [glob for glob in _DATA if glob.startswith(kind)])


def evaluate(draws: random.Random) -> Case:
    """A protocol, with a model or images of others."""
    kind = draws.choice(["photos", "tars", "tables"])
    argv = ["evaluate", draws.choice(["knn", "knn", "linear", "fewshot", "retrieval"]), "--model", "model"]
    argv += ["--dataset", kind, "--cache_dir", "home/cache", "--output", "out/results"]
    return Case(argv, [*_MODEL, *(glob for glob in _DATA if glob.startswith(kind))])


def finetune(draws: random.Random) -> Case:
    argv = ["evaluate", "finetune", "--model", "model", "--dataset", "photos", "--epochs", "1", "--batch_size", "4"]
    return Case([*argv, "--output", "out/results"], _MODEL)


def compare(draws: random.Random) -> Case:
    """Results side by side."""
    return Case(["evaluate", "compare", "run/evaluation"], _RESULTS)


def features(draws: random.Random) -> Case:
    kind = draws.choice(["photos", "tars", "tables", "saved/train"])
    argv = ["features", "--model", "model", "--dataset", kind, "--cache_dir", "cache"]
    argv += ["--output", f"out/features{draws.choice(['.safetensors', '.parquet', '.csv', '.npz'])}"]
    return Case(argv, [*_MODEL, *(glob for glob in _DATA if glob.startswith(kind)), "cache/*", "cache/*"], ["cache"])


def convert(draws: random.Random) -> Case:
    """There and back."""
    if draws.random() < 0.5:
        return Case(["convert", "model", f"out/w{draws.choice(['.pth', '.safetensors'])}"], _MODEL)
    weights = draws.choice(_WEIGHTS)
    return Case(["convert", weights, "out/model"], [weights])


def export(draws: random.Random) -> Case:
    return Case(["export", "--model", "model", "--output", "out/model.pt2"], _MODEL)


def push(draws: random.Random) -> Case:
    """What would go up; nothing does."""
    more = draws.choice([[], [], ["--include_pretraining"], ["--timm"]])
    argv = ["push", "--model", "run", "--repo_id", "me/name", "--dry_run", *more]
    return Case(argv, [*_RUN, *_RESULTS, "run/model/*", "run/model/*", *_STATE[:2]], ["run"])


def card(draws: random.Random) -> Case:
    more = draws.choice([[], [], ["--check"], ["--overwrite"]])
    return Case(["card", "run", *more], [*_RUN, *_RESULTS, "run/model/*", "run/model/README.md"], ["run"])


def preview(draws: random.Random) -> Case:
    argv = ["preview", "--config", "recipe.yaml", "--output", "out/preview.png", "--count", "4"]
    kind = draws.choice(["photos", "tars", "tables", "saved/train"])
    mutated = ["recipe.yaml", *(glob for glob in _DATA if glob.startswith(kind))]
    return Case([*argv, "--dataset", kind], mutated)


def plan(draws: random.Random) -> Case:
    return Case(["plan", "--config", "recipe.yaml"], ["recipe.yaml"])


def visualize(draws: random.Random) -> Case:
    kind = draws.choice(["pca", "attention", "map", "confusion", "neighbors"])
    argv = ["visualize", kind, "--model", "model", "--output", "out/picture.png"]
    if kind in ("pca", "attention"):
        return Case([*argv, "--images", "photos/train/cat"], [*_MODEL, "photos/train/cat/*"])
    return Case([*argv, "--dataset", "photos", "--cache_dir", "cache"], [*_MODEL, *_DATA[:2], "cache/*"], ["cache"])


def search(draws: random.Random) -> Case:
    argv = ["search", "--model", "model", "--dataset", "photos", "--cache_dir", "cache", "--output", "out/near.png"]
    mutated = [*_MODEL, *_DATA[:2], "cache/*", "query.png", "query.png"]
    return Case([*argv, *draws.choice([[], ["--query", "query.png"]])], mutated, ["cache"])


# Those that take seconds come once in a round, the others more often.
TARGETS: dict[str, tuple[Callable[[random.Random], Case], int]] = {
    "recipe": (recipe, 2), "resume": (resume, 2), "start": (start, 2), "train_data": (train_data, 2),
    "evaluate": (evaluate, 3), "finetune": (finetune, 1), "compare": (compare, 3), "features": (features, 3),
    "convert": (convert, 4), "export": (export, 1), "push": (push, 3), "card": (card, 4), "preview": (preview, 2),
    "plan": (plan, 3), "visualize": (visualize, 2), "search": (search, 2),
}  # fmt: skip


# --- one case


def begin(seed: str, target: str, number: int, corpus: Path, folder: Path) -> Running:
    """Make the case's folder, mutate in it, and fork the command."""
    draws = random.Random(f"{seed}/{target}/{number}")
    case = TARGETS[target][0](draws)
    shutil.copytree(corpus, folder, symlinks=True)
    for name in WRITES:
        (folder / name).mkdir(exist_ok=True)
    did = []
    for _ in range(draws.choice([1, 1, 1, 2])):
        found = sorted(path for path in folder.glob(draws.choice(case.mutated)) if path.is_file())
        if found:
            did.append(mutate_file(draws.choice(found), draws))
    before = snapshot(folder, case)
    pid = fork_server.fork(partial(command, case, folder), folder.with_suffix(".log"))
    return Running(f"{target}:{number}", case, folder, pid, time.monotonic(), ", ".join(did), before)


def command(case: Case, folder: Path) -> None:
    """The command, in the process that was forked for it."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.chdir(folder)
    os.environ |= {"TMPDIR": str(folder / "tmp"), "VISREG_CACHE": str(folder / "home" / "visreg")}
    tempfile.tempdir = None
    datasets.config.HF_DATASETS_CACHE = folder / "home" / "datasets"
    sys.addaudithook(watch([folder / path for path in (*WRITES, *case.writes)]))
    visreg(case.argv)


_CHANGES = {"os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.truncate": (0,), "os.chmod": (0,)}
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_CHANGES |= {"os.rename": (0, 1), "os.symlink": (1,), "os.link": (1,), "os.utime": (0,)}


def watch(allowed: list[Path]) -> Callable[[str, tuple], None]:
    """An audit hook that names each path beyond `allowed` that is written to, every program that is started, and every
    address but that of the Hub that is none.
    """
    roots = tuple(str(path) for path in (*allowed, _HOME + "/hf", _HOME + "/mpl", _HOME + "/inductor", "/dev"))
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def outside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a file that is open
        absolute = os.path.abspath(os.fsdecode(path))
        return not any(absolute == root or absolute.startswith(f"{root}/") for root in roots)

    def changed(event: str, args: tuple) -> list:
        """The paths that an event writes to."""
        if event == "open":
            path, mode, flags = args
            return [path] if flags & writing or set(mode or "") & set("wax+") else []
        beside = event in ("os.remove", "os.rmdir") and args[-1] != -1  # a folder that is open, by rmtree
        return [] if beside else [args[number] for number in _CHANGES.get(event, ())]

    def hook(event: str, args: tuple) -> None:
        for path in changed(event, args):
            if outside(path):
                os.write(2, f"fuzz: {event} {os.fsdecode(path)}\n".encode())
        if event in _STARTS:
            os.write(2, f"fuzz: starts {args[:2]}\n".encode())
        if event == "socket.connect" and isinstance(args[1], tuple) and args[1][:2] != ("127.0.0.1", 9):
            os.write(2, f"fuzz: connects to {args[1]}\n".encode())

    return hook


def snapshot(folder: Path, case: Case) -> dict[str, tuple]:
    """What every file is that the command may not change."""
    skipped = {folder / path for path in (*WRITES, *case.writes)}
    found: dict[str, tuple] = {}

    def walk(place: Path) -> None:
        for path in sorted(place.iterdir()):
            if path in skipped:
                continue
            status = path.lstat()
            digest: object = None
            if stat.S_ISLNK(status.st_mode):
                digest = os.readlink(path)
            elif stat.S_ISREG(status.st_mode) and status.st_size < 1 << 24 and status.st_mode & 0o400:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = None if stat.S_ISDIR(status.st_mode) else status.st_size
            found[str(path.relative_to(folder))] = (stat.S_IFMT(status.st_mode), status.st_mode & 0o777, size, digest)
            if stat.S_ISDIR(status.st_mode):
                walk(path)

    walk(folder)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its descendants, and those of them that are over."""
    try:
        first = psutil.Process(pid)
        times = [one.cpu_times() for one in (first, *first.children(recursive=True))]
    except psutil.NoSuchProcess:  # one just ended
        return 0.0
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def too_long(running: Running) -> list[str] | None:
    """What is wrong with a case that is under way, looked at once a second; ended if anything is."""
    if time.monotonic() < running.looked + 1:
        return None
    running.looked = time.monotonic()
    cpu, waited = cpu_seconds(running.pid), running.looked - running.started
    trained = running.case.argv[0] == "pretrain"
    if trained and not running.asked and (cpu > LIMIT / 4 or waited > WAITING / 4):
        running.asked = True
        os.kill(running.pid, signal.SIGTERM)
    if cpu < LIMIT and waited < WAITING:
        return None
    os.kill(running.pid, signal.SIGUSR1)
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)
    return [f"not over after {cpu:.0f} s of CPU, {waited:.0f} s in all"]


def ended(running: Running, largest: int) -> list[str] | None:
    """What is wrong with a case that is over; None while it is under way."""
    pid, status, used = os.wait4(running.pid, os.WNOHANG)
    if not pid:
        return too_long(running)
    try:
        os.killpg(running.pid, signal.SIGKILL)
        wrong = ["left processes behind"]
    except ProcessLookupError:
        wrong = []
    code, log = os.waitstatus_to_exitcode(status), running.folder.with_suffix(".log").read_text(errors="replace")
    running.code = code
    if code not in CODES | ({STOPPED, -signal.SIGTERM} if running.asked else set()):  # the second before it trains
        wrong.append(f"ended with {code}")
    if "Traceback (most recent call last)" in log:
        wrong.append("a traceback")
    if code in (2, 3) and not any(line.startswith("visreg") for line in log.splitlines()[-3:]):
        wrong.append("no line that says why")
    wrong += sorted({line for line in log.splitlines() if line.startswith("fuzz: ")})
    if used.ru_maxrss * 1024 > largest:
        wrong.append(f"took {used.ru_maxrss / 2**20:.1f} GiB")
    after = snapshot(running.folder, running.case)
    if changed := sorted(
        path for path in running.before.keys() | after if running.before.get(path) != after.get(path)
    ):
        wrong.append(f"changed {', '.join(changed[:5])}")
    return wrong


# --- all of them


def rounds(targets: list[str]) -> list[str]:
    """The targets of one round, those that are quick more than once."""
    return [name for turn in range(4) for name in targets if turn < TARGETS[name][1]]


def run(chosen: argparse.Namespace, folder: Path) -> tuple[Counter, Counter, list[str]]:
    """All cases that the time allows: how many of each target, with each exit code, and the findings."""
    corpus = folder / "corpus"
    corpus.mkdir()
    fork_server.import_everything(*LATE)
    maker, log = fork_server.fork(partial(make_corpus, corpus), folder / "corpus.log"), folder / "corpus.log"
    if os.waitpid(maker, 0)[1]:
        raise RuntimeError(f"no corpus: {log.read_text()[-3000:]}")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + MEMORY
    end = time.monotonic() + 60 * chosen.minutes
    counts, codes, findings, under_way = Counter(), Counter(), [], []
    order = [chosen.only.split(":")[0]] if chosen.only else rounds(chosen.targets)
    begun = 0
    while True:
        over = time.monotonic() > end or begun >= (1 if chosen.only else chosen.cases or 10**9)
        if over and not under_way:
            return counts, codes, findings
        while not over and len(under_way) < chosen.jobs:
            target = order[begun % len(order)]
            number = int(chosen.only.split(":")[1]) if chosen.only else counts[target]
            counts[target] += 1
            begun += 1
            under_way.append(begin(str(chosen.seed), target, number, corpus, folder / f"case-{begun}"))
            over = chosen.only or begun >= (chosen.cases or 10**9)
        for one in list(under_way):
            wrong = ended(one, largest)
            if wrong is None:
                continue
            under_way.remove(one)
            codes[one.code] += 1
            if wrong or chosen.only:
                findings += [one.name] if wrong else []
                report(one, wrong, chosen)
            clear_up(one, chosen.keep if wrong or chosen.only else None)
        time.sleep(0.005)


def report(one: Running, wrong: list[str], chosen: argparse.Namespace) -> None:
    """A finding, and how to see it again."""
    log = one.folder.with_suffix(".log").read_text(errors="replace")[-chosen.tail :]
    again = f"python tests/fuzz.py --seed {chosen.seed} --only {one.name}"
    print(f"\n{one.name}: {'; '.join(wrong) or 'nothing wrong'}\n  visreg {' '.join(one.case.argv)}")
    print(f"  mutated {one.did}")
    print("  " + log.replace("\n", "\n  ") + f"\n  again: {again}", flush=True)


def clear_up(one: Running, keep: Path | None) -> None:
    if keep is not None:
        shutil.copytree(one.folder, keep / one.name.replace(":", "-"), symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(one.folder, ignore_errors=True)
    one.folder.with_suffix(".log").unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cases", type=int, help="at most so many")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--targets", type=lambda text: text.split(","), default=list(TARGETS))
    parser.add_argument("--only", help="TARGET:NUMBER, one case")
    parser.add_argument("--keep", type=Path, help="folder for the cases that were found")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once")
    parser.add_argument("--tail", type=int, default=2500, help="characters shown of what a case said last")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    torch.set_num_threads(1)
    started = time.monotonic()
    print(f"seed {chosen.seed}", flush=True)
    try:
        counts, codes, findings = run(chosen, Path(_HOME))
    finally:
        shutil.rmtree(_HOME, ignore_errors=True)
    each = ", ".join(f"{name} {count}" for name, count in counts.items())
    ends = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items(), key=str))
    print(f"seed {chosen.seed}: {counts.total()} cases in {time.monotonic() - started:.0f} s ({each})")
    print(f"exit codes {ends}; {len(findings)} findings {' '.join(findings)}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
