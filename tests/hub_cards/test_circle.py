# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The whole circle on loopback, every step a process of its own: pretrain from a Hub data set, push, pull elsewhere.

"Elsewhere" is a process that cannot import this package, with a cache of its own: it has what the card tells.
"""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoImageProcessor

from modeling_visreg import VISRegViTModel


TINY = {
    "model": "vit_small", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4,
    "global_size": 16, "num_global": 2, "num_local": 0, "projection_size": 16, "projector_hidden_size": 32,
    "num_slices": 32, "global_batch_size": 32, "num_workers": 0, "max_steps": 4, "log_every": 2,
}  # fmt: skip

WITHOUT_PACKAGE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_visreg", "visreg_training", "visreg_hub_cards"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
"""

ELSEWHERE = """
import numpy, torch
from huggingface_hub import HfApi
from PIL import Image
from transformers import AutoBackbone, AutoModel, AutoModelForPreTraining, pipeline
exec(open("lines.py").read())
numpy.save("features.npy", features.detach().numpy())
sha = HfApi().model_info("org/first").sha
options = {"revision": sha, "trust_remote_code": True, "dtype": torch.bfloat16, "device_map": "cpu"}
pinned = AutoModel.from_pretrained("org/first", **options)
assert pinned.dtype == torch.bfloat16
maps = AutoBackbone.from_pretrained("org/first", trust_remote_code=True, out_indices=[1, 2])(torch.zeros(1, 3, 16, 24))
assert [tuple(item.shape) for item in maps.feature_maps] == [(1, 32, 4, 6)] * 2
whole = AutoModelForPreTraining.from_pretrained("org/first", subfolder="pretraining", trust_remote_code=True)
assert whole([torch.zeros(2, 4, 3, 16, 16)]).projections.shape == (2, 4, 16)
extract = pipeline("image-feature-extraction", model="org/first", trust_remote_code=True)
assert numpy.shape(extract(Image.open("photo.jpg"))) == (1, 17, 32)
import timm
other = timm.create_model("hf-hub:org/first", pretrained=True).eval()
with torch.no_grad():
    pixels = processor(Image.open("photo.jpg"), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(other(pixels), features, rtol=0, atol=1e-5)
"""


def parquet(images: np.ndarray, labels: np.ndarray) -> bytes:
    """A shard as the Hub stores images."""
    rows = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((image.reshape(8, 8) * 15.9).astype("uint8")).resize((16, 16)).convert("RGB").save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, type=image_type), "label": pa.array(labels, type=pa.int64())})
    names = [str(digit) for digit in range(10)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=50)
    return file.getvalue()


def upload_digits(hub) -> None:
    digits = load_digits()
    parts = {"train-00000-of-00002": (0, 96), "train-00001-of-00002": (96, 192), "test-00000-of-00001": (192, 256)}
    hub.upload(
        "org/digits",
        {f"data/{name}.parquet": parquet(digits.data[a:b], digits.target[a:b]) for name, (a, b) in parts.items()},
        kind="dataset",
    )


def visreg(*arguments: object, **variables: str) -> str:
    command = [sys.executable, "-m", "visreg_training.cli", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def elsewhere(code: str, folder: Path, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE + code],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_pretrain_push_pull(hub, tmp_path):
    upload_digits(hub)
    here, there = hub.environment(tmp_path / "home"), hub.environment(tmp_path / "other-home")
    run, folder = tmp_path / "run", tmp_path / "elsewhere"
    shared = {"push_to_hub": True, "repo_id": "org/shared", "save_every": 2, "push_every": 1}
    options = [item for name, value in (TINY | shared).items() for item in (f"--{name}", value)]
    # Faults on the way: huggingface_hub and datasets survive the first two themselves, the rest is for us.
    hub.fail("GET", "/resolve/", action="cut")
    hub.fail("PUT", "/lfs/", action="reset")
    hub.fail("POST", "/commit/", status=500)
    hub.fail("POST", "/repos/create", status=503)
    visreg("pretrain", "--dataset", "org/digits", "--eval_split", "test", "--output_dir", run, *options, **here)
    assert json.loads((run / "run.json").read_text())["source"]["streaming"]
    assert {"training/summary.json", "model.safetensors", "pca.png"} <= set(hub.files("org/shared"))
    assert "no commit" in visreg("push", "--model", run, "--repo_id", "org/shared", **here)
    push = ("push", "--model", run, "--repo_id", "org/first", "--private", "--timm", "--include_pretraining")
    assert "pushed" in visreg(*push, **here)
    assert "no commit" in visreg(*push, **here)
    assert not any(fault.times for fault in hub.faults)
    assert len(hub.commits("org/first")) == 1

    folder.mkdir()
    card = hub.files("org/first")["README.md"].decode()
    assert "org/digits" in card and hub.repositories["dataset", "org/digits"].branches["main"] in card
    (folder / "lines.py").write_text(re.search(r"## Use\n\n```python\n(.*?)```", card, re.DOTALL)[1])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(folder / "photo.jpg")
    elsewhere(ELSEWHERE, folder, **there)

    model = VISRegViTModel.from_pretrained(run / "model").eval()
    processor = AutoImageProcessor.from_pretrained(run / "model")
    with torch.no_grad():
        expected = model(**processor(Image.open(folder / "photo.jpg"), return_tensors="pt")).pooler_output
    torch.testing.assert_close(torch.from_numpy(np.load(folder / "features.npy")), expected, rtol=0, atol=1e-6)

    asked = len(hub.requests)
    elsewhere("exec(open('lines.py').read())", folder, **there | {"HF_HUB_OFFLINE": "1"})
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_a_training_ends_well_without_the_hub(hub, tmp_path):
    away = hub.fail("POST", "/repos/create", status=500, times=10_000)
    shared = {"push_to_hub": True, "repo_id": "org/first", "save_every": 2, "push_every": 1, "eval_split": "test"}
    options = [item for name, value in (TINY | shared).items() for item in (f"--{name}", value)]
    run, environment = tmp_path / "run", hub.environment(tmp_path / "home")
    said = visreg("pretrain", "--dataset", "digits", "--output_dir", run, *options, **environment)
    command = f"visreg push --model {run} --repo_id org/first"
    assert said.count(f"To try again: {command}") == 2 and hub.commits("org/first") == []  # a checkpoint, and the end
    away.times = 0
    assert "pushed" in visreg(*command.split()[1:], **environment)


REFUSED = """
from transformers import AutoModel
try:
    AutoModel.from_pretrained("org/secret", trust_remote_code=True)
except OSError as error:
    print(str(error))
else:
    raise SystemExit("a private model was given away")
"""


def test_a_private_model_is_not_given_to_strangers(hub, api, run, tmp_path):
    from visreg_hub_cards import push_run

    push_run(run, "org/secret", private=True, api=api)
    for number, token in enumerate((None, "hf_wrong")):
        elsewhere(REFUSED, tmp_path, **hub.environment(tmp_path / f"home-{number}", token=token))
