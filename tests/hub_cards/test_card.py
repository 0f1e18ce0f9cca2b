# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Cards: what was measured and nothing else, valid metadata, and no way in for what users wrote."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from modeling_visreg import VISRegViTForImageClassification, save_checkpoint, to_released
from visreg_hub_cards import (
    check_card,
    push_run,
    recorded_origin,
    write_card,
    write_converted_card,
    write_derived_card,
)
from visreg_hub_cards.markup import escaped, fenced, plain
from visreg_training.commands import card, convert, push
from visreg_training.errors import UserError
from visreg_training.evaluation.reports.published import PUBLISHED
from visreg_training.monitoring.record import describe
from visreg_training.run_folder import RunFolder


HOSTILE = [
    "a: b\n---\nlicense: mit\n---\n# owned",
    "</details><script>alert(1)</script>",
    "![x](http://evil.example/p.png)",
    "[x](javascript:alert(1))",
    "a|b|c\n|---|---|",
    "http://evil.example www.evil.example me@evil.example",
    "``` ` ```` {{ 7*7 }} {% raw %}",
    "<!-- visreg card 0000000000000000 -->",
    "name\u202etxt\u0000\u200b with\ttabs",
    "*a* _b_ ~~c~~ \\",
    "- one",
    "+ one",
    "# one",
    "===",
    "a_ _b_ __c__ d_e_",
    "$x$ $$y$$ a:b mailto:me",
    "1. one",
    "&lt;b&gt;",
    "x" * 5000,
]


def header_of(path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def test_a_card_says_what_was_measured(run):
    path = write_card(run, repo_id="org/first")
    text, header = path.read_text(encoding="utf-8"), header_of(path)
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "image-feature-extraction"
    assert header["license"] == "apache-2.0"
    assert header["datasets"] == ["org/pictures"]
    assert header["metrics"] == ["accuracy"]
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "org/pictures", "type": "org/pictures", "split": "test", "revision": "5" * 40,
    }  # fmt: skip
    assert [metric["value"] for metric in result["metrics"]] == [0.9722, 0.981]
    assert "20-NN" in result["metrics"][0]["name"]
    for shown in ("1,437 images", "97.2%", "80.1%", "abc123", "75 s", "128,000", "x86", "0.002", "curves.png"):
        assert shown in text, shown
    assert "- **97.2%** (80.1% before training): 20-NN, frozen CLS token\n- **98.1%** (90.0% before" in text
    assert "| 20-NN, frozen CLS token | org/pictures, test split (360 images) | 80.1% | 97.2% |" in text
    assert "[org/pictures](https://huggingface.co/datasets/org/pictures)" in text
    assert 'from_pretrained("org/first", trust_remote_code=True)' in text
    assert (run / "model" / "curves.png").is_file()
    assert check_card(path) == []


def test_the_model_index_reads_back(run):
    card = ModelCard.load(write_card(run))
    assert [result.metric_value for result in card.data.eval_results] == [0.9722, 0.981]
    assert card.data.model_name == "visreg-vit-tiny-pictures"


def test_what_was_not_measured_is_left_out(run):
    for name in ("summary.json", "run.json", "curves.png", "recipe.yaml"):
        (run / name).unlink()
    path = write_card(run)
    text = path.read_text(encoding="utf-8")
    assert "model-index" not in header_of(path)
    for absent in ("## Results", "## Training", "## Cost", "curves.png", "None", "nan", "undefined"):
        assert absent not in text, absent
    assert "No accuracy was measured" in text
    assert check_card(path) == ["the header has no license"]  # of weights that no run and no card speaks for


def test_a_model_that_does_not_say_its_transformers_has_a_card(run):
    path = run / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    minimum = config.pop("minimum_transformers_version")
    assert f"`transformers` {minimum} or newer and `torch` are all" in write_card(run).read_text(encoding="utf-8")
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "`transformers` and `torch` are all it needs" in write_card(run).read_text(encoding="utf-8")


def test_numbers_that_are_not_finite_are_left_out(run, records):
    (recipe, record, summary), write = records
    summary |= {"knn_after": float("nan"), "linear_after": None, "train_seconds": float("inf")}
    write(run, recipe, record, summary)
    path = write_card(run)
    assert "model-index" not in header_of(path)
    assert "nan" not in path.read_text().lower() and "Training time" not in path.read_text()


def test_local_folders_are_not_shown(run):
    text = write_card(run).read_text(encoding="utf-8")
    assert "photos" in text
    assert "/home" not in text and "ada" not in text


def test_a_result_on_a_local_folder_does_not_show_it(run):
    (run / "evaluation").mkdir()
    result = {"protocol": "knn", "dataset": "/home/ada/cats", "split": "test", "metric": "accuracy", "value": 0.5}
    (run / "evaluation" / "knn.json").write_text(json.dumps(result | {"model": {"name": "/home/ada/runs/first"}}))
    text = write_card(run).read_text(encoding="utf-8")
    assert "| a local folder (cats), test split |" in text and "/home" not in text and "ada" not in text


def test_a_file_that_is_no_result_is_not_shown(run):
    plain_card = write_card(run).read_text(encoding="utf-8")
    (run / "evaluation").mkdir()
    (run / "evaluation" / "notes.json").write_text('{"protocol": "knn"}')
    assert write_card(run).read_text(encoding="utf-8") == plain_card


def test_a_local_folder_does_not_read_as_a_data_set(run, records):
    (recipe, record, summary), write = records
    record["source"] |= {"dataset": "data", "revision": None}
    record["held_out"] |= {"dataset": "data", "revision": None}
    write(run, recipe, record, summary)
    text = rendered(write_card(run).read_text(encoding="utf-8"))
    assert "1,437 images of a local folder (data)." in text and "on the images of a local folder (data) alone" in text
    assert "Accuracy on a local folder (data), test split" in text and ">a local folder (data)</th>" in text
    assert "the data set data" not in text and ">data</t" not in text
    record["source"]["dataset"] = "digits"
    write(run, recipe, record, summary)
    assert "1,437 images of the data set digits (scikit-learn)." in write_card(run).read_text(encoding="utf-8")


def test_the_recipe_says_how_the_model_came_about_and_no_more(run):
    text = write_card(run).read_text(encoding="utf-8")
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert set(yaml.safe_load(recipe)) == {
        "model", "dataset", "num_global", "num_local", "global_size", "global_scale", "regularizer",
        "regularization_weight", "weight_decay", "initialize_from", "seed",
    }  # fmt: skip
    assert "| Seed | 7 |" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_only_text(text):
    """Escaped text renders to exactly itself: one paragraph, no tag, no link."""
    shown = rendered(f"before {escaped(text)}")
    assert shown.startswith("<p>before ") and shown.count("<") == 2
    tokens = MarkdownIt("commonmark").parse(f"before {escaped(text)}")[1].children
    assert "".join(token.content for token in tokens) == f"before {plain(text)}"
    assert all(token.type in ("text", "text_special") for token in tokens)
    assert "://" not in escaped(text) and "www." not in escaped(text) and "@" not in escaped(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_at_the_start_of_a_line_is_only_text(text):
    assert rendered(escaped(text)).startswith("<p>")


@pytest.mark.parametrize(
    "text",
    ["vit_tiny", "a local folder: my_photos", 'it\'s 5 × 3 = 15 + "λ" #2 (95 %)', "img_2024-01-02.jpg!", "why?"],
)
def test_plain_text_stands_as_it_is(text):
    """The source of a card was full of entities."""
    assert escaped(text) == text and f"<p>{text}</p>\n" in rendered(text).replace("&quot;", '"')


def test_a_fence_is_longer_than_any_in_its_content():
    block = fenced("a\n````\n```\n<script>", "yaml")
    tokens = MarkdownIt("commonmark").parse(block)
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content == "a\n````\n```\n<script>\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_change_nothing_but_words(run, records, api, text):
    (recipe, record, summary), write = records
    recipe |= {"model": text, "dataset": text, "regularizer": text}
    record["source"] |= {"dataset": text, "config": text, "fingerprint": text, "subset": {text: text}}
    record["held_out"] |= {"dataset": text, "split": text, "config": text}
    record["model"]["name"] = text
    record["environment"] = {"device": text, "torch": text}
    write(run, recipe, record, summary)
    path = write_card(run, license="apache-2.0")
    content = path.read_text(encoding="utf-8")
    header = header_of(path)
    assert header["license"] == "apache-2.0" and header["library_name"] == "transformers"
    assert set(header) <= {"library_name", "license", "metrics", "pipeline_tag", "tags", "datasets", "model-index"}
    assert check_card(path) == []
    api._validate_yaml(content)
    body = content.split("\n---\n", 1)[1]
    tokens = [
        token
        for block in MarkdownIt("commonmark").enable("table").parse(body)
        for token in (block, *(block.children or []))
    ]
    raw = [token.content.strip() for token in tokens if token.type in ("html_block", "html_inline")]
    assert {line for html in raw for line in html.splitlines() if not line.startswith("<!-- visreg card")} <= {
        "<details>", "<summary>The full recipe</summary>", "</details>",
    }  # fmt: skip
    links = {token.attrs["href"] for token in tokens if token.type == "link_open"}
    assert links == {"https://arxiv.org/abs/2606.02572"}
    assert {token.attrs["src"] for token in tokens if token.type == "image"} == {"curves.png"}


def test_an_edited_card_is_not_lost(run):
    path = write_card(run)
    assert write_card(run) == path
    path.write_text(path.read_text(encoding="utf-8") + "\nOne more word.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="edited by hand"):
        write_card(run)
    write_card(run, overwrite=True)
    assert "One more word" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("header", ["license: [mit", "- mit", "license: mit"])
def test_a_card_with_another_header_is_an_edited_one(run, header):
    path = run / "model" / "README.md"
    path.write_text(f"---\n{header}\n---\n")
    with pytest.raises(ValueError, match="edited by hand"):
        write_card(run)
    write_card(run, overwrite=True)
    assert header_of(path)["license"] == ("mit" if header == "license: mit" else "apache-2.0")


def test_a_card_is_whole_or_as_it_was(run):
    path = write_card(run)
    before = path.read_bytes()
    (run / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json cannot be read"):
        write_card(run)
    assert path.read_bytes() == before
    assert not [name.name for name in path.parent.iterdir() if name.name.endswith(".part")]


def test_no_card_makes_no_failed_run(tmp_path, capsys):
    streamed = SimpleNamespace(is_map_style=False)
    describe(SimpleNamespace(folder=RunFolder(tmp_path), held_out=None, source=streamed))
    said = capsys.readouterr().out
    assert "no card: " in said and f"To try again: visreg card {tmp_path}" in said


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model/config\.json"):
        write_card(tmp_path)


@pytest.mark.parametrize("probed", [False, True])
def test_the_caption_names_the_probes_only_where_there_are_any(run, probed):
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "total": 0.5} | ({"probe_knn": 0.1} if probed else {})))
    text = write_card(run).read_text(encoding="utf-8")
    assert "effective rank" in text and ("online probes, gradient norm" in text) == probed


@pytest.mark.parametrize("license", ["agpl-3.0", "eupl-1.1", "cc-by-nc-nd-4.0"])
def test_licenses_of_the_hubs_own_list_are_taken(run, license):
    assert header_of(write_card(run, license=license))["license"] == license
    assert check_card(run / "model/README.md") == []


def test_the_license_that_was_chosen_stays(run):
    assert header_of(write_card(run, license="cc-by-4.0"))["license"] == "cc-by-4.0"
    assert header_of(write_card(run))["license"] == "cc-by-4.0"
    with pytest.raises(ValueError, match="license 'free' is not one of"):
        write_card(run, license="free")


def test_converted_released_weights_carry_their_license(run, records, tmp_path):
    (recipe, record, summary), write = records
    converted = run / "model"
    path = write_converted_card(converted, source="visreg-vit-b-inet1k.pth")
    assert header_of(path)["license"] == "cc-by-nc-4.0"
    assert header_of(path)["base_model"] == "BooBooWu/visreg"
    assert check_card(path) == []
    with pytest.raises(ValueError, match="keep that license"):
        write_converted_card(converted, source="visreg-vit-b-inet1k.pth", license="apache-2.0")

    trained_on = tmp_path / "second"
    (trained_on / "model").mkdir(parents=True)
    (trained_on / "model" / "config.json").write_bytes((converted / "config.json").read_bytes())
    write(trained_on, recipe | {"initialize_from": str(converted)}, record, summary)
    header = header_of(write_card(trained_on))
    assert header["license"] == "cc-by-nc-4.0" and header["base_model"] == "BooBooWu/visreg"
    with pytest.raises(ValueError, match="keep that license"):
        write_card(trained_on, license="apache-2.0")


@pytest.mark.parametrize("start", ["first", "first/model", "first/pretraining", "first/checkpoints/step-00000500"])
def test_the_license_follows_from_run_to_run(run, records, tmp_path, start):
    """A run's folder stands for its model, whose card says the license; a run under way has recorded it."""
    (recipe, record, summary), write = records
    bound = record | {"origin": {"base_model": "BooBooWu/visreg", "license": "cc-by-nc-4.0"}}
    write(run, recipe, bound, summary)
    second = tmp_path / "second"
    shutil.copytree(run / "model", second / "model")
    write(second, recipe | {"initialize_from": str(tmp_path / start)}, record, summary)
    for carded in (False, True):
        if carded:
            write_card(run)
        header = header_of(write_card(second))
        assert header["license"] == "cc-by-nc-4.0" and header["base_model"] == "BooBooWu/visreg"
        with pytest.raises(ValueError, match="keep that license"):
            write_card(second, license="apache-2.0")
    assert recorded_origin(str(tmp_path / start))[:2] == ("BooBooWu/visreg", "cc-by-nc-4.0")


def test_a_run_that_goes_on_from_ones_own_is_as_free(run, records, tmp_path):
    (recipe, record, summary), write = records
    write_card(run)
    second = tmp_path / "second"
    shutil.copytree(run / "pretraining", second / "model")
    write(second, recipe | {"initialize_from": str(run)}, record, summary)
    assert header_of(write_card(second))["license"] == "apache-2.0"


def test_weights_of_which_nothing_is_known_have_no_license(run, tmp_path):
    """A checkpoint directory without a card and without a run: whoever pushes it has to say."""
    with pytest.raises(ValueError, match="no license; --license says"):
        push_run(Path(shutil.copytree(run / "model", tmp_path / "bare")), "org/bare", dry_run=True)


def test_an_edited_card_frees_no_bound_weights(run, records):
    (recipe, record, summary), write = records
    write(run, recipe, record | {"origin": {"base_model": None, "license": "cc-by-nc-4.0"}}, summary)
    card = write_card(run)
    card.write_text(card.read_text().replace("license: cc-by-nc-4.0", "license: mit"))
    with pytest.raises(ValueError, match="keep that license, not mit"):
        push_run(run, "org/first", dry_run=True)


def test_a_fine_tuned_network_keeps_the_license(run, tmp_path):
    write_converted_card(run / "model", source="visreg-vit-b-inet1k.pth")
    network = VISRegViTForImageClassification.from_pretrained(run / "model", num_labels=3)
    tuned = save_checkpoint(network, tmp_path / "tuned" / "model")
    card = write_derived_card(tuned, start=str(run))
    text, header = card.read_text(encoding="utf-8"), header_of(card)
    assert header["license"] == "cc-by-nc-4.0" and header["pipeline_tag"] == "image-classification"
    assert "tell 3 classes apart" in text and "has no classes" not in text and check_card(card) == []
    with pytest.raises(ValueError, match="keep that license"):
        push_run(tmp_path / "tuned", "org/tuned", license="apache-2.0", dry_run=True)


def test_a_card_that_was_started_from_injects_nothing(run, records, tmp_path):
    (recipe, record, summary), write = records
    start = tmp_path / "start"
    start.mkdir()
    (start / "README.md").write_text("---\nbase_model: 'a) <script>/b'\nlicense: [mit]\n---\n")
    write(run, recipe | {"initialize_from": str(start)}, record, summary)
    path = write_card(run)
    assert "script" not in path.read_text(encoding="utf-8") and not {"base_model", "license"} & set(header_of(path))


def test_weights_of_unknown_license_have_none(run, records):
    (recipe, record, summary), write = records
    write(run, recipe | {"initialize_from": "somebody/weights"}, record, summary)
    path = write_card(run)
    assert "license" not in header_of(path) and header_of(path)["base_model"] == "somebody/weights"
    assert check_card(path) == ["the header has no license"]
    assert header_of(write_card(run, license="mit"))["license"] == "mit"


def test_a_license_of_its_own_is_carried_over_and_never_replaced(run, records):
    """As DINOv3's, which the Hub calls other: the card leads to the weights it came with."""
    (recipe, record, summary), write = records
    record["origin"] = {"base_model": "somebody/weights", "license": "other"}
    write(run, recipe | {"initialize_from": "somebody/weights"}, record, summary)
    path = write_card(run)
    assert header_of(path)["license"] == "other" and check_card(path) == []
    assert header_of(path)["license_link"] == "https://huggingface.co/somebody/weights"
    assert header_of(write_card(run))["license"] == "other"
    with pytest.raises(ValueError, match="a license of their own"):
        write_card(run, license="mit")
    named = header_of(write_card(run, license="other", license_name="their-license"))
    assert named["license_name"] == "their-license"
    assert named["license_link"] == "https://huggingface.co/somebody/weights"


ACME = {"license": "other", "license_name": "acme-1.0", "license_link": "https://acme.example/license.txt"}


def test_a_license_that_the_hub_has_no_name_for(run, records, tmp_path):
    """As huggingface_hub reads it back; it stays, follows the weights, and is not replaced by another."""
    (recipe, record, summary), write = records
    path = write_card(run, **ACME)
    data = ModelCard.load(path).data
    assert {name: data.to_dict()[name] for name in ACME} == ACME and check_card(path) == []
    text = path.read_text(encoding="utf-8")
    assert "Weights: [acme-1.0](https://acme.example/license.txt)." in text
    assert write_card(run).read_text(encoding="utf-8") == text
    second = tmp_path / "second"
    shutil.copytree(run / "pretraining", second / "model")
    write(second, recipe | {"initialize_from": str(run)}, record, summary)
    followed = header_of(write_card(second))
    assert {name: followed[name] for name in ACME} == ACME
    with pytest.raises(ValueError, match="a license of their own and keep it, not free-1"):
        write_card(second, license="other", license_name="free-1")
    assert header_of(write_card(run, license="mit"))["license"] == "mit"  # its owner may
    path.write_text("---\nlibrary_name: transformers\nlicense: other\n---\n")
    assert "license: other needs a license_name" in check_card(path)


@pytest.mark.parametrize("command", ["card", "push", "convert"])
def test_a_license_of_ones_own_on_the_command_line(run, tmp_path, command):
    flags = [f"--{name}={value}" for name, value in ACME.items()]
    source = tmp_path / "weights.safetensors"
    to_released(run / "model", source)
    converted = tmp_path / "converted"
    main, argv, path = {
        "card": (card.main, [str(run)], run / "model" / "README.md"),
        "push": (push.main, ["--model", str(run), "--repo_id", "org/it", "--dry_run"], None),
        "convert": (convert.main, [str(source), str(converted), "--num_attention_heads=2"], converted / "README.md"),
    }[command]
    for wrong, words in (
        (["--license", "other"], "license 'other' needs its name: --license_name"),
        (["--license", "other", "--license_name", "Acme 1"], "small letters, digits, dots and hyphens"),
        ([*flags[:2], "--license_link", "LICENSE"], "license_link is a web address"),
        (["--license", "mit", "--license_name", "acme"], "give --license other"),
    ):
        with pytest.raises(UserError, match=words):
            main([*argv, *wrong])
        assert path is None or not path.exists()
    main([*argv, *flags])
    if path is not None:
        data = ModelCard.load(path).data
        assert {name: data.to_dict()[name] for name in ACME} == ACME


@pytest.mark.parametrize(
    "change, problem",
    [
        (("license: apache-2.0", "license: free"), "license: 'free' is not one of"),
        (("- org/pictures\n", "- a b c\n"), "datasets: 'a b c' is no Hub id"),
        (("library_name: transformers\n", ""), "no library_name"),
        (("value: 0.9722", "value: .nan"), "not a finite number"),
        (("(curves.png)", "(other.png)"), "other.png is not beside the card"),
        (("model-index:\n- name: visreg-vit-tiny-pictures\n", "model-index:\n- {}\n"), "header is not valid"),
        (("---\n", "--\n"), "no YAML header"),
    ],
)
def test_check_names_what_is_wrong(run, change, problem):
    path = write_card(run)
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    assert problem in "; ".join(check_card(path))


@pytest.mark.parametrize("name, words", [("sigreg", "SIGReg"), ("barlow", "Barlow Twins")])
def test_a_baseline_is_not_taken_for_visreg(run, records, name, words):
    (recipe, record, summary), write = records
    write(run, recipe | {"regularizer": name}, record, summary)
    text = write_card(run).read_text(encoding="utf-8")
    assert f"with {words}, a baseline of [VISReg](https://arxiv.org/abs/2606.02572): no teacher" in text
    assert f"| Regularizer | {words} |" in text
    assert ("Slices a step" in text) == (name == "sigreg")


def test_results_of_other_weights_are_left_out(run, caplog):
    from modeling_visreg import VISRegViTModel
    from modeling_visreg.checkpoint import weights_digest

    own = weights_digest(VISRegViTModel.from_pretrained(run / "model").state_dict())
    result = {"protocol": "knn", "dataset": "org/others", "metric": "accuracy", "settings": {"k": 20}}
    (run / "evaluation").mkdir()
    for name, weights, value in (("own", own, 0.5), ("dino", "0123456789abcdef", 0.75)):
        content = result | {"value": value, "model": {"weights": weights}, "features": {"layers": 1}}
        (run / "evaluation" / f"{name}.json").write_text(json.dumps(content))
    text = write_card(run).read_text(encoding="utf-8")
    assert "| 20-NN, frozen CLS token | org/others |  | 50.0% |" in text and "75.0%" not in text
    assert "measured on other weights" in caplog.text and "dino.json" in caplog.text and "own" not in caplog.text


def test_a_result_with_an_interval_stands_for_the_one_without(run):
    (run / "evaluation").mkdir()
    result = {
        "protocol": "knn", "dataset": "org/pictures", "split": "test", "revision": "5" * 40, "metric": "accuracy",
        "value": 0.97, "interval": [0.95, 0.99], "settings": {"k": 20}, "features": {"layers": 1},
        "data": {"test": {"num_examples": 360}},
    }  # fmt: skip
    (run / "evaluation" / "knn.json").write_text(json.dumps(result))
    path = write_card(run)
    row = "| 20-NN, frozen CLS token | org/pictures, test split (360 images) | 80.1% | 97.0% (95.0 to 99.0) |"
    assert row in path.read_text(encoding="utf-8")
    names = [metric["name"] for metric in header_of(path)["model-index"][0]["results"][0]["metrics"]]
    assert len(names) == len(set(names)) == 2


def test_before_and_after_stand_in_one_row_only_where_they_were_measured_alike(run):
    """A run on a tenth of the images, and `visreg evaluate` on the same tenth, and on all."""
    summary = json.loads((run / "summary.json").read_text())
    features = {"layers": 1, "pooling": None, "transform": {"size": [16, 16]}}
    train = {"fingerprint": "tenth", "limit": 50000, "seed": 7}
    summary["evaluation"] = {
        "features": features, "train": train, "train_images": 144, "test_images": 360, "notes": ["they overlap"],
        "settings": {"knn": {"k": 20, "temperature": 0.07}, "linear": {"solver": "lbfgs", "held_out": 0.2}},
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    result = {
        "protocol": "knn", "dataset": "org/pictures", "split": "test", "revision": "5" * 40, "metric": "accuracy",
        "value": 0.97, "interval": [0.95, 0.99], "settings": {"temperature": 0.07, "k": 20}, "features": features,
        "selection": None, "metrics": {"balanced_accuracy": 0.5, "majority_share": 0.8},
        "data": {"train": {"fingerprint": "tenth"}, "train_images": 144, "test_images": 360},
    }  # fmt: skip
    whole = {"data": result["data"] | {"train": {"fingerprint": "all"}, "train_images": 1437}, "value": 0.99}
    heads = {"protocol": "linear", "settings": {"solver": "sgd"}, "selection": {"on": "validation"}}
    (run / "evaluation").mkdir()
    for number, change in enumerate(({}, whole, heads, {"features": features | {"layers": 4}, "value": 0.98})):
        (run / "evaluation" / f"{number}.json").write_text(json.dumps(result | change))
    text = write_card(run).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| 20-NN", "| linear classifier"))]
    data = "org/pictures, test split (360 images)"
    beside = "; balanced 50.0%, majority 80.0%"
    assert rows == [
        f"| 20-NN, frozen CLS token at 16 px, learned from 144 images | {data} | 80.1% "
        f"| 97.0% (95.0 to 99.0){beside} |",
        f"| 20-NN, frozen CLS token at 16 px, learned from 1,437 images | {data} |  | 99.0% (95.0 to 99.0){beside} |",
        f"| 20-NN, frozen CLS token of the last 4 blocks at 16 px, learned from 144 images | {data} |  "
        f"| 98.0% (95.0 to 99.0){beside} |",
        "| linear classifier (L-BFGS), frozen CLS token at 16 px, learned from 144 images; "
        f"settings chosen on validation images | {data} | 90.0% | 98.1% |",
        "| linear classifier (SGD), frozen CLS token at 16 px, learned from 144 images; "
        f"settings chosen on validation images | {data} |  | 97.0% (95.0 to 99.0){beside} |",
    ]
    assert f"- they overlap (20-NN, frozen CLS token at 16 px, learned from 144 images; {data})" in text


def test_the_records_are_not_touched(run):
    before = {path.name: path.read_bytes() for path in run.glob("*.json")}
    write_card(run)
    assert {path.name: path.read_bytes() for path in run.glob("*.json")} == before
    assert json.loads(before["summary.json"])["knn_after"] == 0.9722


def test_evaluations_stand_with_their_protocol_beside_published_figures(run, api):
    (run / "evaluation").mkdir()
    result = {
        "protocol": "linear", "dataset": "frgfm/imagenette", "config": "320px", "split": "validation",
        "revision": "a" * 40, "metric": "accuracy", "value": 0.876, "interval": [0.86, 0.89],
        "selection": {"on": "test"}, "model": {}, "features": {"layers": 4},
        "data": {"test": {"num_examples": 3925}},
    }  # fmt: skip
    (run / "evaluation" / "linear.json").write_text(json.dumps(result))
    (run / "evaluation" / "empty.json").write_text(json.dumps(result | {"value": None}))
    path = write_card(run)
    text = path.read_text(encoding="utf-8")
    protocol = "linear classifier, frozen CLS token of the last 4 blocks; settings chosen on test images"
    data = "frgfm/imagenette, 320px, validation split (3,925 images)"
    assert f"| {protocol} | {data} |  | 87.6% (86.0 to 89.0) |" in text
    assert f"| this model | {data} | 87.6% (86.0 to 89.0) | {protocol} |" in text
    (row,) = [row for row in PUBLISHED if row.protocol == "linear" and row.method == "VISReg S/16"]
    assert f"| VISReg S/16 | {data} | {row.figures['imagenette']:.1f}% | {escaped(row.note)} |" in text
    index = header_of(path)["model-index"][0]["results"][1]
    assert index["dataset"]["config"] == "320px" and index["metrics"][0]["value"] == 0.876
    assert "chosen on test images" in index["metrics"][0]["name"]
    assert check_card(path) == []
    api._validate_yaml(text)


def test_weights_that_are_a_pipe_are_not_waited_for(run):
    weights = run / "model" / "model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors is no regular file"):
        write_card(run)
