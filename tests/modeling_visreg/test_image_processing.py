# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The image processor and the pipelines: the same vector as `visreg features` for every kind of image, and what
transformers' own suite checks of an image processor (it is not in its wheel)."""

import base64
import json
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin
from torch.nn.functional import cosine_similarity
from transformers import AutoModel, pipeline
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from modeling_visreg import (
    VISRegViTForImageClassification,
    VISRegViTImageProcessor,
    VISRegViTModel,
    image_processor_for,
    save_checkpoint,
)
from modeling_visreg.decoding_visreg import declared_bits, reduction_to, upright, values_to_8_bit
from visreg_training.backbones import open_backbone
from visreg_training.data.decode import open_image
from visreg_training.evaluation.features import embed_batch
from visreg_training.evaluation.options import FeatureOptions
from visreg_training.evaluation.preprocessing import transform_for


ROWS, COLUMNS = np.mgrid[:75, :101]
COLORS = np.stack([(np.sin(COLUMNS / 9) + 1) / 2, ROWS / 75, (np.cos((COLUMNS + ROWS) / 12) + 1) / 2], -1)
PHOTO = Image.fromarray((COLORS * 255).astype(np.uint8))
GRAY = COLORS[..., 0]
ALPHA = Image.fromarray((COLORS[..., 1] * 255).astype(np.uint8))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def pixels_of(processor, image, **settings):
    return processor(image, return_tensors="pt", **settings).pixel_values


def save_12_bits(path, declared=True):
    """A gray PNG of 16 bits whose values are of 12, which its sBIT chunk says."""
    Image.fromarray((GRAY * 4095).astype(np.uint16)).save(path)
    if not declared:
        return
    content, chunk = path.read_bytes(), b"sBIT" + bytes([12])
    chunk = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])


IMAGES = {
    "jpeg.jpg": lambda path: PHOTO.save(path),
    "turned.jpg": lambda path: PHOTO.save(path, exif=turned(6)),
    "turned.png": lambda path: PHOTO.save(path, exif=turned(5)),
    "turned.tif": lambda path: PHOTO.save(path, exif=turned(8)),
    "16-bit.png": lambda path: Image.fromarray((GRAY * 65535).astype(np.uint16)).save(path),
    "16-bit.tif": lambda path: Image.fromarray((GRAY * 65535).astype(np.uint16)).save(path),
    "12-bit.png": save_12_bits,
    "float.tif": lambda path: Image.fromarray(GRAY.astype(np.float32)).save(path),
    "wide.tif": lambda path: Image.fromarray((GRAY * 40_000).astype(np.float32)).save(path),
    "palette.png": lambda path: PHOTO.quantize(32).save(path),
    "palette.gif": lambda path: PHOTO.quantize(8).save(path, transparency=3),
    "alpha.png": lambda path: Image.merge("RGBA", (*PHOTO.split(), ALPHA)).save(path),
    "gray-alpha.png": lambda path: Image.merge("LA", (PHOTO.convert("L"), ALPHA)).save(path),
    "cmyk.jpg": lambda path: PHOTO.convert("CMYK").save(path),
    "gray.jpg": lambda path: PHOTO.convert("L").save(path),
    "1-bit.png": lambda path: PHOTO.convert("1").save(path),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(checkpoint's directory, its backbone as `visreg features` has it, processor, model, pipeline)."""
    from modeling_visreg import VISRegViTConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 8}
    model = VISRegViTModel(VISRegViTConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    directory = save_checkpoint(model, tmp_path_factory.mktemp("served") / "model")
    extract = pipeline("image-feature-extraction", model=str(directory), pool=True, device="cpu")
    processor = AutoImageProcessor.from_pretrained(directory)
    return directory, open_backbone(str(directory)), processor, AutoModel.from_pretrained(directory).eval(), extract


@pytest.mark.parametrize("name", IMAGES)
@torch.no_grad()
def test_one_image_gives_one_vector_however_it_is_embedded(served, tmp_path, name):
    _directory, backbone, processor, model, extract = served
    path = tmp_path / name
    IMAGES[name](path)
    transform = transform_for(backbone)
    expected = embed_batch(backbone, transform, [transform(open_image(None, str(path)).load())], FeatureOptions(1))
    for image in (Image.open(path), str(path), path):
        ours = model(**processor(image, return_tensors="pt")).pooler_output
        assert cosine_similarity(ours, expected).item() > 0.99999
    for image in (Image.open(path), str(path), base64.b64encode(path.read_bytes()).decode()):
        assert cosine_similarity(extract(image, return_tensors=True), expected).item() > 0.99999
    loaded = Image.open(path)
    loaded.load()
    if name != "12-bit.png":  # whose depth is read before its pixels
        assert torch.equal(pixels_of(processor, loaded), pixels_of(processor, str(path)))


def test_pixels_are_those_of_the_evaluation_protocol(served):
    """256 / 224 of the size, antialiased bicubic, rounded center: by Pillow, in floats by hand."""
    processor = served[2]
    resized = PHOTO.resize((98, 73), Image.Resampling.BICUBIC).crop((17, 4, 81, 68))
    values = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
    expected = (values - torch.tensor((0.485, 0.456, 0.406))[:, None, None]) / torch.tensor((0.229, 0.224, 0.225))[
        :, None, None
    ]
    pixels = pixels_of(processor, PHOTO)
    torch.testing.assert_close(pixels[0], expected, atol=1e-5, rtol=0)


def test_arrays_and_tensors_of_every_type_give_what_the_image_gives(served):
    processor = served[2]
    colors = np.asarray(PHOTO)
    expected = pixels_of(processor, PHOTO)
    arrays = {
        "bytes": colors,
        "channels first": colors.transpose(2, 0, 1),
        "int64": colors.astype(np.int64),
        "to 1": (colors / 255).astype(np.float32),
        "to 255": colors.astype(np.float64),
        "16 bits": colors.astype(np.uint16) * 257,
        "opaque": np.dstack([colors, np.full(colors.shape[:2], 255, np.uint8)]),
        "tensor": torch.from_numpy(colors.copy()).permute(2, 0, 1),
        "tensor to 1": torch.from_numpy(colors / 255).permute(2, 0, 1).float().requires_grad_(),
    }
    for name, array in arrays.items():
        assert torch.equal(pixels_of(processor, array), expected), name
    gray = pixels_of(processor, PHOTO.convert("L"))
    assert torch.equal(pixels_of(processor, np.asarray(PHOTO.convert("L"))), gray)
    batch = torch.from_numpy(np.stack([colors, colors])).permute(0, 3, 1, 2)
    assert torch.equal(pixels_of(processor, batch), expected.expand(2, -1, -1, -1))
    rgba = Image.merge("RGBA", (*PHOTO.split(), ALPHA))
    ours = pixels_of(processor, [np.asarray(rgba), rgba])
    assert torch.equal(ours[0], ours[1])


def test_what_is_prepared_already_is_left_so(served):
    """Floats with everything switched off; any one step alone."""
    processor, off = (
        served[2],
        {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False},
    )
    values = np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32)
    assert np.array_equal(processor(values, **off, return_tensors="np")["pixel_values"][0], values)
    bytes_alone = processor(PHOTO, **off, return_tensors="np")["pixel_values"]
    assert np.array_equal(bytes_alone[0], np.asarray(PHOTO).transpose(2, 0, 1))
    cropped = processor(PHOTO, **off | {"do_center_crop": True}, return_tensors="np")["pixel_values"]
    assert np.array_equal(cropped[0], bytes_alone[0][:, 5:69, 18:82])
    resized = processor(PHOTO, do_center_crop=False, size={"height": 24, "width": 16}, return_tensors="pt")
    assert resized.pixel_values.shape == (1, 3, 24, 16)
    assert pixels_of(processor, PHOTO, crop_size={"height": 32, "width": 48}).shape[2:] == (
        32,
        48,
    )
    padded = processor(
        [PHOTO, PHOTO.resize((30, 40))], do_resize=False, do_center_crop=False, do_pad=True, return_tensors="pt"
    )
    assert padded.pixel_values.shape == (2, 3, 75, 101)
    with pytest.raises(ValueError, match="crop_size"):
        processor(PHOTO, crop_size={"shortest_edge": 3, "width": 48})


def test_saving_and_loading_keeps_every_setting(served, tmp_path):
    """As transformers' suite: JSON string and file, from_pretrained, AutoImageProcessor with any backend."""
    settings = {"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 32}, "image_mean": [0.1, 0.2, 0.3]}
    processor = VISRegViTImageProcessor(**settings, do_convert_rgb=False)
    saved = json.loads(processor.to_json_string())
    assert {name: saved[name] for name in settings} == settings and saved["do_convert_rgb"] is False
    assert saved["image_processor_type"] == "VISRegViTImageProcessor"
    processor.to_json_file(tmp_path / "file.json")
    assert VISRegViTImageProcessor.from_json_file(tmp_path / "file.json").to_dict() == processor.to_dict()
    processor.save_pretrained(tmp_path)
    for backend in (None, "pil", "torchvision"):
        again = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
        assert type(again) is VISRegViTImageProcessor and again.to_dict() == processor.to_dict()
    again, unused = VISRegViTImageProcessor.from_pretrained(
        tmp_path, do_resize=False, foo=1, return_unused_kwargs=True
    )
    assert again.do_resize is False and unused["foo"] == 1
    assert VISRegViTImageProcessor().crop_size["height"] == 224
    assert AutoImageProcessor.from_pretrained(served[0]).auto_map == {
        "AutoImageProcessor": "image_processing_visreg.VISRegViTImageProcessor"
    }
    half = processor([PHOTO], return_tensors="pt").to(torch.float16)
    assert half.pixel_values.dtype == torch.float16


def test_a_checkpoint_of_before_still_loads(served, tmp_path):
    """With the file of transformers' own processor; the pipeline then gives it what it gave."""
    model = AutoModel.from_pretrained(served[0])
    old = save_checkpoint(model, tmp_path / "old")
    path = old / "preprocessor_config.json"
    content = {name: value for name, value in json.loads(path.read_text()).items() if name != "auto_map"}
    path.write_text(json.dumps(content | {"image_processor_type": "BitImageProcessor"}))
    assert type(AutoImageProcessor.from_pretrained(old)).__name__.startswith("BitImageProcessor")
    extract = pipeline("image-feature-extraction", model=str(old), pool=True, device="cpu")
    ours = served[4](PHOTO, return_tensors=True)
    assert cosine_similarity(extract(PHOTO, return_tensors=True), ours).item() > 0.99


def test_the_classification_pipeline_sees_the_same_pixels(tmp_path, small_config, randomize):
    model = randomize(VISRegViTForImageClassification(small_config(num_labels=3))).eval()
    directory = save_checkpoint(model, tmp_path / "model")
    IMAGES["16-bit.png"](tmp_path / "16.png")
    answers = pipeline("image-classification", model=str(directory), device="cpu")(str(tmp_path / "16.png"))
    pixels = image_processor_for(model.config)(str(tmp_path / "16.png"), return_tensors="pt").pixel_values
    scores = model(pixels).logits.softmax(-1)[0].tolist()
    assert sorted(answer["score"] for answer in answers) == pytest.approx(sorted(scores), abs=1e-5)
    tasks = json.loads((directory / "config.json").read_text())["custom_pipelines"]
    assert sorted(tasks) == ["image-classification", "image-feature-extraction"]


def test_a_gray_model_takes_any_image(small_config):
    processor = image_processor_for(small_config(num_channels=1), image_mean=[0.5], image_std=[0.5])
    for image in (PHOTO, PHOTO.convert("L"), PHOTO.convert("P"), Image.merge("LA", (PHOTO.convert("L"), ALPHA))):
        assert pixels_of(processor, image).shape == (1, 1, 32, 32)
    wide = Image.fromarray((GRAY * 65535).astype(np.uint16))
    narrow = Image.fromarray(np.round(GRAY * 255).astype(np.uint8))
    difference = pixels_of(processor, wide) - pixels_of(processor, narrow)
    assert difference.abs().max() <= 1.01 / 255 / 0.5


def test_the_declared_depth_is_the_range(tmp_path):
    """12 bits in 16: white is 4095, by sBIT in PNG, by MaxSampleValue in TIFF; undeclared, a warning says so."""
    bright = np.round(GRAY * 255)
    save_12_bits(tmp_path / "declared.png")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095
    Image.fromarray((GRAY * 4095).astype(np.uint16)).save(tmp_path / "declared.tif", tiffinfo=tags)
    for name in ("declared.png", "declared.tif"):
        image = Image.open(tmp_path / name)
        assert declared_bits(image) == 12
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert abs(np.asarray(upright(image))[..., 0].astype(int) - bright).max() <= 1
    save_12_bits(tmp_path / "silent.png", declared=False)
    with pytest.warns(UserWarning, match="nearly black"):
        assert np.asarray(upright(Image.open(tmp_path / "silent.png"))).max() <= 16
    IMAGES["16-bit.png"](tmp_path / "full.png")
    assert declared_bits(Image.open(tmp_path / "full.png")) is None


def test_one_infinite_pixel_leaves_the_others():
    pixels = np.array([[0.0, 0.5, 1.0, np.inf, np.nan, -np.inf]], np.float32)
    assert values_to_8_bit(pixels).tolist() == [[0, 128, 255, 255, 0, 0]]


def test_what_is_no_image_is_said_in_one_line(served, tmp_path):
    with pytest.raises(ValueError, match=r"no image .*missing\.jpg"):
        served[2](str(tmp_path / "missing.jpg"))
    with pytest.raises(ValueError, match="no image"):
        served[4](str(tmp_path / "missing.jpg"))


def test_only_a_jpeg_is_reduced():
    assert reduction_to((12_000, 9_000), "JPEG", 60_000_000) == 2
    assert reduction_to((4_000, 3_000), "JPEG", 60_000_000) == 1
    assert reduction_to((12_000, 9_000), "PNG", 60_000_000) is None
    assert reduction_to((100_000, 100_000), "JPEG", 60_000_000) is None
