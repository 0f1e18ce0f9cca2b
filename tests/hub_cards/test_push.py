# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pushing to a Hub on loopback: what arrives, what is not sent twice, and what a fault leaves behind."""

import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from visreg_hub_cards import BackgroundPush, check_card, push_run, try_push, write_card, write_converted_card
from visreg_hub_cards.staging import stage
from visreg_training import retry
from visreg_training.loop.hub_pusher import HubPusher
from visreg_training.run_folder import CODE_FILES, RunFolder


WHAT_AUTOMODEL_READS = {
    "README.md", "config.json", "curves.png", "model.safetensors", *CODE_FILES,
    "preprocessor_config.json",
}  # fmt: skip
RECORDS = {"training/recipe.yaml", "training/run.json", "training/summary.json", "training/metrics.jsonl"}


@pytest.fixture
def impatient(monkeypatch):
    """The waits between attempts, without the waiting; what was waited."""
    waited, monotonic = [], time.monotonic
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: monotonic() + sum(waited))
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(time, "sleep", waited.append)  # huggingface_hub's own waits
    return waited


def test_everything_goes_up_in_one_commit(hub, api, run):
    (run / "evaluation").mkdir()
    result = {"model": {"name": "/home/ada/first/model"}, "value": 0.5}
    (run / "evaluation" / "knn.json").write_text(json.dumps(result))
    result = push_run(run, "org/first", api=api)
    files = hub.files("org/first")
    assert set(files) == WHAT_AUTOMODEL_READS | RECORDS | {"evaluation/knn.json"}
    assert len(hub.commits("org/first")) == 1 and result.changed
    assert files["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    assert b'from_pretrained("org/first"' in files["README.md"]
    assert not [path for path, data in files.items() if b"/home" in data]
    assert ("POST", "/api/validate-yaml") in hub.requests
    assert not list(run.glob(".push-*"))


def test_a_second_push_without_a_change_makes_no_commit(hub, api, run):
    first = push_run(run, "org/first", api=api)
    second = push_run(run, "org/first", api=api)
    assert len(hub.commits("org/first")) == 1
    assert second.commit == first.commit and not second.changed
    assert "no commit" in second.lines()[0]


def test_only_what_changed_is_sent(hub, api, run):
    push_run(run, "org/first", api=api)
    (run / "metrics.jsonl").write_text('{"step": 2}\n')
    hub.requests.clear()
    assert push_run(run, "org/first", api=api).changed
    assert not [path for method, path in hub.requests if method == "PUT"]
    assert hub.files("org/first")["training/metrics.jsonl"] == b'{"step": 2}\n'


def test_a_dry_run_asks_nobody(hub, api, run):
    result = push_run(run, "org/first", dry_run=True, include_pretraining=True, timm=True, api=api)
    assert hub.requests == [] and result.commit is None
    paths = [path for path, _size in result.files]
    assert {"timm/model.safetensors", "pretraining/model.safetensors"} <= set(paths)
    assert "checkpoints/step-00000500/optimizer.pt" in paths
    assert "nothing was sent" in result.lines()[-1]


def test_pretraining_goes_up_on_request(hub, api, run):
    push_run(run, "org/first", include_pretraining=True, api=api)
    older = set(hub.files("org/first"))
    assert "checkpoints/step-00000500/state.json" in older and "pretraining/model.safetensors" in older
    (run / "checkpoints" / "step-00000500").rename(run / "checkpoints" / "step-00000600")
    result = push_run(run, "org/first", include_pretraining=True, api=api)
    assert {path.split("/")[1] for path in hub.files("org/first") if path.startswith("checkpoints/")} == {
        "step-00000600"
    }
    assert all(path.startswith("checkpoints/step-00000500/") for path in result.deleted) and result.deleted


def test_weights_of_another_layout_are_replaced_and_nothing_else_goes(hub, api, run):
    shards = {f"model-0000{number}-of-00002.safetensors": b"old" for number in (1, 2)}
    hub.upload("org/first", shards | {"model.safetensors.index.json": b"{}", "notes.md": b"mine"})
    result = push_run(run, "org/first", api=api)
    assert set(hub.files("org/first")) == WHAT_AUTOMODEL_READS | RECORDS | {"notes.md"}
    assert set(result.deleted) == {*shards, "model.safetensors.index.json"}


def test_sharded_weights_go_up_as_they_are(hub, api, run):
    from modeling_visreg import VISRegViTModel

    model = VISRegViTModel.from_pretrained(run / "model")
    (run / "model" / "model.safetensors").unlink()
    model.save_pretrained(run / "model", max_shard_size="20KB")
    push_run(run, "org/first", timm=True, api=api)
    files = hub.files("org/first")
    assert "model.safetensors.index.json" in files and "model.safetensors" not in files
    assert "timm/model.safetensors" in files


def test_timm_reads_a_copy(run, tmp_path):
    import timm

    from modeling_visreg import VISRegViTModel

    stage(run, tmp_path, "org/first", timm=True)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    ours = VISRegViTModel.from_pretrained(tmp_path).eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixels), ours(pixels).pooler_output, rtol=0, atol=1e-5)


def test_results_of_an_earlier_push_go(hub, api, run):
    hub.upload("org/first", {"evaluation/knn.json": b"{}"})
    assert push_run(run, "org/first", api=api).deleted == ["evaluation/knn.json"]


def test_a_branch_is_made_for_a_revision(hub, api, run):
    assert push_run(run, "org/first", revision="v1", api=api).revision == "v1"
    assert hub.files("org/first", "main") == {}
    assert set(hub.files("org/first", "v1")) == WHAT_AUTOMODEL_READS | RECORDS


def test_private_repositories(hub, api, run):
    push_run(run, "org/secret", private=True, api=api)
    assert hub.repositories["model", "org/secret"].private
    push_run(run, "org/secret", private=True, api=api)
    for token in (False, "hf_wrong"):
        stranger = HfApi(endpoint=hub.url, token=token)
        with pytest.raises(ValueError, match="refuses access to org/secret"):
            push_run(run, "org/secret", api=stranger)
    assert len(hub.commits("org/secret")) == 1


def test_a_public_repository_is_not_taken_for_a_private_one(hub, api, run):
    hub.create("org/open")
    with pytest.raises(ValueError, match="org/open is there and public"):
        push_run(run, "org/open", private=True, api=api)
    assert hub.commits("org/open") == []


def test_an_edited_card_goes_up_as_it_is(hub, api, run):
    card = write_card(run)
    card.write_text(card.read_text(encoding="utf-8") + "\nBy hand.\n", encoding="utf-8")
    push_run(run, "org/first", api=api)
    assert hub.files("org/first")["README.md"] == card.read_bytes()
    with pytest.raises(ValueError, match="the card was edited"):
        push_run(run, "org/first", license="mit", api=api)


def test_weights_of_unknown_license_wait_for_one(hub, api, run, records):
    (recipe, record, summary), write = records
    write(run, recipe | {"initialize_from": "somebody/weights"}, record, summary)
    with pytest.raises(ValueError, match="no license; --license says"):
        push_run(run, "org/first", api=api)
    assert ("model", "org/first") not in hub.repositories
    push_run(run, "org/first", license="mit", api=api)
    assert b"license: mit" in hub.files("org/first")["README.md"]
    push_run(run, "org/first", license="other", license_name="acme-1.0", license_link="https://acme.example", api=api)
    said = b"license: other\nlicense_name: acme-1.0\nlicense_link: https://acme.example\n"
    assert said in hub.files("org/first")["README.md"]


def test_a_converted_checkpoint_goes_up_with_its_license(hub, api, run):
    write_converted_card(run / "model", source="visreg-vit-b-inet1k.pth")
    push_run(run / "model", "org/converted", api=api)
    card = hub.files("org/converted")["README.md"]
    assert b"license: cc-by-nc-4.0" in card and b"base_model: BooBooWu/visreg" in card
    assert b'from_pretrained("org/converted"' in card


def test_weights_that_cannot_be_read_are_not_sent(hub, api, run):
    (run / "model" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        push_run(run, "org/first", api=api)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["first", "a/b/c", "org/na me", "org/", "https://x/y"])
def test_names_that_are_none(hub, api, run, name):
    with pytest.raises(ValueError, match="organization/name"):
        push_run(run, name, api=api)
    assert hub.requests == []


def test_nothing_to_push(api, tmp_path):
    with pytest.raises(ValueError, match="has nothing to push"):
        push_run(tmp_path, "org/first", api=api)


FAULTS = {
    "commit 500 before": ("POST", "/commit/", {"status": 500}),
    "commit 503 after": ("POST", "/commit/", {"status": 503, "after": True}),
    "commit reset after": ("POST", "/commit/", {"action": "reset", "after": True}),
    "commit 429": ("POST", "/commit/", {"status": 429, "headers": {"Retry-After": "3"}}),
    "create 500 twice": ("POST", "/repos/create", {"status": 500, "times": 2}),
    "validation 502": ("POST", "/validate-yaml", {"status": 502}),
    "preupload 504": ("POST", "/preupload/", {"status": 504}),
    "upload reset": ("PUT", "/lfs/", {"action": "reset", "times": 2}),
    "upload cut": ("PUT", "/lfs/", {"action": "cut"}),
    "listing reset": ("GET", "/tree/", {"action": "reset"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_passing_faults_are_survived_with_one_commit(hub, api, run, impatient, fault):
    method, pattern, details = FAULTS[fault]
    injected = hub.fail(method, pattern, **details)
    result = push_run(run, "org/first", api=api)
    assert injected.times == 0
    assert len(hub.commits("org/first")) == 1 and result.changed
    assert set(hub.files("org/first")) == WHAT_AUTOMODEL_READS | RECORDS
    if fault == "commit 429":
        assert 3.0 in impatient


@pytest.mark.parametrize("method, pattern", [("POST", "/commit/"), ("PUT", "/lfs/"), ("POST", "/repos/create")])
def test_a_hub_that_stays_away_is_left_as_it_was(hub, api, run, impatient, method, pattern):
    push_run(run, "org/first", api=api)
    before = hub.files("org/first")
    weights = load_file(run / "model" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, run / "model" / "model.safetensors")
    (run / "metrics.jsonl").write_text("{}\n")
    hub.fail(method, pattern, status=500, times=10_000)
    with pytest.raises(ConnectionError, match="the Hub is away"):
        push_run(run, "org/first", api=api)
    assert hub.files("org/first") == before
    message = try_push(run, "org/first", api=api)
    assert message.startswith("not pushed: the Hub is away")
    assert f"visreg push --model {run} --repo_id org/first" in message and "\n" not in message
    hub.faults.clear()
    assert try_push(run, "org/first", api=api).startswith("pushed")
    assert len(hub.commits("org/first")) == 2


def test_a_commit_that_is_refused_is_not_asked_for_again(hub, api, run, impatient):
    hub.fail("POST", "/commit/", status=400, times=10)
    with pytest.raises(ValueError, match=r"refused the push to org/first \(400\)"):
        push_run(run, "org/first", api=api)
    assert impatient == []


PAGE = b"<html><body>Please log in to the network</body></html>"


@pytest.mark.parametrize("status", [200, 307, 400, 403])
@pytest.mark.parametrize("place", ["/repos/create", "/preupload/", "objects/batch", "/lfs/", "/commit/", "/tree/"])
def test_answers_of_something_else_than_a_hub_are_one_line(hub, api, run, impatient, place, status):
    """A page of HTML from a proxy, a redirection that leads nowhere, a refusal of the storage."""
    method = {"/lfs/": "PUT", "/tree/": "GET"}.get(place, "POST")
    hub.fail(method, place, status=status, content=PAGE, headers={"Content-Type": "text/html"}, times=1000)
    message = try_push(run, "org/first", api=api)
    assert "\n" not in message and len(message) < 1500
    if (place, status) != ("/lfs/", 200):  # storage answers an upload with whatever it likes
        assert message.startswith("not pushed: ")
        with pytest.raises((ValueError, ConnectionError)):
            push_run(run, "org/first", api=api)
    assert sum(impatient) < 600


@pytest.mark.slow
def test_a_hub_that_never_answers_does_not_keep_a_training(hub, run, tmp_path, monkeypatch, capsys):
    """Neither the push beside it nor the one at its end; both are given up, and said."""
    for name, value in hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retry, "SILENCE", 0.5)
    monkeypatch.setattr(retry, "PUSH_PATIENCE", 1.0)
    hub.fail("POST", "/repos/create", action="hang", times=1000)
    options = SimpleNamespace(push_to_hub=True, repo_id="org/first", push_every=1, private=False)
    api = HfApi(endpoint=hub.url, token=hub.token)
    monkeypatch.setattr("visreg_hub_cards.push.HfApi", lambda: api)
    pusher = HubPusher(SimpleNamespace(options=options, folder=RunFolder(run), is_main=True))
    pusher.checkpoint_written()
    assert pusher.background.finish(1) is not None  # ended, though it had not had its answer
    pusher.run_finished()
    said = capsys.readouterr().out
    assert "not pushed: the Hub is away" in said and "To try again: visreg push" in said
    assert not [path.name for path in run.iterdir() if path.name.startswith(".push")]


def test_a_training_under_way_pushes_beside_it(hub, run, tmp_path, monkeypatch):
    for name in ("model", "pretraining"):
        shutil.rmtree(run / name)
    (run / "summary.json").unlink()
    for name, value in hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    background = BackgroundPush(run, "org/under-way", include_pretraining=True)
    assert background.start()
    assert not background.start()
    shutil.rmtree(run / "checkpoints")  # as pruning does
    assert background.finish(120).startswith("pushed")
    files = hub.files("org/under-way")
    assert {"model.safetensors", "README.md", "checkpoints/step-00000500/optimizer.pt"} <= set(files)
    assert b"update 500 of 500" in files["README.md"] and b"projector" not in files["model.safetensors"]
    assert not background.start() and background.message() is None
    assert sorted(path.name for path in run.iterdir()) == ["curves.png", "metrics.jsonl", "recipe.yaml", "run.json"]


def test_the_command(hub, run, tmp_path):
    environment = os.environ | hub.environment(tmp_path / "home")

    def visreg(name: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "visreg_training.cli", name, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    where = ("--model", str(run), "--repo_id", "org/first")
    assert "nothing was sent" in visreg("push", *where, "--dry_run").stdout
    done = visreg("push", *where, "--private", "--timm")
    assert done.returncode == 0 and "pushed" in done.stdout, done.stderr
    wrong = visreg("push", "--model", str(run), "--repo_id", "first")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "organization/name" in wrong.stderr
    assert "wrote" in visreg("card", str(run), "--license", "mit").stdout
    assert "is valid" in visreg("card", str(run), "--check").stdout
    card = run / "model" / "README.md"
    assert check_card(card) == []
    card.write_text("no header")
    broken = visreg("card", str(run), "--check")
    assert broken.returncode == 2 and "no YAML header" in broken.stderr
