# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The data sets of the suites: one entry each, so that adding one is one entry (and its key in `SUITES`).

Entries marked `named` stand in the paper's list; `mirror` are Hub copies that we name ourselves.
`--source KEY=DATASET` puts a local folder or another Hub id in the place of any of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        title: as people call it.
        dataset: Hub id; None where there is no copy that `datasets` reads without running its code.
        origin: `named`, `mirror`, or where to get it.
        train, test, validation: splits; without a validation split one is split off the training images.
        image_column, label_column: None finds them.
        metric: what the result is: `accuracy` or `macro_auroc` (several labels an image).
        train_share: where `train` and `test` are the same split, the share of it that is trained on.
    """

    title: str
    dataset: str | None
    origin: str = "named"
    config: str | None = None
    train: str = "train"
    test: str = "test"
    validation: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    metric: str = "accuracy"
    train_share: float | None = None


ENTRIES = {
    "dtd": Entry("DTD", "tanganke/dtd", "mirror"),
    "aircraft": Entry("Aircraft", None, "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft"),
    "cars": Entry("Cars", "tanganke/stanford_cars"),
    "cifar10": Entry("CIFAR-10", "uoft-cs/cifar10", image_column="img", label_column="label"),
    "cifar100": Entry("CIFAR-100", "uoft-cs/cifar100", image_column="img", label_column="fine_label"),
    "flowers": Entry("Flowers", "dpdl-benchmark/oxford_flowers102", "mirror"),
    "food": Entry("Food", "ethz/food101", test="validation"),
    "pets": Entry("Pets", "timm/oxford-iiit-pet", label_column="label"),
    "imagenet": Entry("ImageNet-1K", "ILSVRC/imagenet-1k", test="validation"),
    "imagenette": Entry("Imagenette", "frgfm/imagenette", config="full_size", test="validation"),
    "galaxy10": Entry("Galaxy10", "matthieulel/galaxy10_decals"),
    "aid": Entry("AID", "blanchon/AID", "mirror", test="train", train_share=0.1),
    "chestxray": Entry(
        "ChestX-ray", "alkzar90/NIH-Chest-X-ray-dataset", config="image-classification", metric="macro_auroc"
    ),
    "retinamnist": Entry("RetinaMNIST", None, "https://medmnist.com (retinamnist_224)"),
    "organamnist": Entry("OrganAMNIST", None, "https://medmnist.com (organamnist_224)"),
}

SUITES = {
    "in_domain": ("dtd", "aircraft", "cars", "cifar10", "cifar100", "flowers", "food", "pets", "imagenet"),
    "ood": ("dtd", "galaxy10", "aid", "chestxray", "retinamnist", "organamnist"),
}


def entry_of(dataset: str | None) -> str | None:
    """Key of the entry with this Hub id."""
    return next((key for key, entry in ENTRIES.items() if dataset and entry.dataset == dataset), None)
