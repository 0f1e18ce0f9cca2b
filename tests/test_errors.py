# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a machine does to a command (disk, memory, a killed worker) is one line and code 3, never a traceback."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import fork_server, forked
from visreg_training.compat import empty_shared, traces_transformers
from visreg_training.errors import failure_of_machine


pytestmark = pytest.mark.cpu


visreg = fork_server.run


def assert_one_line(done: subprocess.CompletedProcess, code: int, words: str) -> None:
    said = [line for line in done.stderr.splitlines() if line.startswith("visreg ")]
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and len(said) == 1 and words in said[0], done.stderr[-2000:]


def test_a_worker_that_is_killed_ends_the_run_in_one_line(tmp_path):
    """As the system does where memory is short: SIGKILL to the process that reads images."""
    recipe = forked.write_recipe(tmp_path / "small.yaml", num_workers=1, epochs=500, log_every=1)
    command = [sys.executable, "-m", "visreg_training.cli", "pretrain", "--config", recipe]
    process = subprocess.Popen([*command, "--output_dir", tmp_path / "run"], stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("step ") and not any("killed" in one for one in said):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            workers = [int(pid) for pid in children if "resource_tracker" not in command_of(pid)]
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            said.append("killed\n")
    assert process.wait(60) == 3, "".join(said)[-2000:]
    assert "Traceback" not in "".join(said)
    assert (
        said[-1].startswith("visreg pretrain: a process that reads images was killed") and "--num_workers" in said[-1]
    )


def command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_full_disk_is_one_line(checkpoint, tmp_path):
    out = tmp_path / "out"
    done = visreg("convert", checkpoint, out / "w.safetensors", file_size=20_000)
    assert_one_line(done, 3, "the disk refuses to be written")
    done = visreg("convert", checkpoint, out / "w.pth", file_size=20_000)
    assert_one_line(done, 3, "the disk refuses to be written")
    if traces_transformers():  # else there is no export
        done = visreg("export", "--model", checkpoint, "--output", out / "w.pt2", file_size=20_000)
        assert_one_line(done, 3, "the disk refuses to be written")
    where = ("--model", checkpoint, "--dataset", "digits", "--cache_dir", tmp_path / "cache")
    done = visreg("features", *where, "--output", out / "f.safetensors", file_size=20_000)
    assert_one_line(done, 3, "the disk refuses to be written")
    assert not list(out.rglob("*")) and not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_full_disk_at_the_end_of_a_run_leaves_its_checkpoints(tmp_path):
    """The last checkpoint was written; model/ does not fit any more."""
    options = {"config": forked.write_recipe(tmp_path / "small.yaml"), "online_probe": False, "keep_last": 9}
    jobs = [
        {"name": "whole", "options": options},
        {"name": "full", "options": options, "copy_of": "whole", "until": 24, "file_size": 25_000},
    ]
    _whole, full = forked.work_off(tmp_path, jobs)
    assert full["codes"] == [3] and "Traceback" not in "".join(full["said"])
    assert "the disk refuses to be written" in full["said"][-1]
    run = tmp_path / "full"
    assert (run / "checkpoints" / "step-00000024" / "state.json").is_file() and not (run / "model").exists()
    assert not [path.name for path in run.iterdir() if path.name.endswith((".new", ".part"))]


def test_memory_that_is_full_is_one_line(tmp_path):
    (tmp_path / "script.py").write_text(
        "from visreg_training.errors import exit_codes, setting_up\nimport torch, numpy, sys\n"
        "with exit_codes('visreg x'), setting_up():\n"
        "    {'torch': lambda: torch.empty(1 << 50), 'numpy': lambda: numpy.empty(1 << 50), "
        "'python': lambda: bytearray(1 << 50)}[sys.argv[1]]()"
    )
    for library in ("torch", "numpy", "python"):
        done = fork_server.run(library, script=tmp_path / "script.py")
        assert_one_line(done, 3, "the memory of this machine is full")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: .inf", "epochs must be a finite number"),
        ("learning_rate: .nan", "learning_rate must be a finite number"),
        ("global_scale: [0.1, .nan]", "global_scale"),
        ("global_scale: [--push_to_hub, 1]", "global_scale"),
        ("collapse_rank: .nan", "collapse_rank must be a finite number"),
        ("a: &a [x, x]\nb: [" + ", ".join(["*a"] * 60_000) + "]", "stands for more than 100,000 values"),
    ],
)
def test_recipes_that_cannot_be_are_one_line_before_anything_starts(tmp_path, text, words):
    (tmp_path / "r.yaml").write_text(text)
    done = visreg("pretrain", "--config", tmp_path / "r.yaml", "--dataset", "digits", "--output_dir", tmp_path / "run")
    assert_one_line(done, 2, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: Path(path).write_bytes(b"\xff\xfe")])
def test_recipes_that_are_no_text_are_one_line(tmp_path, make):
    make(tmp_path / "r.yaml")
    done = visreg("plan", "--config", tmp_path / "r.yaml")
    assert_one_line(done, 2, "r.yaml")


@pytest.mark.slow
def test_a_cached_file_that_was_cut_is_named_and_made_anew(checkpoint, tmp_path):
    def features_in(name: str) -> torch.Tensor:
        return load_file(tmp_path / f"{name}.safetensors")["features"]

    where = ("--model", checkpoint, "--dataset", "digits", "--cache_dir", tmp_path / "cache", "--limit", "50")
    assert visreg("features", *where, "--output", tmp_path / "first.safetensors").returncode == 0
    first = features_in("first")
    (cached,) = (tmp_path / "cache").rglob("*.safetensors")
    for content in (cached.read_bytes()[:1000], b"", b"\x80\x04cos\nsystem\n."):
        cached.write_bytes(content)
        done = visreg("features", *where, "--output", tmp_path / "second.safetensors")
        assert done.returncode == 0 and f"{cached} cannot be read" in done.stderr and "made anew" in done.stderr
        assert torch.equal(features_in("second"), first)


def test_an_output_that_cannot_be_written_is_said_before_the_work(checkpoint, tmp_path):
    (tmp_path / "file").write_text("mine")
    where = ("--model", checkpoint, "--dataset", "digits", "--cache_dir", tmp_path / "cache")
    for command in (("evaluate", "knn"), ("features",), ("visualize", "map")):
        suffix = {"features": "f.safetensors", "visualize": "m.png"}.get(command[0], "r.json")
        done = visreg(*command, *where, "--output", tmp_path / "file" / suffix)
        assert_one_line(done, 2, "nothing can be written below it")
    assert not (tmp_path / "cache").exists()
    done = visreg("convert", checkpoint, "/proc/w.pth")  # where even root makes no file
    assert done.returncode in (2, 3) and "Traceback" not in done.stderr and "/proc" in done.stderr


def test_a_result_is_shown_though_it_cannot_be_written(checkpoint, tmp_path):
    """The disk is full when it is; what was measured for an hour stands on the screen."""
    where = ("--model", checkpoint, "--dataset", "digits", "--cache_dir", tmp_path / "cache", "--limit", "50")
    assert visreg("evaluate", "knn", *where).returncode == 0
    done = visreg("evaluate", "knn", *where, "--output", tmp_path / "out", file_size=100)
    assert_one_line(done, 3, "the disk refuses to be written")
    assert "accuracy" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--k", "0"), "k must be at least 1"),
        (("--temperature", "0"), "temperature must be above 0"),
        (("--temperature", "0.1", "nan"), "temperature must be a finite number"),
    ],
)
def test_values_that_cannot_be_are_refused_before_features_are_taken(checkpoint, tmp_path, options, words):
    where = ("--model", checkpoint, "--dataset", "digits", "--cache_dir", tmp_path / "cache")
    assert_one_line(visreg("evaluate", "knn", *where, *options), 2, words)
    assert not (tmp_path / "cache").exists()


def test_a_license_is_refused_before_a_directory_is_written(checkpoint, tmp_path):
    assert visreg("convert", checkpoint, tmp_path / "w.safetensors").returncode == 0
    done = visreg(
        "convert", tmp_path / "w.safetensors", tmp_path / "out", "--license", "mine", "--num_attention_heads", 4
    )
    assert_one_line(done, 2, "license 'mine' is not one of the Hub's")
    shutil.copyfile(tmp_path / "w.safetensors", tmp_path / "visreg-vit-b-inet1k.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_background_push_that_outlives_its_parent_leaves_nothing(tmp_path):
    """The parent is killed while the Hub keeps the push waiting; when the Hub answers, the push clears up."""
    from helpers.loopback_hub import LoopbackHub
    from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining

    run = tmp_path / "run"
    config = VISRegViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    VISRegViTForPreTraining(config).save_pretrained(run / "checkpoints" / "step-00000001")
    (run / "checkpoints" / "step-00000001" / "state.json").write_text('{"step": 1}')
    (run / "recipe.yaml").write_text("model: vit_tiny\noutput_dir: run\n")
    code = (
        "import sys, time; from visreg_hub_cards import BackgroundPush\n"
        "from pathlib import Path; assert BackgroundPush(Path(sys.argv[1]), 'org/first').start()\n"
        "print('started', flush=True); time.sleep(600)"
    )
    with LoopbackHub(home=tmp_path / "home") as hub:
        hub.fail("POST", "/repos/create", action="hang")
        parent = subprocess.Popen(
            [sys.executable, "-c", code, str(run)],
            env=os.environ | hub.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout.readline() == "started\n"
        end = time.monotonic() + 120
        while not [path for _method, path in hub.requests if "create" in path] and time.monotonic() < end:
            time.sleep(0.05)
        parent.kill()
        parent.wait()
        assert hub.requests and (run / ".pushing").is_dir()
        hub.over.set()  # the connection breaks, and the push tries again
        end = time.monotonic() + 60
        while (run / ".pushing").exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert not (run / ".pushing").exists() and len(hub.commits("org/first")) <= 1


@pytest.mark.slow
def test_weights_that_are_not_finite_are_named_by_every_command(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["layernorm.weight"][3] = float("inf")
    save_file(weights, folder / "model.safetensors")
    data = ("--dataset", "digits", "--cache_dir", tmp_path / "cache")
    commands = [
        ("features", "--model", folder, *data, "--output", tmp_path / "f.safetensors"),
        ("evaluate", "knn", "--model", folder, *data),
        ("convert", folder, tmp_path / "w.pth"),
        ("pretrain", "--initialize_from", folder, "--dataset", "digits", "--output_dir", tmp_path / "run"),
    ]
    for command in commands:
        assert_one_line(visreg(*command), 2, "not finite: layernorm.weight")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_shared_memory_that_is_full_is_one_line_with_its_flag():
    """What docker's 64 MB of /dev/shm are to a worker; a file that may not grow is the same to torch."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RuntimeError) as caught:
            empty_shared((1 << 20,), torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "--shm-size" in failure_of_machine(caught.value)
    assert "--num_workers 0" in failure_of_machine(caught.value)
