# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Every family of vision models that a run can start from: its layers, its feature, its training, its checkpoint."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from helpers import forked
from helpers.loopback_hub import LoopbackHub
from helpers.tiny_backbones import FAMILIES, TIMM, tiny_model, tiny_timm
from visreg_training.backbones import (
    Backbone,
    TimmBackbone,
    TransformersBackbone,
    find_start,
    open_backbone,
    save_with_projector,
    wrap_backbone,
)
from visreg_training.config import from_keywords
from visreg_training.errors import UserError
from visreg_training.loop.run import build_run
from visreg_training.loop.updates import prepare, updates
from visreg_training.loop.views import build_batches
from visreg_training.run_folder import read_object


# Blocks of each, where they are not the three of a plain ViT.
BLOCKS = {"DINOv3ConvNext": 5, "ConvNext": 5, "ResNet": 5, "Swin": 4, "convnext_atto": 5, "resnet18": 4}
# What the native class calls the feature; CLS of its last hidden state where nothing is said.
MEANS, POOLED = ("IJepa", "SiglipVision", "Swin"), ("ConvNext", "ResNet", "Beit", *TIMM)
# 16 px are too few for four stages, and Swin's windows are of one size.
WIDE = ("Swin", "ConvNext", "convnext_atto", "DINOv3ConvNext")
RUN = {
    "config": "digits", "fraction": 0.05, "global_size": 32, "num_global": 2, "num_local": 1, "projection_size": 8,
    "projector_hidden_size": 16, "num_slices": 16, "global_batch_size": 16, "max_steps": 5, "save_every": 1,
    "log_every": 2, "num_workers": 0, "eval_split": "none", "drop_path_rate": "none",
}  # fmt: skip
WITHOUT_THIS_PACKAGE = """
import sys, json
sys.modules.update(dict.fromkeys(("visreg_training", "modeling_visreg", "visreg_hub_cards")))
import torch, transformers
from safetensors.torch import save_file
folders, target = json.loads(sys.argv[1]), sys.argv[2]
pixels, found = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32), {}
for family, folder in folders.items():
    model = transformers.AutoModel.from_pretrained(folder).eval()
    transformers.AutoImageProcessor.from_pretrained(folder)
    arguments = {}
    if family == "ViTMAE":
        model.config.mask_ratio, arguments = 0.0, {"noise": torch.arange(16.0).expand(2, -1)}
    with torch.no_grad():
        output = model(pixel_values=pixels, **arguments)
    found[family + ".last"] = output.last_hidden_state.contiguous()
    if output.get("pooler_output") is not None:
        found[family + ".pooled"] = output.pooler_output.flatten(1).contiguous()
save_file(found, target)
"""


def wrapped(family: str) -> Backbone:
    """The interface around a tiny random model."""
    torch.manual_seed(0)
    if family in TIMM:
        follows = {"dynamic_img_size": True} if family.startswith("vit") else {}
        return TimmBackbone(family, tiny_timm(family), follows | TIMM[family])
    return TransformersBackbone(family, tiny_model(family), (32, 32), (0.5, 0.4, 0.3), (0.3, 0.2, 0.1))


def options_of(family: str, start, output, **changes) -> dict:
    """Those of a run of five updates."""
    local = {"local_size": 32 if family in WIDE else 16}
    return RUN | local | {"initialize_from": str(start), "output_dir": str(output)} | changes


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """A checkpoint of each family with random weights, by name."""
    folder = tmp_path_factory.mktemp("starts")
    for family in [*FAMILIES, *TIMM]:
        wrapped(family).save(folder / family)
    return folder


def adapt(starts, root):
    """Family -> (its folder after five updates, its feature then, whether the losses were finite)."""
    folder, pixels, result = root / "adapted", torch.linspace(-1, 1, 6144).view(2, 3, 32, 32), {}
    for family in [*FAMILIES, *TIMM]:
        run = build_run(from_keywords(**options_of(family, starts / family, folder / "run")))
        trainer, batches = prepare(run), build_batches(run)
        losses = [update.output.terms.total.item() for update in updates(run, trainer, batches)]
        batches.close()
        backbone = wrap_backbone(run.model)
        backbone.save(folder / family)
        with backbone.evaluating(), torch.no_grad():
            result[family] = folder / family, backbone.feature(pixels), losses
    return result


@pytest.mark.parametrize("family", [*FAMILIES, *TIMM])
def test_every_parameter_has_a_layer(family):
    """The embedding is layer 0, a block's parameters are of its layer, and what normalizes the feature is the last."""
    backbone = wrapped(family)
    blocks = backbone.blocks()
    assert len(blocks) == BLOCKS.get(family, 3)
    names = {id(parameter): name for name, parameter in backbone.module.named_parameters()}
    layers = {name: backbone.layer_of(name) for name in names.values()}
    for number, block in enumerate(blocks, 1):
        assert {layers[names[id(parameter)]] for parameter in block.parameters()} == {number}
    first = next(iter(layers))
    assert layers[first] == 0 and sorted(set(layers.values()))[: len(blocks) + 1] == list(range(len(blocks) + 1))
    after = {name for name, layer in layers.items() if layer == len(blocks) + 1}
    assert all(name.startswith(("layernorm", "layer_norm", "norm", "head", "post_", "pooler")) for name in after)
    assert bool(after) != family.lower().startswith("resnet")


def test_checkpoints_load_without_this_package_and_give_the_feature_that_was_trained(starts, tmp_path):
    """AutoModel opens each in a process that cannot import this package; the native class gives the same feature.

    One test for all: workers that share a module's tests would each train every family.
    """
    adapted = adapt(starts, tmp_path)
    folders = {family: str(folder) for family, (folder, _feature, _losses) in adapted.items()}
    command = [sys.executable, "-c", WITHOUT_THIS_PACKAGE, json.dumps(folders), str(tmp_path / "found")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = load_file(tmp_path / "found")
    for family, (folder, feature, losses) in adapted.items():
        last = found[f"{family}.last"]
        assert_trained_in_its_own_format(family, starts / family, folder)
        native = last.mean(1) if family in MEANS else found.get(f"{family}.pooled") if family in POOLED else last[:, 0]
        torch.testing.assert_close(
            native, feature, rtol=1e-5, atol=1e-5, msg=lambda text, family=family: family + text
        )
        assert len(losses) == 5 and all(map(torch.isfinite, torch.tensor(losses)))
        pixels = torch.linspace(-1, 1, 6144).view(2, 3, 32, 32)
        torch.testing.assert_close(open_backbone(str(folder)).embed(pixels), feature, rtol=1e-5, atol=1e-5)


def assert_trained_in_its_own_format(family, start, folder) -> None:
    """Training changes the weights and keeps the configuration."""
    before, after = load_file(start / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert read_object(start / "config.json") == read_object(folder / "config.json")
    if family not in TIMM:
        processor = read_object(folder / "preprocessor_config.json")
        assert processor["image_mean"] == [0.5, 0.4, 0.3] and processor["image_std"] == [0.3, 0.2, 0.1]


REPRESENTATIVES = ("Dinov2", "ResNet", "convnext_atto")


def killed_and_resumed(starts, folder, families) -> None:
    """Each run is killed once at a random moment and goes on; the weights are those of an unbroken run."""
    jobs = []
    for family in families:
        options = options_of(family, starts / family, "unused", eval_split=None, drop_path_rate=None)
        recipe = {"config": write_recipe(folder / f"{family}.yaml", options)}
        jobs += [
            {"name": f"{family}-unbroken", "options": dict(recipe)},
            {"name": f"{family}-killed", "options": dict(recipe), "kills": 1, "seed": 3},
        ]
    for line in forked.work_off(folder, jobs):
        assert line["codes"] == [0], line
    for family in families:
        assert forked.final_weights(folder / f"{family}-unbroken") == forked.final_weights(folder / f"{family}-killed")
        assert (folder / f"{family}-killed" / "model" / "README.md").is_file()


def write_recipe(path, options: dict) -> str:
    recipe = from_keywords(**options).as_recipe() | {"eval_split": None}
    path.write_text(json.dumps({name: value for name, value in recipe.items() if value is not None}))
    return str(path)


@pytest.mark.timeout(400)
def test_kill_and_resume_of_representatives(starts, tmp_path):
    """A ViT, a network with batch norm, one of timm."""
    killed_and_resumed(starts, tmp_path, [family for family in REPRESENTATIVES if family in (*FAMILIES, *TIMM)])
    assert "license" in (tmp_path / "Dinov2-killed" / "model" / "README.md").read_text()
    backbone = open_backbone(str(tmp_path / "Dinov2-killed"))
    raw = open_backbone(str(tmp_path / "Dinov2-killed" / "checkpoints" / "step-00000005"))
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(backbone.embed(pixels), raw.embed(pixels))  # a checkpoint to go on from is one to start from


@pytest.mark.timeout(400)
def test_a_resume_does_without_its_start(starts, tmp_path):
    """Once a checkpoint is there, the folder of the start may go: transformers' weights, timm's architecture."""
    mine = tmp_path / "starts"
    scratch = {"initialize_from": None, "model": str(mine / "convnext_atto"), "from_scratch": True}
    recipes = {"Dinov2": {}, "convnext_atto": scratch}
    for family in recipes:
        shutil.copytree(starts / family, mine / family)
    jobs, further = [], []
    for family, changes in recipes.items():
        given = {"eval_split": None, "drop_path_rate": None, "max_steps": 3} | changes
        given = options_of(family, mine / family, "unused", **given)
        options = {"config": write_recipe(tmp_path / f"{family}.yaml", given)}
        jobs.append({"name": family, "options": options})
        further.append({"name": f"{family}-on", "options": options, "copy_of": family, "until": 2})
    lines = forked.work_off(tmp_path, jobs)
    shutil.rmtree(mine)
    for line in lines + forked.work_off(tmp_path, further):
        assert line["codes"] == [0], line
    for family in recipes:
        for name in ("model", "pretraining"):
            first, second = (tmp_path / folder / name for folder in (family, f"{family}-on"))
            files = {path.name for path in first.iterdir()}
            assert files == {path.name for path in second.iterdir()}
            for file in files & {"config.json", "preprocessor_config.json", "model.safetensors"}:
                assert (first / file).read_bytes() == (second / file).read_bytes(), f"{family}/{name}/{file}"
        names = [read_object(tmp_path / run / "run.json")["model"]["name"] for run in (family, f"{family}-on")]
        assert names == [family, family]


def test_a_checkpoint_remembers_that_its_start_had_no_pooler(starts, tmp_path):
    """What a run writes from it has none either, when it goes on without the start."""
    shutil.copytree(starts / "ViT", tmp_path / "start")
    weights = load_file(tmp_path / "start" / "model.safetensors")
    pooler = {name for name in weights if name.startswith("pooler.")}
    kept = {name: tensor for name, tensor in weights.items() if name not in pooler}
    save_file(kept, tmp_path / "start" / "model.safetensors", {"format": "pt"})
    run = build_run(from_keywords(**options_of("ViT", tmp_path / "start", tmp_path / "run")))
    save_with_projector(run.model, tmp_path / "checkpoint")
    open_backbone(str(tmp_path / "checkpoint")).save(tmp_path / "again")
    assert pooler and load_file(tmp_path / "again" / "model.safetensors").keys() == kept.keys()
    assert "visreg" not in (tmp_path / "again" / "config.json").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_and_resume_of_all_others(starts, tmp_path):
    killed_and_resumed(starts, tmp_path, [name for name in (*FAMILIES, *TIMM) if name not in REPRESENTATIVES])


def test_an_architecture_without_its_weights(starts, tmp_path):
    """The position embedding is that of the views, the weights are the seed's, and the projector follows the width."""
    given = options_of("ViT", "x", tmp_path / "run")
    given |= {"initialize_from": None, "model": str(starts / "ViT"), "from_scratch": True, "global_size": 48}
    given |= {"local_size": 24, "projection_size": None}
    first, second = (build_run(from_keywords(**given | {"seed": seed})) for seed in (0, 1))
    assert first.model.backbone.config.image_size == 48 and first.model.config.projection_size == 32 // 3
    assert not torch.equal(*(next(run.model.projector.parameters()) for run in (first, second)))
    assert wrap_backbone(first.model).processor.crop_size["height"] == 48
    for convolutional in ("resnet18", "ConvNext"):  # no position embedding, and features are measured at this size
        assert find_start(str(starts / convolutional)).fresh(48, None).native_size == (48, 48)


def refusal(family, starts, tmp_path, **changes) -> str:
    with pytest.raises(ValueError) as caught:
        build_run(from_keywords(**options_of(family, starts / family, tmp_path / "run", **changes)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_does_not_fit_is_refused_in_one_line(starts, tmp_path):
    assert "batch norm" in refusal("ResNet", starts, tmp_path, micro_batch_size=4)
    assert "does not take images of 16 x 16" in refusal("ConvNext", starts, tmp_path, local_size=16)
    assert "not divisible by the patch of 8" in refusal("Dinov2", starts, tmp_path, local_size=20)
    assert "only our own ViT is compiled" in refusal("Dinov2", starts, tmp_path, compile="blocks")
    assert "has no drop path" in refusal("ResNet", starts, tmp_path, drop_path_rate=0.1)
    assert "activation_checkpointing" in refusal("ConvNext", starts, tmp_path, activation_checkpointing=True)
    text = tmp_path / "text"
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    transformers.BertModel(transformers.BertConfig(**config, vocab_size=20)).save_pretrained(text)
    with pytest.raises(ValueError, match="BertModel, which does not take images alone"):
        build_run(from_keywords(**options_of("ViT", text, tmp_path / "run")))
    with pytest.raises(UserError, match="model must be one of"):
        from_keywords(**RUN, model="vit_bas", dataset="x", output_dir="y")


CLIENT = """
import contextlib, io, os, sys
from visreg_training.cli import main
for token, name in (("", "me/gated"), (os.environ["HF_TOKEN"], "me/gated"), ("", "me/private")):
    os.environ["HF_TOKEN"] = token
    for start in (["--initialize_from", name], ["--from_scratch", "--model", name]):
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
            try:
                main(["pretrain", "--dataset", "digits", "--output_dir", sys.argv[1], *start])
            except SystemExit as ended:
                print(ended.code, *said.getvalue().splitlines())
"""


def test_what_the_hub_keeps_back_is_one_line_that_says_how_to_get_it(starts, tmp_path):
    """Of a gated repository with and without a login, and of a private one without."""
    files = {path.name: path.read_bytes() for path in (starts / "Dinov2").iterdir()}
    with LoopbackHub(tmp_path / "home") as hub:
        hub.upload("me/gated", files, gated=True)
        hub.upload("me/private", files, private=True)
        done = hub.run_python(CLIENT, str(tmp_path / "out"))
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and not (tmp_path / "out").exists(), done.stderr[-2000:]
    way = "it is gated: accept its conditions at https://huggingface.co/me/gated, then log in with `hf auth login`"
    private = "(or it is private and you are not logged in: `hf auth login`)"
    for line, said in zip(lines, [way] * 4 + [private] * 2, strict=True):
        assert line.startswith("2 visreg pretrain: me/") and said in line, line


def test_a_folder_of_timm_builds_nothing_that_its_weights_do_not_fill(starts, tmp_path):
    """Its config.json may be anybody's: sizes are compared on the meta device, numbers are bounded."""
    weights, config = starts / "resnet18" / "model.safetensors", read_object(starts / "resnet18" / "config.json")
    for arguments, said in (
        ({"layers": [1, 1, 1, 2000]}, "blocks"),
        ({"layers": [1, 1, 1, 1], "channels": [10**12] * 4}, "argument"),
        ({"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 48], "stem_width": 8}, "does not fit"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments}))
        save_file(load_file(weights), tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=said):
            open_backbone(str(tmp_path))


def test_micro_batches_and_checkpointing_give_the_same_gradient(starts, tmp_path):
    """Of a network without batch norm, dropout and drop path, all is exact."""
    gradients = []
    for changes in ({}, {"micro_batch_size": 4}, {"activation_checkpointing": True}):
        run = build_run(from_keywords(**options_of("Dinov2", starts / "Dinov2", tmp_path / "run", **changes)))
        module, batches = prepare(run).module.train(), build_batches(run)
        module(next(batches).views, 0).terms.total.backward()
        batches.close()
        gradients.append(run.model.backbone.encoder.layer[0].mlp.fc1.weight.grad.clone())
    for other in gradients[1:]:
        torch.testing.assert_close(gradients[0], other, rtol=1e-4, atol=1e-6)
