# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A run takes a folder for itself: no second run, no link, nobody's files, and no checkpoint that is not whole."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from visreg_training import run_folder
from visreg_training.errors import UserError
from visreg_training.pretrain import pretrain


pytestmark = pytest.mark.cpu

HOLD = (
    "import sys, pathlib; from visreg_training.locks import Lock\n"
    "assert Lock(pathlib.Path(sys.argv[1])).take(); print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """A short run with two checkpoints, and a model."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    pretrain(config=recipe, output_dir=str(folder), max_steps=2, save_every=1, eval_split=None)
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def start(recipe, folder, **options):
    return pretrain(config=recipe, output_dir=str(folder), max_steps=2, save_every=1, eval_split=None, **options)


def refused(recipe, folder, **options) -> str:
    with pytest.raises(UserError) as caught:
        start(recipe, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("how", [{"resume": "auto"}, {"overwrite": True}])
def test_a_second_run_in_the_folder_is_refused_until_the_first_is_gone(recipe, run, monkeypatch, how):
    """The first is another process; it is killed, and leaves nothing that would keep others out."""
    monkeypatch.setattr(run_folder, "_LOCK_PATIENCE", 0.2)
    before = content(run)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    assert "another run is under way" in refused(recipe, run, **how)
    assert content(run) == before
    holder.kill()
    holder.wait()
    assert start(recipe, run, **how)["steps"] == 2
    assert start(recipe, run, resume="auto")["steps"] == 2  # a run that ended gives the folder back


@pytest.mark.parametrize("name", ["checkpoints", "model", "pretraining", "evaluation", "metrics.jsonl", "recipe.yaml"])
@pytest.mark.parametrize("how", [{"resume": "auto"}, {"overwrite": True}])
def test_a_link_in_the_folder_is_refused_and_what_it_leads_to_stays(recipe, run, tmp_path, name, how):
    (run / "evaluation").mkdir(exist_ok=True)
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path)
    assert f"{run / name} is a link" in refused(recipe, run, **how)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["model/my_code.py", "metrics.jsonl", "summary.json", "curves.png", "recipe.yaml"])
@pytest.mark.parametrize("how", [{}, {"resume": "auto"}, {"overwrite": True}])
def test_files_of_a_project_are_not_taken_for_those_of_a_run(recipe, tmp_path, name, how):
    """`--output_dir .` in a project that has such names: nothing is deleted or replaced."""
    path = tmp_path / "project" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine: 1\n")
    assert f"{path.parent if '/' in name else path} was written by no run" in refused(
        recipe, tmp_path / "project", **how
    )
    assert content(tmp_path / "project") == {name: b"mine: 1\n"}


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(recipe, run):
    (run / "checkpoints" / "step-00000001.mine").mkdir()
    (run / "notes.md").write_text("mine")
    (run / "model" / "my_code.py").write_text("mine")
    before = content(run)
    assert f"{run / 'model' / 'my_code.py'} was not written by a run" in refused(recipe, run, overwrite=True)
    assert content(run) == before
    (run / "model" / "my_code.py").unlink()
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / "knn.json").write_text('{"protocol": "knn", "metric": "accuracy", "value": 0.5}')
    for name in ("notes.md", "mine.json"):
        (run / "evaluation" / name).write_text("{}")
    start(recipe, run, overwrite=True)
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == ["mine.json", "notes.md"]
    assert (run / "notes.md").read_text() == "mine" and (run / "checkpoints" / "step-00000001.mine").is_dir()


def test_what_a_person_put_into_a_checkpoint_outlives_it(recipe, run, capsys):
    """Overwritten, taken the place of, and pruned."""
    first, newest = (run / "checkpoints" / f"step-{step:08d}" for step in (1, 2))
    (newest / "notes.txt").write_text("mine")
    (newest / "mine").mkdir()
    (newest / "mine" / "curve.csv").write_text("1,2")
    (first / "notes.txt").write_text("mine too")
    start(recipe, run, overwrite=True, keep_last=1, keep_best="none")
    said = capsys.readouterr().out
    assert f"kept {newest}: no run wrote what is in it (mine, notes.txt)\n" in said
    assert said.count(f"kept {first}: no run wrote what is in it (notes.txt)\n") == 2  # overwritten, then pruned
    assert (newest / "notes.txt").read_text() == "mine" and (newest / "mine" / "curve.csv").read_text() == "1,2"
    assert [path.name for path in first.iterdir()] == ["notes.txt"]
    assert [path.name for path in run_folder.RunFolder(run).all_checkpoints()] == [newest.name]


def test_a_checkpoint_that_was_being_replaced_has_its_name_again(recipe, run):
    newest = run / "checkpoints" / "step-00000002"
    newest.rename(newest.with_name(".step-00000002.0123abcd.old"))
    start(recipe, run, resume="auto")
    assert run_folder.RunFolder(run).newest_checkpoint() == newest and (newest / "optimizer.pt").exists()


def test_what_kills_left_behind_goes_with_the_next_start(recipe, run):
    left = [
        ".push-ab12cd",
        ".pushing",
        ".model.0123abcd.new",
        ".pretraining.89abcdef.old",
        "checkpoints/.step-00000002.0a.new",
    ]
    for name in left:
        (run / name).mkdir()
        (run / name / "weights").write_text("half")
    (run / ".metrics.0123456789abcdef.part.jsonl").write_text("half")
    mine = run / ".mine.part"
    mine.write_text("mine")
    start(recipe, run, resume="auto")
    assert not [name for name in left if (run / name).exists()]
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == [".lock", ".mine.part"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_a_tensor(path: Path) -> None:
    weights = load_file(path)
    weights.pop("vit.layernorm.bias")
    save_file(weights, path)


def edited(**changes):
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def without(name: str):
    def change(path: Path) -> None:
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))

    return change


def reweighted(change):
    def apply(path: Path) -> None:
        save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path)

    return apply


def misshape(path: Path) -> None:
    moments = torch.load(path, weights_only=True)
    next(iter(moments["state"].values()))["exp_avg"] = torch.ones(7, 7)
    torch.save(moments, path)


DAMAGE = {
    "cut weights": ("model.safetensors", cut),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b"")),
    "no weights": ("model.safetensors", Path.unlink),
    "a tensor less": ("model.safetensors", without_a_tensor),
    "cut moments": ("optimizer.pt", cut),
    "empty moments": ("optimizer.pt", lambda path: path.write_bytes(b"")),
    "no moments": ("optimizer.pt", Path.unlink),
    "other moments": ("optimizer.pt", lambda path: torch.save({"state": torch.ones(3)}, path)),
    "a list of moments": ("optimizer.pt", lambda path: torch.save([1], path)),
    "cut state": ("state.json", cut),
    "empty state": ("state.json", lambda path: path.write_text("")),
    "a list for a state": ("state.json", lambda path: path.write_text("[]")),
    "deep state": ("state.json", lambda path: path.write_text("[" * 100_000)),
    "text for a step": ("state.json", edited(step="many")),
    "an unknown field": ("state.json", edited(evil=1)),
    "numbers for positions": ("state.json", edited(positions=[3])),
    "empty positions": ("state.json", edited(positions=[{}])),
    "no step": ("state.json", without("step")),
    "no recipe": ("state.json", without("recipe")),
    "a step below 0": ("state.json", edited(step=-1)),
    "a step without end": ("state.json", edited(step=1e308)),
    "another step": ("state.json", edited(step=1)),
    "half weights": ("model.safetensors", reweighted(torch.Tensor.half)),
    "whole weights": ("model.safetensors", reweighted(torch.Tensor.int)),
    "infinite weights": ("model.safetensors", reweighted(lambda tensor: tensor / 0)),
    "misshapen moments": ("optimizer.pt", misshape),
    "a foreign probe": ("probe.pt", lambda path: torch.save({"a": torch.ones(2)}, path)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_one_line_that_names_the_part(recipe, run, name):
    """Before, one without weights went on from random ones."""
    part, damage = DAMAGE[name]
    newest = run / "checkpoints" / "step-00000002"
    damage(newest / part)
    message = refused(recipe, run, resume="auto")
    assert newest.name in message or "position to resume from" in message
    if part != "probe.pt" and name != "empty positions":
        assert f"delete {newest} to go on from step-00000001" in message


def test_optimizer_states_run_no_code(recipe, run):
    mark = run.parent / "mark"

    class Evil:
        def __reduce__(self):
            return Path.touch, (mark,)

    torch.save({"state": Evil()}, run / "checkpoints" / "step-00000002" / "optimizer.pt")
    assert "optimizer.pt cannot be read" in refused(recipe, run, resume="auto")
    assert not mark.exists()
