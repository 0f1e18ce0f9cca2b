# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg analyze` on the embedded digits: records, figures, report, what is kept, and how mistakes end."""

import json

import pytest
from PIL import Image

from visreg_training.analysis import comparison, cost, figures, hard_data, pool, records, runs
from visreg_training.analysis.comparison import Outcomes, trainings_of
from visreg_training.analysis.options import ANALYSES, AnalysisOptions, module_of
from visreg_training.cli import main


ARGUMENTS = ["--dataset", "digits", "--seeds", "2", "--max_steps", "2", "--workers", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The output of `visreg analyze ablation`, cut off once: the first call trains nothing after its third run."""
    folder, perform, left = tmp_path_factory.mktemp("analysis"), pool.perform, 3

    def cut_off(run, where):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return perform(run, where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "perform", cut_off)
        with pytest.raises(SystemExit) as stopped:
            main(["analyze", "ablation", *ARGUMENTS, "--output_dir", str(folder)])
    assert stopped.value.code == 130
    assert len(list((folder / "runs").glob("*.json"))) == 3 and not (folder / "ablation.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    main(["analyze", "ablation", *ARGUMENTS, "--output_dir", str(folder)])
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    return folder


def test_what_was_trained_is_kept_and_the_rest_is_added(folder):
    assert len(list((folder / "runs").glob("*.json"))) == 8  # full, no shape, no scale, untrained; 2 seeds
    assert not list(folder.rglob("*.part"))


def test_the_record_has_values_a_seed_spread_and_versions(folder):
    record = json.loads((folder / "ablation.json").read_text())
    linear = record["values"]["linear"]
    assert set(linear) == {"full VISReg", "without shape (no sketching)", "without scale", "untrained"}
    assert all(len(values) == 2 and all(0 < value < 1 for value in values) for values in linear.values())
    assert linear["full VISReg"] != linear["without shape (no sketching)"]
    assert record["seeds"] == [0, 1] and record["environment"]["torch"] and record["seconds"] > 0
    for found in record["claims"]:
        low, high = found["interval"]
        assert low <= found["mean"] <= high
        assert found["verdict"] == "not settled"  # two seeds that agree by chance settle nothing


def test_another_analysis_reuses_equal_runs(folder, monkeypatch):
    options = AnalysisOptions(folder, "small", 2, 1, "digits", None, 2)
    needed = {run.key for run in trainings_of(options, module_of("weights").entries(options))}
    kept = {path.stem for path in (folder / "runs").glob("*.json")}
    assert len(needed & kept) == 4  # the base run and the untrained one
    monkeypatch.setattr(pool, "perform", lambda run, where: pytest.fail("trained what is kept"))
    main(["analyze", "ablation", *ARGUMENTS, "--output_dir", str(folder)])


def test_the_report_shows_figure_tables_and_verdicts(folder):
    report = (folder / "report.md").read_text()
    assert "![ablation](ablation.png)" in report and "| full VISReg |" in report
    assert report.count("| not settled") + report.count("| holds |") + report.count("| does not hold |") >= 4
    assert Image.open(folder / "ablation.png").size[0] > 600


def test_verdicts_follow_from_the_numbers():
    assert records.claim("", [2.0, 2.1, 1.9], 1.0)["verdict"] == "holds"
    assert records.claim("", [2.0, 2.1, 1.9], 3.0)["verdict"] == "does not hold"
    assert records.claim("", [2.0, 2.1, 1.9], 2.0)["verdict"] == "not settled"
    assert records.claim("", [2.0, 2.1, 1.9], 3.0, below=True)["verdict"] == "holds"
    assert records.claim("", [2.0], 1.0)["verdict"] == "not settled"  # one seed has no interval
    lost = records.points("", [0.500, 0.510, 0.505], [0.505, 0.515, 0.510], margin=0.01)
    assert lost["verdict"] == "holds" and lost["mean"] == pytest.approx(-0.005)


@pytest.mark.parametrize("name", [name for name in ANALYSES if hasattr(module_of(name), "entries")])
def test_every_option_of_every_run_is_one_that_pretrain_takes(name, tmp_path):
    for scale in ("small", "paper"):
        options = AnalysisOptions(tmp_path, scale, 2)
        listed = trainings_of(options, module_of(name).entries(options))
        assert len({run.key for run in listed}) == len(listed)
        for run in listed:
            taken = runs.options_of(run)
            assert taken.seed in (0, 1) and taken.eval_split and taken.num_slices >= 1


def test_every_training_analysis_draws_and_judges_made_up_results(tmp_path):
    """All figures and tables from invented numbers: no training, but every line that makes a record of it."""
    options = AnalysisOptions(tmp_path, "small", 3)
    for name in ANALYSES:
        module = module_of(name)
        if not hasattr(module, "entries"):
            continue
        entries = module.entries(options)
        results = {run.key: invented(run, number) for number, run in enumerate(trainings_of(options, entries))}
        record = records.write_record(tmp_path, name, module.measure(Outcomes(options, entries, results)))
        assert record["claims"] and record["tables"]
        for figure in module.draw(json.loads((tmp_path / f"{name}.json").read_text()), tmp_path):
            assert Image.open(tmp_path / figure).size[1] > 250


def invented(run, number):
    """A result as `perform` gives it."""
    accuracy = 0.3 + 0.001 * (number * 37 % 50)
    evaluations = [
        {
            "step": step,
            "terms": {"total": 1 / step},
            "knn": accuracy,
            "linear": accuracy - 0.1 / step,
            "validation": accuracy,
        }
        for step in (1, 2, 3)
    ]
    return {"evaluations": evaluations, **evaluations[-1], "feature_rank": 5.0, "seconds": 1.0}


def test_hard_data_names_each_regularizer_once():
    labels = [entry.label for entry in hard_data.entries({"imbalance_factor": 10.0}, {})]
    assert len(labels) == len(set(labels)) == len(figures.TITLES) + 2


def test_cost_measures_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "SMALL", {"V": 2, "K": 8, "B": 16, "D": 8, "batches": (8, 16, 32), "dims": (4, 8, 16)})
    arguments = ["analyze", "cost", "--output_dir", str(tmp_path)]
    main(arguments)
    record = json.loads((tmp_path / "cost.json").read_text())
    assert len(record["rows"]) == 5 * 5 and all(len(row["seconds"]) == cost.REPEATS for row in record["rows"])
    monkeypatch.setattr(cost, "measure", lambda options: pytest.fail("measured what is kept"))
    main(arguments)
    assert (tmp_path / "cost.png").exists() and "## cost" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["colapse"], "there is no analysis 'colapse'"),
        (["collapse", "--seeds", "0"], "seeds must be above 0"),
        (["weights", "--workers", "-1"], "workers must be above 0"),
        (["weights", "--scale", "huge"], "small, paper"),
        (["weights", "--dataset", "no_such_folder"], "no_such_folder"),
        (["weights", "--dataset", "digits", "--config", "no_such_recipe"], "no recipe at 'no_such_recipe'"),
    ],
)
def test_mistakes_end_in_one_line(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", *arguments, "--output_dir", str(tmp_path)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and words in said and said.strip().count("\n") == 0


@pytest.mark.parametrize(
    "epochs, gain, verdict",
    [(10, 0.2, records.HOLDS), (9.9, 0.2, records.SHORT), (10, 0.04, records.SHORT)],
)
def test_short_trainings_settle_nothing_about_each_other(epochs, gain, verdict):
    options = AnalysisOptions(seeds=3)
    entries = [comparison.Entry("VISReg", {}), comparison.untrained()]
    results = {}
    for entry, level in zip(entries, (0.3 + gain, 0.3), strict=True):
        for seed in options.all_seeds:
            accuracies = dict.fromkeys(("knn", "linear", "validation"), level + seed / 1000)
            more = {"feature_rank": 2.0, "seconds": 1.0, "epochs": epochs}
            results[entry.run(options, seed).key] = accuracies | more
    claims = [
        records.claim("one is above another", [1.0, 1.1, 0.9]),
        records.claim("above untrained", [1.0, 1.1, 0.9]),
    ]
    found = comparison.Outcomes(options, entries, results).record([], claims)
    assert [one["verdict"] for one in found["claims"]] == [verdict, records.HOLDS]
