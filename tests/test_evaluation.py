"""Scores: exact against scikit-learn, of a panel's genes only, by judges that take no part in choosing them."""

import functools
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.container import BarContainer
from scipy import sparse
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support
from torch import from_numpy
from torchmetrics.functional.classification import multiclass_calibration_error

from selectormlp import evaluation
from selectormlp.classifiers import _model_colour, make_classifier
from selectormlp.data import InputError, prepare_cells
from selectormlp.evaluation import (
    _JUDGES,
    _dense,
    _judge_cells,
    _make_judge,
    calibration_error,
    compare_panels,
    confusion_table,
    plot_confusion,
    plot_embedding,
    plot_test_accuracy,
    score_panel,
    score_predictions,
)
from selectormlp.panels import GenePanel
from selectormlp.simulation import simulate_cells
from selectormlp.split import CellSplit, split_cells


def refusal(function: Callable, *arguments: Any, **settings: Any) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


@functools.cache
def cells_and_split() -> tuple[AnnData, CellSplit]:
    """700 simulated cells of four types, 120 genes."""
    counts = simulate_cells(
        n_cells=700, n_genes=120, n_types=4, n_housekeeping=5, library_size=400, size_ratio=3, seed=0
    )
    cells = prepare_cells(counts, "cell_type")
    return cells, split_cells(cells, "cell_type")


@functools.cache
def markers() -> list[str]:
    """Twenty genes that were planted as markers."""
    cells, _ = cells_and_split()
    return cells.var_names[cells.var["is_marker"]][:20].tolist()


# ------------------------------------------------------------------------------------------------------------ scores


def test_per_class_accuracy_is_recall_not_precision() -> None:
    true, predicted = np.repeat(["a", "b"], [90, 10]), np.repeat(["a", "b"], [96, 4])
    scores = score_predictions(true, predicted)
    assert scores.per_type["recall"].tolist() == [1.0, 0.4]  # swapped arguments would give 0.9375 and 1
    assert (confusion_table(true, predicted).to_numpy() == confusion_matrix(true, predicted)).all()


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice(["a", "b", "c"], 200, p=[0.7, 0.2, 0.1])
    predicted = np.where(rng.random(200) < 0.6, true, rng.choice(["a", "b", "c"], 200))
    scores = score_predictions(true.tolist(), predicted.tolist())
    expected = precision_recall_fscore_support(true, predicted)
    for values, name in zip(expected, ("precision", "recall", "f1", "n_cells"), strict=True):
        np.testing.assert_allclose(scores.per_type[name], values)
    assert list(scores.per_type) == ["type", "n_cells", "recall", "precision", "f1"]
    assert scores.per_type["type"].tolist() == ["a", "b", "c"]
    assert np.isclose(scores.mean_per_class_accuracy, balanced_accuracy_score(true, predicted))
    assert np.isclose(scores.macro_f1, f1_score(true, predicted, average="macro"))
    assert np.isclose(scores.median_f1, np.median(f1_score(true, predicted, average=None)))
    assert np.isclose(scores.accuracy, (true == predicted).mean()) and np.isnan(scores.calibration_error)


@pytest.mark.parametrize(("n_types", "n_bins"), [(2, 10), (5, 15), (5, 1)])
def test_the_calibration_error_is_that_of_torchmetrics(n_types: int, n_bins: int) -> None:
    rng = np.random.default_rng(0)
    shares, codes = rng.dirichlet(np.full(n_types, 0.5), size=400), rng.integers(n_types, size=400)
    expected = multiclass_calibration_error(from_numpy(shares), from_numpy(codes), n_types, n_bins=n_bins)
    called, confidence = shares.argmax(axis=1), shares.max(axis=1)
    assert np.isclose(calibration_error(called == codes, confidence, n_bins=n_bins), float(expected), atol=1e-6)
    of_scores = score_predictions(codes, called, confidence=confidence.tolist()).calibration_error
    assert of_scores == calibration_error(called == codes, confidence)  # 15 steps, as in the literature


def test_the_calibration_error_by_hand() -> None:
    right, sure = [False, True, True, True], [1.0, 0.95, 0.5, 0.0]  # 1 is in the last step, with 0.95; 0 in the first
    assert np.isclose(calibration_error(right, sure), (0.95 + 0.5 + 1) / 4)
    assert calibration_error([True, False], [0.5, 0.5]) == 0  # half of them are right, as was said
    assert calibration_error([False], [1.0000001]) == pytest.approx(1)  # rounding of a softmax


def test_confidences_that_are_none_are_refused() -> None:
    assert refusal(score_predictions, ["a", "b"], ["a", "b"], confidence=[0.5]) == (
        "there are (2,) predictions and (1,) confidences; give one for each"
    )
    for odd in (1.2, -0.1, np.nan):
        assert refusal(calibration_error, [True, True], [0.5, odd]) == (
            f"confidence holds {odd:g}; give probabilities, 0 to 1, such as predict_proba(X).max(axis=1)"
        )
    assert refusal(calibration_error, [], []).startswith("there are (0,) predictions")


def test_scores_of_types_that_are_never_predicted_or_never_true() -> None:
    scores = score_predictions(["b", "a", "b"], ["c", "a", "c"])
    assert scores.per_type["type"].tolist() == ["a", "b"] and scores.mean_per_class_accuracy == 0.5
    assert scores.per_type.loc[1, ["recall", "precision", "f1"]].tolist() == [0, 0, 0]
    assert score_predictions(["b"], ["a"]).per_type.index.tolist() == [0]
    assert score_predictions(["a", "b", "b"], ["b", "b", "a"]).per_type["precision"].tolist() == [0, 0.5]
    assert score_predictions(["a", "a"], ["a", "b"]).per_type["precision"].tolist() == [1]  # one call, and right


def test_labels_that_do_not_fit_are_refused() -> None:
    for true, predicted, shapes in ((["a"], ["a", "b"], ("(1,)", "(2,)")), ([], [], ("(0,)", "(0,)"))):
        sentence = "there are {} true labels and {} predicted ones; one each per cell is needed".format(*shapes)
        assert refusal(score_predictions, true, predicted) == refusal(confusion_table, true, predicted) == sentence
    assert refusal(confusion_table, [["a"]], [["a"]]).startswith("there are (1, 1) true labels")
    assert len(confusion_table(["a"], ["a"])) == 1


def test_the_confusion_table_shows_the_types_that_are_asked_for_in_their_order() -> None:
    table = confusion_table([1, 1, 2], [1, 3, 2])
    assert table.index.tolist() == list(table) == ["1", "2", "3"]
    assert table.to_numpy().tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert (table.index.name, table.columns.name) == ("true type", "predicted type")
    chosen = confusion_table([1, 1, 2], [1, 3, 2], types=(name for name in ("3", "1", "new")))
    assert chosen.index.tolist() == list(chosen) == ["3", "1", "new"]
    assert chosen.to_numpy().tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion_table([1, 1, 2], [1, 3, 2], types=[2, 1]).to_numpy().tolist() == [[1, 0], [0, 1]]


# ------------------------------------------------------------------------------------------------------------ judges


def test_judges_weigh_and_scale_as_they_say() -> None:
    linear, neighbours, forest = (_make_judge(name, seed=5) for name in _JUDGES)
    assert [step for judge in (linear, neighbours, forest) for step, _ in judge.steps] == [
        "standardscaler", "logisticregression", "standardscaler", "kneighborsclassifier", "randomforestclassifier",
    ]  # fmt: skip
    settings = linear[-1].get_params()
    assert (settings["class_weight"], settings["random_state"]) == ("balanced", 5)
    assert (settings["tol"], settings["max_iter"]) == (1e-3, 200)
    assert neighbours[-1].n_neighbors == 5
    settings = forest[-1].get_params()
    assert (settings["n_estimators"], settings["class_weight"]) == (100, "balanced")
    assert (settings["n_jobs"], settings["random_state"]) == (1, 5)
    assert _make_judge("random_forest")[-1].random_state == 0


def test_judges_that_there_are_not_are_named() -> None:
    assert refusal(_make_judge, "random_forrest") == "there is no judge 'random_forrest'; did you mean 'random_forest'?"
    assert refusal(_make_judge, "xyz") == (
        "there is no judge 'xyz'; the judges are logistic_regression, nearest_neighbours, random_forest"
    )


def test_values_become_dense_floats() -> None:
    for X in (np.array([[1, 0]]), sparse.csr_matrix([[1, 0]]), [[1, 0]]):
        assert _dense(X).dtype == np.float32 and _dense(X).tolist() == [[1, 0]]


@pytest.mark.parametrize("judge", _JUDGES)
def test_judges_call_types_by_their_names(judge: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(["10", "9"], 120)
    X = rng.normal(size=(120, 3)) + 4 * (y == "9")[:, np.newaxis]
    for cells in (X, sparse.csr_matrix(X)):
        called = _judge_cells(judge, (cells[:60], y[:60]), cells[60:], validation=(cells[:1], y[:1]), seed=1)
        plain = _make_judge(judge, seed=1).fit(X[:60].astype(np.float32), y[:60] == "9").predict(_dense(X[60:]))
        assert (called == np.where(plain, "9", "10")).all() and (called == y[60:]).mean() > 0.95
    default, zero = (_judge_cells(judge, (X[:60], y[:60]), X[60:] / 2, **given) for given in ({}, {"seed": 0}))
    assert (default == zero).all()
    assert (
        refusal(_judge_cells, judge, (X, y), X, model_settings={"step": 1})
        == f"the evaluation classifier {judge!r} takes no 'step'; leave it out"
    )


def test_the_seed_of_a_judge_is_the_one_that_is_given() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)).astype(np.float32), rng.choice(["a", "b"], 120)
    for seed in (0, 1):
        called = _judge_cells("random_forest", (X[:60], y[:60]), X[60:], seed=seed)
        expected = _make_judge("random_forest", seed=seed).fit(X[:60], y[:60]).predict(X[60:])
        assert (called == expected).all()
    assert (called != _judge_cells("random_forest", (X[:60], y[:60]), X[60:])).any()


class Recorder:
    """Stands in for a classifier, notes what it is given, and calls every cell by the first type."""

    calls: list[dict[str, Any]] = []

    def __init__(self, condition: str, **settings: Any) -> None:
        Recorder.calls.append({"condition": condition, **settings})

    def fit(self, X: Any, y: np.ndarray, **settings: Any) -> "Recorder":
        self.first = np.sort(y)[0]
        Recorder.calls[-1].update(X=_dense(X), y=y, **settings)
        return self

    def predict(self, X: Any) -> np.ndarray:
        Recorder.calls[-1]["predicted"] = _dense(X)
        return np.repeat(self.first, X.shape[0])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each classifier was given."""
    monkeypatch.setattr(evaluation, "make_classifier", Recorder)
    monkeypatch.setattr(Recorder, "calls", [])
    return Recorder.calls


def test_classifiers_are_given_the_seed_the_settings_and_the_validation_cells(calls: list[dict[str, Any]]) -> None:
    X, y = np.eye(4), np.array(list("abab"))
    called = _judge_cells("mlp", (X, y), X[:2], validation=(X[:1], y[:1]), seed=3, protocol="report")
    assert called.tolist() == ["a", "a"]
    _judge_cells("mlp", (X, y), X)
    first, second = calls
    assert (first["condition"], first["seed"], first["protocol"]) == ("mlp", 3, "report")
    assert first["X"].tolist() == X.tolist() and first["y"].tolist() == list("abab")
    assert [part.tolist() for part in first["validation"]] == [X[:1].tolist(), ["a"]]
    assert first["predicted"].tolist() == X[:2].tolist()
    assert second["seed"] == 0 and second["validation"] is None


# ------------------------------------------------------------------------------------------------------------ panels


def test_scoring_a_panel_uses_its_genes_and_names_missing_ones() -> None:
    cells, split = cells_and_split()
    others = cells.var_names[~cells.var["is_marker"]][:20].tolist()
    table = compare_panels(
        {"planted": markers(), "others": others}, cells, split, "cell_type", condition="nearest_neighbours"
    )
    assert table.loc["planted", "mean_per_class_accuracy"] > table.loc["others", "mean_per_class_accuracy"] + 0.2
    sentence = "of the panel's 2 genes are not in the data, the first is"
    assert refusal(score_panel, [markers()[0], "§"], cells, split, "cell_type") == (
        f"1 {sentence} '§'; leave it out, or use the names of the data"
    )
    misspelt = markers()[0] + "x"
    assert refusal(score_panel, [misspelt, "§"], cells, split, "cell_type") == (
        f"2 {sentence} {misspelt!r}; did you mean {markers()[0]!r}?"
    )


def test_a_panel_is_scored_on_test_cells_by_a_network_that_saw_the_training_cells(calls: list[dict[str, Any]]) -> None:
    cells, split = cells_and_split()
    genes = markers()[:3]
    scores = score_panel(GenePanel(pd.DataFrame({"gene": genes})), cells, split, "cell_type")
    score_panel(
        genes,
        cells,
        split,
        "cell_type",
        condition="mlp_nothing",
        part="validation",
        seed=4,
        model_settings={"max_epochs": 2},
    )
    first, second = calls
    assert (first["condition"], first["seed"]) == ("mlp", 0)
    assert (second["condition"], second["seed"], second["model_settings"]) == ("mlp_nothing", 4, {"max_epochs": 2})
    held = {part: split.subset(cells, part)[:, genes] for part in ("train", "validation", "test")}
    for call, part in ((first, "test"), (second, "validation")):
        np.testing.assert_array_equal(call["X"], _dense(held["train"].X))
        np.testing.assert_array_equal(call["predicted"], _dense(held[part].X))
        assert call["y"].tolist() == held["train"].obs["cell_type"].tolist()
        np.testing.assert_array_equal(_dense(call["validation"][0]), _dense(held["validation"].X))
        assert call["validation"][1].tolist() == held["validation"].obs["cell_type"].tolist()
    assert scores.per_type["n_cells"].sum() == len(split.cells("test"))
    assert scores.per_type["recall"].tolist() == [1, 0, 0, 0]


def test_a_panel_scores_what_its_judge_scores() -> None:
    cells, split = cells_and_split()
    train, test = (split.labelled(cells, part, "cell_type", markers()) for part in ("train", "test"))
    judge = _make_judge("nearest_neighbours").fit(_dense(train[0]), train[1])
    scores = score_panel(markers(), cells, split, "cell_type", condition="nearest_neighbours")
    assert np.isclose(scores.mean_per_class_accuracy, balanced_accuracy_score(test[1], judge.predict(_dense(test[0]))))


def test_panels_are_compared_by_their_means_and_their_worst_type(calls: list[dict[str, Any]]) -> None:
    cells, split = cells_and_split()
    panels = {"list": markers()[:3], "panel": GenePanel(pd.DataFrame({"gene": markers()[:2]}))}
    table = compare_panels(panels, cells, split, "cell_type", condition="selector_l1", seed=2)
    assert [(call["condition"], call["seed"]) for call in calls] == [("selector_l1", 2)] * 2
    assert table.index.tolist() == ["list", "panel"] and table["genes"].tolist() == [3, 2]
    assert list(table)[1:] == ["mean_per_class_accuracy", "macro_f1", "worst_type", "worst_recall"]
    scores = score_panel(markers()[:3], cells, split, "cell_type")  # all cells are called by the first type
    assert table["mean_per_class_accuracy"].tolist() == [0.25, 0.25]
    assert table["macro_f1"].tolist() == [scores.macro_f1] * 2
    assert table["worst_type"].tolist() == [scores.per_type["type"][1]] * 2 and table["worst_recall"].tolist() == [0, 0]


# ----------------------------------------------------------------------------------------------------------- figures


def test_the_confusion_figure_shows_shares_of_each_true_type() -> None:
    table = confusion_table(list("aaab"), list("aacb"), types="abc")
    ax = plot_confusion(table)
    (picture,) = ax.get_images()
    np.testing.assert_allclose(np.ma.filled(picture.get_array(), np.nan), [[2 / 3, 0, 1 / 3], [0, 1, 0], [0, 0, 0]])
    assert [text.get_text() for text in ax.get_xticklabels()] == list("abc")
    assert [text.get_text() for text in ax.get_yticklabels()] == list("abc")
    assert [tick.tolist() for tick in (ax.get_xticks(), ax.get_yticks())] == [[0, 1, 2], [0, 1, 2]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted type", "true type")
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "share of the true type" and picture.colorbar.ax is bar
    figure, own = plt.subplots()
    assert plot_confusion(table, own) is own and figure.axes[0] is own
    plt.close("all")


def test_the_confusion_figure_has_one_scale_and_room_for_its_types() -> None:
    few, many = pd.DataFrame(np.ones((3, 3))), pd.DataFrame(np.ones((60, 60)))
    sizes = []
    for table in (few, many):
        ax = plot_confusion(table)
        assert ax.get_images()[0].get_clim() == (0, 1)
        sizes.append(ax.figure.get_size_inches().tolist())
    assert 3 < sizes[0][1] < 4 < sizes[0][0] < 5 and sizes[1] == [8, 7]
    plt.close("all")


def test_the_accuracy_figure_has_a_bar_for_each_model_and_condition() -> None:
    names = [(model, condition) for condition in ("top 10", "all, genes") for model in ("svm_l1", "mlp")]
    rows = [(*name, value) for name, value in zip(names, (0.9, 0.8, 0.7, 0.6), strict=True)]
    scores = pd.DataFrame(rows, columns=["model", "condition", "mean_per_class_accuracy"])
    ax = plot_test_accuracy(scores)
    bars = [container for container in ax.containers if isinstance(container, BarContainer)]
    assert [[bar.get_height() for bar in group] for group in bars] == [[0.9, 0.7], [0.8, 0.6]]
    centres = [[round(bar.get_x() + bar.get_width() / 2, 6) for bar in group] for group in bars]
    assert centres == [[-0.2, 0.8], [0.2, 1.2]]
    assert {round(bar.get_width(), 6) for group in bars for bar in group} == {0.4}
    colours = [tuple(group[0].get_facecolor()) for group in bars]
    expected = [plt.matplotlib.colors.to_rgba(_model_colour(name)) for name in ("svm_l1", "mlp")]
    assert colours == expected
    assert [text.get_text() for text in ax.texts] == ["0.90", "0.70", "0.80", "0.60"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["svm_l1", "mlp"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["top 10", "all,\ngenes"]
    assert ax.get_ylabel() == "mean per-class accuracy (test)" and ax.get_xticks().tolist() == [0, 1]
    assert ax.get_ylim()[0] == 0 and 1 < ax.get_ylim()[1] < 1.2
    figure, own = plt.subplots()
    assert plot_test_accuracy(scores, own) is own and figure.axes == [own]
    plt.close("all")


def test_a_hidden_layer_is_drawn_for_networks_alone() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 8)).astype(np.float32), np.repeat(["a", "b"], 30)
    network = make_classifier(
        "mlp", model_settings={"max_epochs": 1, "hidden_sizes": (6, 4), "steps_per_epoch": 2}
    ).fit(X, y)
    drawn = [plot_embedding(network, X, y, layer=layer).collections for layer in (None, 0)]
    assert [len(kinds) for kinds in drawn] == [2, 2] and sum(len(kind.get_offsets()) for kind in drawn[0]) == 60
    assert not np.array_equal(*(np.vstack([kind.get_offsets() for kind in kinds]) for kinds in drawn))
    with pytest.raises(InputError, match="LinearSVMClassifier has no hidden layer to draw; pass a network"):
        plot_embedding(make_classifier("svm_l1").fit(X, y), X, y)
