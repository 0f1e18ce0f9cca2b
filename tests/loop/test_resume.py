# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Invariants 3, 4 and 6, with real runs, real kills and a real full disk: interrupted runs end like unbroken ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import fork_server, forked
from visreg_training.config import from_keywords
from visreg_training.errors import RunStopped, UserError
from visreg_training.loop.checkpoint import Checkpoints, RunState
from visreg_training.loop.same_run import check_same_run
from visreg_training.monitoring.guards import CollapseGuard
from visreg_training.pretrain import pretrain
from visreg_training.run_folder import RunFolder


pytestmark = [pytest.mark.cpu, pytest.mark.timeout(900)]


def started(options):
    command = [sys.executable, "-m", "visreg_training.pretrain", *forked.flags(options)]
    return subprocess.Popen(command, env=os.environ | fork_server.THREADS, stderr=subprocess.PIPE, text=True)


def finished(options):
    """A whole run in its own process: bits depend on the number of threads, which other tests may have changed."""
    fork_server.run("pretrain", *forked.flags(options)).check_returncode()


def weights(folder):
    return load_file(Path(folder) / "pretraining" / "model.safetensors")


def assert_identical(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    finished({"config": recipe, "output_dir": folder})
    return folder


def test_a_run_leaves_what_it_promises(unbroken):
    names = {path.name for path in unbroken.iterdir()}
    assert {"recipe.yaml", "run.json", "metrics.jsonl", "curves.png", "summary.json", "model", "pretraining"} <= names
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= {
        path.name for path in (unbroken / "model").iterdir()
    }
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == json.loads((unbroken / "run.json").read_text())["plan"]["total_steps"]
    checkpoints = sorted(path.name for path in (unbroken / "checkpoints").iterdir())
    assert checkpoints[-1] == f"step-{rows[-1]['step']:08d}" and len(checkpoints) <= 3  # the last two, and the best


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    for step, loss in ((1, 0.9), (2, 0.2), (3, 0.5), (4, 0.4)):
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"scores": {"total": loss}}))
    Checkpoints(RunFolder(tmp_path), 1, "loss", None).prune()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


def test_probes_change_nothing(recipe, tmp_path):
    """Neither those on training images nor measuring them, and the finished features, on held-out ones."""
    probed = {"config": recipe, "eval_split": "test", "probe_every": 2, "probe_images": 100, "log_every": 2}
    jobs = [
        {"name": "plain", "options": {"config": recipe, "online_probe": False, "log_every": 2}},
        {"name": "probed", "options": probed},
    ]
    assert [job["codes"] for job in forked.work_off(tmp_path, jobs)] == [[0], [0]]
    assert forked.final_weights(tmp_path / "plain") == forked.final_weights(tmp_path / "probed")
    assert "probe_knn" not in (tmp_path / "plain" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in (tmp_path / "probed" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["held_out_knn"] < 1 and 0 <= row["held_out_linear"] < 1 for row in rows) and len(rows) == 12
    newest = max((tmp_path / "probed" / "checkpoints").iterdir())
    scores = json.loads((newest / "state.json").read_text())["scores"]
    assert scores["held_out_linear"] == rows[-1]["held_out_linear"]


def test_two_stops_and_two_resumes_end_with_the_same_weights(recipe, unbroken, tmp_path):
    """SIGTERM in the middle of an epoch, twice: exit code 75 each time, then the same weights, bit for bit."""
    options = {"config": recipe, "output_dir": tmp_path / "run", "resume": "auto", "num_workers": 1, "log_every": 1}
    for stops in (1, 2):
        process = started(options)
        seen = 0
        for line in process.stderr:
            seen += line.startswith("step ")
            if seen == 2:
                process.send_signal(signal.SIGTERM)
                seen += 1
        assert process.wait(timeout=120) == 75, stops
    finished({"config": recipe, "output_dir": tmp_path / "run", "resume": "auto"})
    assert_identical(weights(tmp_path / "run"), weights(unbroken))
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_checkpoints_are_due_by_time_too_and_change_nothing(recipe, tmp_path):
    options = {"config": recipe, "max_steps": 6, "save_every": 100, "keep_last": 9}
    jobs = [{"name": "plain", "options": options}, {"name": "timed", "options": options | {"save_minutes": 1e-9}}]
    assert [job["codes"] for job in forked.work_off(tmp_path, jobs)] == [[0], [0]]
    written = {job["name"]: len(RunFolder(tmp_path / job["name"]).all_checkpoints()) for job in jobs}
    assert written == {"plain": 1, "timed": 6}  # one process decides after every step
    assert forked.final_weights(tmp_path / "plain") == forked.final_weights(tmp_path / "timed")


def test_a_run_that_is_killed_before_its_first_checkpoint_has_drawn_its_curves(recipe, tmp_path):
    run = RunFolder(tmp_path / "run")
    options = {"config": recipe, "output_dir": run, "log_every": 1, "save_every": 1000, "epochs": 1000}
    process = started(options)
    lines = (line for line in process.stderr if line.startswith("step "))
    next(lines), next(lines)  # the second comes after the first was drawn
    process.kill()
    process.communicate()
    assert run.curves.is_file() and run.newest_checkpoint() is None


@pytest.mark.slow
def test_ten_kills_in_a_chain(recipe, tmp_path):
    """kill -9 at random moments, from before the first step to after the last, streamed by two workers."""
    forked.write_shards(tmp_path / "data")
    stream = {"dataset": str(tmp_path / "data" / "*.parquet"), "streaming": True, "fraction": 1.0, "num_workers": 2}
    options = {"config": recipe, "max_steps": 36, "save_every": 1, "log_every": 1, **stream}
    jobs = [{"name": "unbroken", "options": options}, {"name": "run", "options": options, "kills": 10, "seed": 1}]
    unbroken, run = forked.work_off(tmp_path, jobs)
    assert unbroken["codes"] == run["codes"] == [0] and len(run["kills"]) == 10
    assert forked.final_weights(tmp_path / "run") == forked.final_weights(tmp_path / "unbroken")
    losses = [
        [json.loads(line)["total"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "unbroken")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 36


def test_a_full_disk_leaves_the_last_checkpoint_whole(recipe, tmp_path):
    """A file system of 30 kB would need root; a limit on the size of a file does the same to write()."""
    options = {"config": recipe, "keep_last": 9, "online_probe": False}
    jobs = [
        {"name": "unbroken", "options": options},
        {"name": "run", "options": options, "copy_of": "unbroken", "until": 15, "file_size": 30_000},
        {"name": "run", "options": options},
    ]
    _unbroken, full, resumed = forked.work_off(tmp_path, jobs)
    before = tmp_path / "run" / "checkpoints" / "step-00000015"
    assert full["codes"] == [3] and full["said"][-1].startswith("visreg pretrain: the checkpoint of step 18 could not")
    assert f"{before} is intact" in full["said"][-1]
    assert resumed["codes"] == [0]  # from there, when there is room again
    assert forked.final_weights(tmp_path / "run") == forked.final_weights(tmp_path / "unbroken")


def test_a_changed_recipe_is_named_and_refused(recipe, unbroken):
    with pytest.raises(UserError, match=r"another learning_rate \(0.002 -> 0.1\)"):
        pretrain(config=recipe, output_dir=str(unbroken), resume="auto", learning_rate=0.1)
    with pytest.raises(UserError, match="--resume auto continues one that has checkpoints, --overwrite deletes it"):
        pretrain(config=recipe, output_dir=str(unbroken))


def test_free_changes_are_named_and_accepted():
    options = from_keywords(dataset="digits", output_dir="out", save_every=3)
    state = RunState(recipe=options.as_recipe(), positions=[{}])
    assert check_same_run(state, options.replace(save_every=5), 1) == ["save_every: 3 -> 5"]
    with pytest.raises(UserError, match="started with 1 processes, not 2"):
        check_same_run(state, options, 2)


def test_a_range_in_a_saved_recipe_is_the_same_range():
    """JSON and YAML know lists only, the options hold tuples."""
    options = from_keywords(dataset="digits", output_dir="out", global_scale=[0.2, 0.9])
    state = RunState(recipe=json.loads(json.dumps(options.as_recipe())), positions=[{}])
    assert check_same_run(state, options, 1) == []


def test_unfinished_checkpoints_are_not_seen(tmp_path):
    folder = RunFolder(tmp_path)
    others = ("step-00000009.unfinished", ".step-00000009.1a2b3c4d.new", "step-final", "step-00000004.mine", "step-7")
    for name in ("step-00000003", "step-00000002", *others):
        (folder.checkpoints / name).mkdir(parents=True)
        (folder.checkpoints / name / "state.json").write_text("{}")
    (folder.checkpoints / "step-00000008").mkdir()  # what a start that lost a race leaves
    assert [path.name for path in folder.all_checkpoints()] == ["step-00000002", "step-00000003"]
    assert folder.newest_checkpoint().name == "step-00000003"
    Checkpoints(folder, 1, "none", None).prune()
    assert {path.name for path in folder.checkpoints.iterdir()} == {"step-00000003", "step-00000008", *others} - {
        ".step-00000009.1a2b3c4d.new"
    }


def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_nothing(recipe, tmp_path):
    """An absurd learning rate makes the weights, and then the loss, overflow."""
    folder = tmp_path / "run"
    with pytest.raises(RunStopped, match=r"not finite at step \d+; its images are listed in"):
        pretrain(
            config=recipe, output_dir=str(folder), learning_rate=1e30, clip_norm=1e30, warmup_epochs=0, log_every=1
        )
    row = json.loads((folder / "nonfinite-rank0.jsonl").read_text().splitlines()[0])
    assert len(row["ids"]) == 16


def test_a_collapse_is_told(recipe, tmp_path):
    """Without its regularizer the embedding shrinks to a point."""
    options = {"regularization_weight": 0, "learning_rate": 2e-2, "log_every": 2, "collapse_intervals": 2}
    with pytest.raises(RunStopped, match="the embedding has collapsed"):
        pretrain(config=recipe, output_dir=str(tmp_path / "run"), on_collapse="stop", epochs=20, **options)


def test_a_collapse_is_warned_of_once():
    guard = CollapseGuard(rank=2.0, sigma=0.0, patience=3, action="warn")
    values = {"projection_rank": 1.1, "sigma_min": 0.0}
    said = [guard.check(values, step) for step in range(5)]
    assert [message is not None for message in said] == [False, False, True, False, False]
    assert guard.check({"projection_rank": 9.0, "sigma_min": 1.0}, 5) is None and guard.intervals_below == 0


def test_a_collapse_is_counted_across_a_resume(recipe, tmp_path):
    """Every interval of two steps counts; three of the five allowed lie before the resume."""
    options = {"config": recipe, "log_every": 2, "collapse_rank": 1e9, "collapse_intervals": 5, "keep_last": 9}
    jobs = [
        {"name": "whole", "options": options},
        {"name": "resumed", "options": options | {"on_collapse": "stop"}, "copy_of": "whole", "until": 6},
    ]
    whole, resumed = forked.work_off(tmp_path, jobs)
    assert (whole["codes"], resumed["codes"]) == ([0], [3])
    assert "for 5 intervals, to step 10," in resumed["said"][-1]


def test_a_second_signal_ends_at_once_but_the_same_one_passed_on_does_not():
    """A launcher forwards the signal that its children got too: one request, not two."""
    code = (
        "import os, signal, time\n"
        "from visreg_training.monitoring.guards import Signals\n"
        "with Signals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(signals.received, flush=True)\n"
        "    time.sleep(1.1); os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stdout == f"{int(signal.SIGTERM)}\n"
    assert done.stderr == "\nstopping after this step, with a checkpoint; once more ends it at once, without\n"


def test_a_finished_run_without_checkpoints_is_not_deleted(unbroken, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(unbroken, copy, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError, match="holds a run"):
        pretrain(config=str(copy / "recipe.yaml"), output_dir=str(copy), resume="auto")
    assert (copy / "model" / "model.safetensors").is_file()


def test_what_cannot_be_continued_is_told_the_way_round(recipe, unbroken, tmp_path):
    """Longer after the end, from the model; a run under way on other processes, from its checkpoint. Both start."""
    options = from_keywords(config=recipe, output_dir=str(unbroken), epochs=12)
    state = RunState(recipe=options.replace(epochs=6).as_recipe(), positions=[{}])
    with pytest.raises(UserError, match=rf"epochs \(6.* -> 12.*--initialize_from {unbroken} --output_dir ANOTHER$"):
        check_same_run(state, options, 1)
    under_way = tmp_path / "under_way"
    shutil.copytree(unbroken, under_way, ignore=shutil.ignore_patterns("model", "pretraining", "summary.json"))
    newest = RunFolder(under_way).newest_checkpoint()
    options = from_keywords(config=recipe, output_dir=str(under_way))
    with pytest.raises(UserError, match=rf"1 processes, not 2.*--initialize_from {newest} --output_dir ANOTHER$"):
        check_same_run(RunState(recipe=options.as_recipe(), positions=[{}]), options, 2)
    finished({"config": recipe, "output_dir": tmp_path / "longer", "initialize_from": newest, "max_steps": 1})


def test_a_run_starts_from_the_backbone_of_another(unbroken, tmp_path):
    """By the folder of a run; architecture options are refused, the projector comes along where its size stays."""
    start = {"initialize_from": str(unbroken), "output_dir": str(tmp_path / "b"), "dataset": "digits"}
    with pytest.raises(UserError, match="leave hidden_size, patch_size"):
        pretrain(**start, hidden_size=32, patch_size=4)
    data = {"dataset": "digits", "fraction": 0.05, "global_batch_size": 16, "max_steps": 1, "num_workers": 0}
    summary = pretrain(
        **data, initialize_from=str(unbroken), output_dir=str(tmp_path / "b"), learning_rate=1e-12, warmup_epochs=0
    )
    assert summary["steps"] == 1
    before, after = weights(unbroken), weights(tmp_path / "b")
    same = [name for name in before if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in same)
