# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg convert`: released or timm weights into a checkpoint directory that AutoModel reads, and back."""

from pathlib import Path

from ..errors import UserError, setting_up
from ..parser import OneLineParser
from .flags import add_license


def main(argv: list[str]) -> None:
    """A directory as source is turned into timm names, a file into a directory."""
    parser = OneLineParser("convert", __doc__)
    parser.add_argument(
        "source", type=Path, help=".pth, .pt or .safetensors under timm names, or a checkpoint directory"
    )
    parser.add_argument("output", type=Path, help="directory to make, or .pth, .pt, .safetensors for the way back")
    parser.add_argument("--num_attention_heads", type=int, help="where the width does not tell (default: the paper's)")
    parser.add_argument(
        "--image_size",
        type=int,
        nargs="+",
        help="side, or height and width, in pixels, where the grid does not tell",
    )
    parser.add_argument("--key", help="of the state dict in the file, such as model or state_dict")
    parser.add_argument("--drop_head", action="store_true", help="leave out what is neither backbone nor projector")
    add_license(parser, ", for the card; the released ones bring CC BY-NC 4.0")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    given = parser.parse_args(argv)
    size = given.image_size
    if size is not None and len(size) > 2:
        raise UserError(f"--image_size takes one side, or height and width, not {len(size)} numbers")
    with setting_up():
        from modeling_visreg import convert_checkpoint, to_released
        from visreg_hub_cards import origin_of, write_converted_card
        from visreg_hub_cards.license import asked_license, chosen_license, origin_of_file

        license = (given.license, given.license_name, given.license_link)
        chosen_license(asked_license(*license), origin_of_file(given.source.name))  # before anything is written
        if given.source.is_dir():
            written = to_released(given.source, given.output, overwrite=given.overwrite)
        else:
            written = convert_checkpoint(
                given.source,
                given.output,
                num_attention_heads=given.num_attention_heads,
                image_size=size and (size[0] if len(size) == 1 else tuple(size)),
                key=given.key,
                drop_head=given.drop_head,
                overwrite=given.overwrite,
            )
            words = dict(zip(("license", "license_name", "license_link"), license, strict=True))
            write_converted_card(written, source=given.source.name, **words)
    print(f"wrote {written}")
    if given.source.is_dir() and (terms := origin_of(str(given.source)).terms):
        print(f"its license, which the file does not say: {terms.name or terms.id}")
