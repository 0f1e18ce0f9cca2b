# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune the whole network on labeled images with transformers' Trainer: a folder for each class is enough.

    python examples/fine_tune_with_trainer.py digits --model runs/digits/model --output_dir finetuned

`visreg evaluate finetune` adds augmentation, mixup, cutmix and a learning rate that falls with depth.
"""

import argparse

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

from modeling_visreg import save_checkpoint
from visreg_training.data import open_stream


def labeled(source) -> list[tuple]:
    """(image, class) of all images that have one, in memory."""
    return [(image, label) for image, label, _id in source.examples() if label is not None and label >= 0]


def accuracy(prediction) -> dict[str, float]:
    return {"accuracy": (prediction.predictions.argmax(1) == prediction.label_ids).mean().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", nargs="?", default="digits", help="with class folders, or labels (default: digits)")
    parser.add_argument("--model", default="runs/digits/model", help="directory or Hub id (default: the demo's)")
    parser.add_argument("--output_dir", default="finetuned", help="(default: finetuned)")
    parser.add_argument("--test_split", default="test", help="(default: test)")
    parser.add_argument("--epochs", type=float, default=5, help="(default: 5)")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="(default: 5e-4)")
    options = parser.parse_args()

    train, test = (open_stream(options.dataset, split=split) for split in ("train", options.test_split))
    if train.label_names is None or train.label_names != test.label_names:
        raise SystemExit(f"the splits need the same classes: {train.label_names} and {test.label_names}")
    names = dict(enumerate(train.label_names))
    model = AutoModelForImageClassification.from_pretrained(options.model, id2label=names, dtype=torch.float32)
    processor = AutoImageProcessor.from_pretrained(options.model)

    def collate(items: list[tuple]) -> dict[str, torch.Tensor]:
        images, labels = zip(*items, strict=True)
        pixels = processor(list(images), return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.tensor(labels)}

    arguments = TrainingArguments(
        output_dir=f"{options.output_dir}/trainer",
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # of all steps
        weight_decay=0.05,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=64,
        logging_strategy="epoch",
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(model, arguments, collate, labeled(train), compute_metrics=accuracy)
    trainer.train()
    print(f"accuracy on the test images {trainer.evaluate(labeled(test))['eval_accuracy']:.3f}")
    save_checkpoint(model, f"{options.output_dir}/model", processor, overwrite=True)


if __name__ == "__main__":
    main()
