"""All classifiers side by side: each is given the same cells, scored as scikit-learn scores, and none is lost."""

import functools
import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from selectormlp.benchmark import _DataSet, _prepare_split, _PreparedSplit
from selectormlp.classifiers import make_classifier
from selectormlp.comparison import (
    _COMPARED,
    _MEASURED,
    _OTHERS,
    _against,
    _compared_classifier,
    _count_parameters,
    _measure_classifier,
    _NamedTypes,
    plot_classifiers,
)
from selectormlp.data import InputError
from selectormlp.evaluation import _dense, calibration_error
from selectormlp.intervals import _EVERY_SET, _paired_interval
from selectormlp.simulation import simulate_cells


@functools.cache
def data_set() -> _DataSet:
    """300 simulated cells of three types, 60 genes."""
    cells = simulate_cells(300, 60, 3, n_markers_per_type=2, n_housekeeping=2, size_ratio=2, seed=0)
    return _DataSet("tiny set", cells, "cell_type", min_cells=20)


@functools.cache
def split() -> _PreparedSplit:
    """Its first split."""
    return _prepare_split(data_set(), 0)


# ---------------------------------------------------------------------------------------------------------- measures


class Guesser:
    """Stands in for a classifier: notes what it is fitted on, and calls two cells in three by the first type."""

    def fit(self, X: Any, y: np.ndarray, **given: Any) -> "Guesser":
        self.X, self.y, self.given, self.types = X, y, given, np.unique(y)
        start = time.process_time()
        while time.process_time() < start + 0.2:
            pass
        self.coef_, self.intercept_ = np.zeros((3, 60)), np.zeros(3)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        self.asked = X
        return np.tile([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.7, 0.1, 0.2]], (X.shape[0] // 3 + 1, 1))[: X.shape[0]]

    def predict(self, X: Any) -> np.ndarray:
        return self.types[self.predict_proba(X).argmax(axis=1)]


def test_a_classifier_learns_from_training_cells_and_is_scored_on_test_cells_as_scikit_learn_scores() -> None:
    model, train, (X, y) = Guesser(), split().train, split().test
    measures = _measure_classifier(model, split())
    assert model.X is train.X and model.y is train.y and model.asked is X
    assert model.given == {"validation": train.validation, "gene_names": train.genes}
    called, sure = model.predict(X), model.predict_proba(X).max(axis=1)
    assert tuple(measures) == _MEASURED
    assert measures["accuracy"] == pytest.approx(accuracy_score(y, called))
    assert measures["mean_per_class_accuracy"] == pytest.approx(balanced_accuracy_score(y, called))
    assert measures["median_f1"] == pytest.approx(np.median(f1_score(y, called, average=None)))
    assert measures["calibration_error"] == calibration_error(y == called, sure)
    assert 0.2 <= measures["seconds"] < 0.4 and measures["parameters"] == 183


def test_a_support_vector_machine_has_no_calibration_error() -> None:
    measures = _measure_classifier(_compared_classifier("svm_l2"), split())
    assert np.isnan(measures["calibration_error"]) and measures["mean_per_class_accuracy"] > 0.8


def test_parameters_are_those_that_can_be_counted_by_hand() -> None:
    X, y = split().train.X, split().train.y
    assert _count_parameters(make_classifier("svm_l2").fit(X, y)) == 3 * 61
    assert _count_parameters(_compared_classifier("logistic_regression").fit(X, y)) == 3 * 61
    mlp = make_classifier("mlp", model_settings={"max_epochs": 1, "hidden_sizes": (5,), "batch_norm": False}).fit(X, y)
    assert _count_parameters(mlp) == 60 * 5 + 5 + 5 * 3 + 3
    selector = make_classifier(
        "selector_l1", model_settings={"max_epochs": 1, "hidden_sizes": (5,), "batch_norm": False}
    ).fit(X, y)
    assert _count_parameters(selector) == _count_parameters(mlp) + 60
    forest = _NamedTypes(RandomForestClassifier(2, max_depth=1, random_state=0)).fit(X, y)
    assert _count_parameters(forest) == 2 * 3  # a question and two answers each
    assert np.isnan(_count_parameters(_NamedTypes(KNeighborsClassifier()).fit(X, y)))


@pytest.mark.parametrize("name", _OTHERS)
def test_those_of_scikit_learn_call_types_by_their_names(name: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(["10", "9"], 120)
    X = sparse.csr_matrix(rng.normal(size=(120, 3)) + 4 * (y == "9")[:, np.newaxis])
    model = _compared_classifier(name, seed=3).fit(X[:60], y[:60], validation=(X[:1], y[:1]), gene_names=list("abc"))
    plain = _OTHERS[name](3).fit(_dense(X[:60]), y[:60] == "9")
    assert (model.predict(X[60:]) == np.where(plain.predict(_dense(X[60:])), "9", "10")).all()
    np.testing.assert_array_equal(model.predict_proba(X[60:]), plain.predict_proba(_dense(X[60:])))
    assert model.classes_.tolist() == ["10", "9"] and (model.predict(X[60:]) == y[60:]).mean() > 0.95


def test_other_names_are_conditions_of_make_classifier() -> None:
    model = _compared_classifier("selector_l1", seed=4)
    assert (model.penalty, model.random_state) == ("l1", 4)
    with pytest.raises(InputError, match="there is no condition 'forest'"):
        _compared_classifier("forest")


# -------------------------------------------------------------------------------------------------------- comparison


def scores_of(values: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Scores of {data set: {classifier: one value for each split}}."""
    rows = [
        {"data_set": name, "split": place, "classifier": classifier, "mean_per_class_accuracy": value}
        for name, of in values.items()
        for classifier, several in of.items()
        for place, value in enumerate(several)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_and_below_zero_where_ours_is_ahead() -> None:
    ours, other = np.array([0.8, 0.9, 0.7]), np.array([0.7, 0.85, 0.62])
    table = _against(scores_of({"a": {"selector_l1": [*ours], "mlp": [*other]}, "b": {"selector_l1": [*ours]}}))
    assert table["data_set"].tolist() == ["a", _EVERY_SET] and table["n_sets"].tolist() == [1, 1]
    expected = _paired_interval(other - ours, test_to_train=0.2)
    row = table.iloc[0]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([expected.mean, expected.low, expected.high])
    assert row["difference"] < 0 and row["classifier"] == "mlp" and row["n_pairs"] == 3
    narrow = _against(scores_of({"a": {"selector_l1": [*ours], "mlp": [*other]}}), ours="mlp", test_to_train=0).iloc[0]
    assert narrow["difference"] == pytest.approx(-row["difference"])
    assert narrow["high"] - narrow["low"] < row["high"] - row["low"]


def test_the_figure_has_a_coloured_interval_for_each_classifier_from_top_to_bottom() -> None:
    names, middles = ["mlp", "svm_l1", "unknown"], [0.2, -0.3, 0.01]
    table = pd.DataFrame(
        {"classifier": names, "difference": middles, "low": [0.1, -0.4, -0.1], "high": [0.3, -0.2, 0.1]}
    )
    ax = plot_classifiers(table)
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != line.get_xdata()[1]]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in lines] == [
        ([0.1, 0.3], [0, 0]),
        ([-0.4, -0.2], [1, 1]),
        ([-0.1, 0.1], [2, 2]),
    ]
    assert [line.get_color() for line in lines] == ["#0072B2", "#D55E00", "#7f7f7f"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == middles and to_rgba(dots[0].get_color()) == to_rgba("#0072B2")
    assert [text.get_text() for text in ax.get_yticklabels()] == [_COMPARED["mlp"], _COMPARED["svm_l1"], "unknown"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    _, own = plt.subplots()
    assert plot_classifiers(table, own) is own
    plt.close("all")


# ----------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def command(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module, its stored tables in a folder of the test."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    module = importlib.import_module("classifiers")
    monkeypatch.setattr(module, "TABLES", tmp_path / "tables")
    return module


def arguments(tmp_path: Path, *more: str) -> list[str]:
    """A command line for the simulated cells alone."""
    folder = tmp_path / "cells"
    if not folder.exists():
        folder.mkdir()
        data_set().load().write_h5ad(folder / "tiny.h5ad")
    given = ["--folder", str(folder), "--label-keys", "tiny=cell_type", "--sets", "tiny"]
    return [*given, "--run-folder", str(tmp_path / "run"), *more]


def test_the_command_prints_the_table_goes_on_where_it_stopped_and_adds_rows_to_the_stored_ones(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = arguments(tmp_path, "--splits", "2", "--ours", "svm_l2")
    command.main([*line, "--classifiers", "svm_l2"])
    assert not command.TABLES.exists()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.json")}
    assert len(files) == 2
    command.main([*line, "--classifiers", "svm_l2", "logistic_regression", "--write"])
    assert {path: path.stat().st_mtime_ns for path in files} == files
    said = capsys.readouterr()
    assert said.err.count("svm_l2: done") == 2 and said.err.count("logistic_regression: done") == 2
    assert "median f1, mean over splits" in said.out and "less that of svm_l2" in said.out
    stored = pd.read_csv(command.TABLES / "scores.csv")
    assert stored.groupby("classifier")["status"].agg(list).to_dict() == {
        "logistic_regression": ["done"] * 2,
        "svm_l2": ["done"] * 2,
    }
    (_, row), *_ = stored[stored["classifier"] == "svm_l2"].iterrows()
    again = _measure_classifier(_compared_classifier("svm_l2"), split())
    assert row[["accuracy", "mean_per_class_accuracy", "median_f1"]].tolist() == pytest.approx(
        [again["accuracy"], again["mean_per_class_accuracy"], again["median_f1"]], abs=1e-3
    )
    about = json.loads((command.TABLES / "about.json").read_text(encoding="utf-8"))
    about["packages"]["scvi-tools"] = "1.4"  # of a machine that had it
    (command.TABLES / "about.json").write_text(json.dumps(about), encoding="utf-8")
    monkeypatch.setattr(command, "installed", lambda name: "not installed" if name == "scvi-tools" else "2")
    stored.assign(classifier="from elsewhere").to_csv(command.TABLES / "scores.csv", index=False)
    command.main([*line, "--classifiers", "svm_l2", "--no-run", "--write"])
    names = pd.read_csv(command.TABLES / "scores.csv")["classifier"]
    assert sorted(set(names)) == ["from elsewhere", "logistic_regression", "svm_l2"]
    about = json.loads((command.TABLES / "about.json").read_text(encoding="utf-8"))
    assert about["splits"] == 2 and about["packages"]["torch"] == "2" and about["packages"]["scvi-tools"] == "1.4"
    assert pd.read_csv(command.TABLES / "data_sets.csv")["types"].tolist() == [3]


class Sleeper(Guesser):
    """Uses the processor for ever."""

    def fit(self, X: Any, y: np.ndarray, **given: Any) -> "Sleeper":
        while True:
            pass


class Failure(Guesser):
    """Raises."""

    def fit(self, X: Any, y: np.ndarray, **given: Any) -> "Failure":
        raise ValueError("no such\nluck")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is put in the module's place is not spawned")
def test_what_goes_wrong_is_in_the_table_with_its_reason(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = {"mlp": Sleeper, "first": Failure, "svm_l1": Guesser}

    def made(name: str, seed: int) -> Any:
        if name not in stand_ins:
            raise InputError("it is not installed")
        return stand_ins[name]()

    monkeypatch.setattr(command, "made", made)
    monkeypatch.setattr(command, "load_packages", lambda name: None)
    line = arguments(tmp_path, "--splits", "1", "--time-limit", "1", "--classifiers", *stand_ins, "random_forest")
    command.main(line)
    results = command.collected(tmp_path / "run").set_index("classifier")
    assert results["status"].to_dict() == {
        "mlp": "timed out", "first": "failed", "svm_l1": "done", "random_forest": "missing",
    }  # fmt: skip
    assert "limit of 1 processor seconds" in results.loc["mlp", "reason"]
    assert results.loc["first", "reason"] == "ValueError: no such luck"
    assert results.loc["random_forest", "reason"] == "it is not installed"
    assert results.loc["svm_l1", "accuracy"] > 0 and np.isnan(results.loc["mlp", "accuracy"])
    stand_ins["random_forest"] = Guesser
    command.main(line)  # what was missing is tried again, the rest is not
    again = command.collected(tmp_path / "run").set_index("classifier")["status"]
    assert again["random_forest"] == "done" and again["first"] == "failed"


def test_raw_counts_are_those_of_the_same_cells(command: ModuleType) -> None:
    counted = command.counts_of(data_set(), split())
    pairs = [(counted.train.X, split().train.X), (counted.test[0], split().test[0])]
    pairs.append((counted.train.validation[0], split().train.validation[0]))
    for counts, values in pairs:
        assert (counts.toarray() % 1 == 0).all() and counts.max() > 1
        np.testing.assert_array_equal(counts.toarray() > 0, _dense(values) > 0)
    assert counted.train.validation[1] is split().train.validation[1]
    log = data_set().load()
    log.X = np.log1p(log.X.toarray())
    without = _DataSet("logs", log, "cell_type", min_cells=20)
    with pytest.raises(InputError, match="'logs' has none"):
        command.counts_of(without, _prepare_split(without, 0))


def test_new_rows_take_the_place_of_old_ones(command: ModuleType) -> None:
    old = pd.DataFrame({"data_set": ["a", "b"], "split": 0, "classifier": "mlp", "accuracy": [0.1, 0.2]})
    new = pd.DataFrame({"data_set": ["b", "a"], "split": [0, 1], "classifier": "mlp", "accuracy": [0.3, 0.4]})
    table = command.merged(old, new, command.KEY)
    assert table["accuracy"].tolist() == [0.1, 0.4, 0.3] and table["data_set"].tolist() == ["a", "a", "b"]
    assert command.merged(old.iloc[:0], new, command.KEY)["accuracy"].tolist() == [0.4, 0.3]
