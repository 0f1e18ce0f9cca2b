# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What lies beside a checkpoint, or behind a link in one that was received, neither leaves nor changes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import modeling_visreg
from modeling_visreg.configuration_visreg import custom_pipelines
from visreg_hub_cards import check_card, push_run, write_card
from visreg_training.run_folder import CODE_FILES


SECRET = "hf_secret_of_somebody"


@pytest.fixture
def home(tmp_path) -> Path:
    """What only the user's own programs may read or write."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "token").write_text(SECRET)
    (folder / "credentials.json").write_text(json.dumps({"auths": SECRET}))
    (folder / "photo.png").write_bytes(b"photo")
    return folder


def sent(hub, name: str = "org/first") -> dict[str, bytes]:
    files = hub.files(name)
    assert not [path for path, data in files.items() if SECRET.encode() in data]
    return files


def test_only_the_files_of_a_checkpoint_go_up_and_the_rest_is_named(hub, api, run):
    beside = ("token.txt", "id_rsa", "notes.ipynb", "optimizer.pt", ".env", "pytorch_model.bin", "evil.py", "x.png")
    for name in beside:
        (run / "model" / name).write_text(SECRET)
    (run / "model" / "old").mkdir()
    (run / "model" / "old" / "model.safetensors").write_text(SECRET)
    (run / "pretraining" / "key.pem").write_text(SECRET)
    result = push_run(run, "org/first", include_pretraining=True, api=api)
    files = sent(hub)
    assert not [path for path in files if Path(path).name in (*beside[:3], *beside[4:], "key.pem")]
    assert "optimizer.pt" not in files and "checkpoints/step-00000500/optimizer.pt" in files
    left = {f"model/{name}" for name in (*beside, "old")} | {"pretraining/key.pem"}
    assert set(result.left_out) == left
    said = "\n".join(result.lines())
    assert all(f"no such file: {path}" in said for path in left)


def test_the_remote_code_is_ours_whatever_lies_there(hub, api, run):
    for folder in ("model", "pretraining"):
        (run / folder / "modeling_visreg.py").write_text("import os; os.system('true')")
        path = run / folder / "config.json"
        changes = {"auto_map": {"AutoModel": "evil/repo--modeling.Evil"}, "_name_or_path": "/home/ada/first"}
        changes["custom_pipelines"] = {"image-feature-extraction": {"impl": "evil/repo--pipe.Evil"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    push_run(run, "org/first", include_pretraining=True, api=api)
    files, ours = sent(hub), Path(modeling_visreg.__file__).parent
    for folder in ("", "pretraining/"):
        for name in CODE_FILES:
            assert files[folder + name] == (ours / name).read_bytes()
        config = json.loads(files[f"{folder}config.json"])
        assert config["custom_pipelines"] == custom_pipelines(None)
        assert set(config["auto_map"].values()) <= {
            f"{name}_visreg.{kind}"
            for name, kind in [
                ("configuration", "VISRegViTConfig"),
                *(("modeling", f"VISRegViT{end}") for end in ("Model", "Backbone", "ForPreTraining")),
                ("modeling", "VISRegViTForImageClassification"),
            ]
        }
        assert "_name_or_path" not in config
    assert "evil" in (run / "model" / "config.json").read_text()  # the run is as it was


@pytest.mark.parametrize("name", ["token", "model-00001-of-00002.safetensors", "curves.png"])
def test_a_link_beside_the_model_is_not_followed(hub, api, run, home, name):
    (run / "model" / name).symlink_to(home / "token")
    result = push_run(run, "org/first", api=api)
    assert f"model/{name}" in result.left_out
    assert sent(hub).get(name, b"") != SECRET.encode()


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("model/README.md", "token"),
        ("model/config.json", "credentials.json"),
        ("run.json", "credentials.json"),
        ("recipe.yaml", "credentials.json"),
        ("summary.json", "credentials.json"),
        ("metrics.jsonl", "token"),
        ("curves.png", "photo.png"),
        ("evaluation/knn.json", "credentials.json"),
        ("evaluation", "."),
        ("model", "."),
        ("pretraining", "."),
    ],
)
def test_a_link_in_the_place_of_a_record_is_refused(hub, api, run, home, place, target):
    path = run / place
    if place == "evaluation/knn.json":
        path.parent.mkdir()
    if path.is_dir():
        path.rename(home / "was")
        target = "was" if place == "model" else target
    elif path.exists():
        path.unlink()
    path.symlink_to(home / target)
    for attempt in (lambda: push_run(run, "org/first", api=api), lambda: write_card(run)):
        with pytest.raises(ValueError, match="is a link"):
            attempt()
    assert hub.requests == []


def test_weights_behind_a_link_are_not_sent(hub, api, run, home):
    weights = run / "model" / "model.safetensors"
    weights.rename(home / "weights")
    weights.symlink_to(home / "weights")
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        push_run(run, "org/first", api=api)
    assert hub.requests == []


def test_a_card_writes_through_no_link(run, home):
    """Names that the writing could be expected to use lead to a file of the user, and so does the card's figure."""
    before = (home / "token").read_text()
    for name in (".README.md.part", f".README.{os.getpid()}.part.md", ".curves.png.part"):
        (run / "model" / name).symlink_to(home / "token")
    (run / "model" / "curves.png").symlink_to(home / "photo.png")
    write_card(run)
    assert (home / "token").read_text() == before and (home / "photo.png").read_bytes() == b"photo"
    assert not (run / "model" / "curves.png").is_symlink()
    assert check_card(run / "model" / "README.md") == []


def test_a_card_whose_header_is_a_bomb_is_one_line(hub, api, run):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
    )
    card = run / "model" / "README.md"
    card.write_text(f"---\n{bomb}---\n# A card\n")
    assert check_card(card) == ["the header is not valid: it stands for more than 100,000 values"]
    with pytest.raises(ValueError, match="stands for more than"):
        push_run(run, "org/first", api=api)
    card.write_text("---\nlicense: mit\n---\n" + "x" * (1 << 20))
    with pytest.raises(ValueError, match="more than the 1,048,576"):
        check_card(card)


@pytest.mark.parametrize("name", ["run.json", "summary.json", "evaluation/knn.json"])
def test_records_nested_without_end_are_one_line(run, name):
    (run / "evaluation").mkdir()
    (run / name).write_text('{"a": ' * 200_000)
    with pytest.raises(ValueError, match="cannot be read") as caught:
        write_card(run)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_family_is_pushed_without_code(hub, api, tmp_path):
    """AutoModel needs none; what only our own ViT has is refused before anything is sent."""
    import transformers

    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=4)
    ).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="for our own ViT"):
        push_run(tmp_path / "vit", "org/first", api=api, license="mit", timm=True)
    assert hub.requests == []
    result = push_run(tmp_path / "vit", "org/first", api=api, license="mit", dry_run=True)
    assert {path for path, _size in result.files} == {"README.md", "config.json", "model.safetensors"}


def test_a_push_that_was_killed_leaves_nothing_to_the_next(hub, run, tmp_path, monkeypatch):
    """SIGTERM while the Hub keeps the upload waiting; what another push is still writing stays."""
    for name, value in hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    hub.fail("POST", "/repos/create", action="hang", times=1)
    command = [sys.executable, "-m", "visreg_training.cli", "push", "--model", str(run), "--repo_id", "org/first"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not [path for method, path in hub.requests if "create" in path]:
        assert process.poll() is None
        time.sleep(0.05)
    (under_way,) = run.glob(".push-*")
    assert "nothing was sent" in push_run(run, "org/first", dry_run=True).lines()[-1]
    assert list(run.glob(".push-*")) == [under_way]
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert list(run.glob(".push-*")) == [under_way]
    push_run(run, "org/first", dry_run=True)
    assert list(run.glob(".push-*")) == []
