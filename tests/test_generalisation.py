"""Fewer cells, other groups, unknown types: the right cells are trained on and tested, and planted truths are found."""

import functools
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, learning_curve
from sklearn.naive_bayes import GaussianNB

from selectormlp import generalisation
from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier
from selectormlp.data import InputError, choose_variable_genes, prepare_cells
from selectormlp.evaluation import _JUDGES
from selectormlp.generalisation import (
    _ALL,
    _OTHERS,
    _share_of_cells,
    _train_classifier,
    _transfer_drop,
    ablation_curve,
    group_transfer,
    hold_out_types,
    plot_ablation,
    plot_group_transfer,
    plot_unknown,
    top_types,
    unknown_detection,
)
from selectormlp.simulation import simulate_cells

LINEAR = "logistic_regression"


def refusal(function: Callable, *arguments: Any, **settings: Any) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@functools.cache
def simulated() -> AnnData:
    """600 cells of four types, 80 genes, dealt to three donors of 300, 200 and 100 cells."""
    counts = simulate_cells(600, 80, 4, n_housekeeping=5, library_size=150, size_ratio=3, marker_level=6, seed=1)
    cells = prepare_cells(counts, "cell_type")
    cells.obs["donor"] = np.repeat(["a", "b", "c"], [300, 200, 100])
    return cells


@functools.cache
def parts() -> tuple[Any, Any]:
    """Training and test cells as (X, y)."""
    cells = simulated()
    return tuple((part.X, part.obs["cell_type"].to_numpy().astype(str)) for part in (cells[:400], cells[400:]))


@pytest.fixture(autouse=True)
def close_figures() -> Any:
    yield
    plt.close("all")


# --------------------------------------------------------------------------------------------------------- classifiers


@pytest.mark.parametrize("classifier", [*_JUDGES, "svm_l2", RandomForestClassifier(5, class_weight="balanced")])
def test_any_classifier_takes_sparse_cells_and_answers_with_names(classifier: Any) -> None:
    (X, y), (X_test, y_test) = parts()
    model = _train_classifier(classifier, X, y, seed=3)
    assert (model.predict(X_test) == y_test).mean() > 0.5 and model.classes_.tolist() == sorted(set(y))


@pytest.mark.parametrize("classifier", [*_JUDGES, "svm_l2"])
def test_types_that_look_like_numbers_stay_text(classifier: str) -> None:
    (X, y), _ = parts()
    numbers = {name: str(10 - place) for place, name in enumerate(np.unique(y))}
    model = _train_classifier(classifier, X, np.array([numbers[name] for name in y]))
    assert set(model.predict(X)) == set(numbers.values()) and "10" in model.predict(X[y == min(y)])


def test_an_estimator_is_copied_and_gets_the_seed() -> None:
    (X, y), _ = parts()
    forest = RandomForestClassifier(3, random_state=7)
    trained = _train_classifier(forest, X, y, seed=5)
    assert trained.model.random_state == 5 and forest.random_state == 7 and not hasattr(forest, "classes_")
    (X, y), _ = parts()
    weighted = _train_classifier(LinearSVMClassifier(class_weight=dict.fromkeys(set(y), 1.0)), X, y)
    assert set(weighted.predict(X)) == set(y)


def test_what_is_no_classifier_is_refused_before_any_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generalisation, "_train_classifier", lambda *_, **__: pytest.fail("trained"))
    for wrong, said in (
        (["svm_l2", "svn_l2"], "svn_l2"),
        ("selektor", "selektor"),
        ([], "by name"),
        ([LogisticRegression()], "by name"),
        ({"five": 5}, "5 is no classifier"),
    ):
        assert said in refusal(ablation_curve, wrong, *parts())


def test_one_type_is_not_enough_to_train_on() -> None:
    (X, y), _ = parts()
    assert "all of one type, 'type_00'" in refusal(_train_classifier, LINEAR, X[y == "type_00"], y[y == "type_00"])


# --------------------------------------------------------------------------------------------------------- fewer cells


def test_shares_keep_every_type_and_lie_in_one_another() -> None:
    y = np.repeat(["many", "some", "one"], [200, 30, 1])
    before: set[int] = set()
    for share, sizes in ((0.01, [2, 1, 1]), (0.1, [20, 3, 1]), (0.35, [70, 11, 1]), (1, [200, 30, 1])):
        places = _share_of_cells(y, share, seed=4)
        assert [int((y[places] == name).sum()) for name in ("many", "some", "one")] == sizes
        assert before <= set(places) and (np.diff(places) > 0).all()
        before = set(places)
    assert set(_share_of_cells(y, 0.1, seed=4)) != set(_share_of_cells(y, 0.1, seed=5))
    for share in (0, -0.1, 1.5, np.nan):
        assert "above 0, up to 1" in refusal(_share_of_cells, y, share)


def test_the_curve_is_that_of_scikit_learn_for_the_same_cells() -> None:
    (X, y), (X_test, y_test) = parts()
    shares, model = (0.1, 0.4, 1.0), LogisticRegression()
    curve = ablation_curve({"ours": model}, (X, y), (X_test, y_test), shares=shares, seeds=(2,))
    sets = [_share_of_cells(y, share, seed=2) for share in shares]
    order = np.concatenate([sets[0], *(np.setdiff1d(b, a) for a, b in zip(sets, sets[1:], strict=False))])
    together, labels = sparse.vstack([X, X_test]).tocsr(), np.concatenate([y, y_test])
    sizes, _, theirs = learning_curve(
        model, together, labels, train_sizes=[len(chosen) for chosen in sets], scoring="balanced_accuracy",
        cv=[(order, np.arange(len(y), len(labels)))], shuffle=False, error_score="raise",
    )  # fmt: skip
    assert curve["n_cells"].tolist() == sizes.tolist()
    np.testing.assert_allclose(curve["balanced_accuracy"], theirs[:, 0])
    ends = curve[["accuracy", "balanced_accuracy"]].iloc[[0, -1]]
    assert (ends.diff().iloc[-1] > 0).all()  # ten times the cells; between them one cell can turn the order


def test_the_curve_has_a_row_for_each_classifier_share_and_seed() -> None:
    curve = ablation_curve([LINEAR, "svm_l2"], *parts(), shares=(0.05, 1), seeds=(0, 1, 2))
    assert list(curve) == ["classifier", "share", "n_cells", "seed", "accuracy", "balanced_accuracy"]
    assert len(curve) == 12 and not curve.duplicated(["classifier", "share", "seed"]).any()
    spread = curve.groupby(["classifier", "share"])["accuracy"].std()
    assert (spread.xs(0.05, level="share") > 0).all()  # other cells for each seed
    assert spread[(LINEAR, 1.0)] == 0  # the same cells, and nothing random in a logistic regression


def test_the_bars_are_intervals_of_students_t() -> None:
    values = {10: [0.5, 0.6, 0.7], 20: [0.8, 0.8, 0.8]}
    rows = [("a", n, seed, value) for n, found in values.items() for seed, value in enumerate(found)]
    curve = pd.DataFrame(rows, columns=["classifier", "n_cells", "seed", "balanced_accuracy"])
    (bars,) = plot_ablation(curve).containers
    ends = np.array([segment[:, 1] for segment in bars[2][0].get_segments()])
    half = stats.t.interval(0.95, 2, loc=0.6, scale=stats.sem(values[10]))
    np.testing.assert_allclose(ends, [half, (0.8, 0.8)])
    (bars,) = plot_ablation(curve[curve["seed"] == 0]).containers
    assert bars[0].get_ydata().tolist() == [0.5, 0.8]  # one seed: a line without bars


# -------------------------------------------------------------------------------------------------------- other groups


def strange_donor() -> AnnData:
    """The simulated cells; every second gene is not seen in those of donor c."""
    cells = simulated().copy()
    X = cells.X.toarray()
    X[np.ix_(cells.obs["donor"] == "c", np.arange(0, 80, 2))] = 0
    cells.X = sparse.csr_matrix(X)
    return cells


def test_training_and_test_cells_are_apart_and_the_test_cells_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, seen = simulated(), []
    original = generalisation._on_group
    monkeypatch.setattr(
        generalisation, "_on_group", lambda *given: seen.append((given[1], given[2], given[3])) or original(*given)
    )
    table = group_transfer([LINEAR], cells, "cell_type", group_key="donor", n_genes=20, seeds=(0,))
    assert len(table) == 3 * 3 + 2 * 3 == len(seen)
    (held, split, _), *others = seen
    trainings = list(generalisation._trainings(split, 0))
    for training in trainings:
        assert not set(training.cells) & set(held.obs_names)
        donors = set(split.loc[training.cells, "group"])
        own = set(training.test_groups)
        assert donors == {_ALL: {"a", "b", "c"}, _OTHERS: {"a", "b", "c"} - own}.get(training.name, {training.name})
    for one, two in zip(trainings[3::2], trainings[4::2], strict=True):
        assert (one.name, two.name) == (_OTHERS, _ALL) and abs(len(one.cells) - len(two.cells)) <= 4
    assert all(set(other[0].obs_names) == set(held.obs_names) for other in others)
    share = split.groupby(["group", "cell_type"])["held"].mean()
    assert share.between(0.15, 0.34).all() and (table.groupby("test_group")["n_test"].nunique() == 1).all()


def test_the_only_cell_of_a_type_in_a_group_is_trained_on() -> None:
    types = np.repeat(["many", "two", "one"], [20, 2, 1])
    obs = pd.DataFrame({"kind": np.tile(types, 2), "donor": np.repeat(["a", "b"], 23)}, index=map(str, range(46)))
    parts = generalisation._group_parts(obs, "kind", "donor", 0.3, 0)
    assert parts.groupby(["group", "cell_type"], sort=False)["held"].sum().tolist() == [6, 1, 0] * 2


def test_leaving_a_group_out_is_what_scikit_learn_leaves_out() -> None:
    cells = simulated()
    table = group_transfer({"lr": LogisticRegression()}, cells, "cell_type", group_key="donor", n_genes=30, seeds=(1,))
    held = generalisation._group_parts(cells.obs, "cell_type", "donor", 0.3, 1)["held"].to_numpy()
    y = cells.obs["cell_type"].to_numpy().astype(str)
    for train, test in LeaveOneGroupOut().split(y, groups=cells.obs["donor"]):
        train, test = train[~held[train]], test[held[test]]
        genes = choose_variable_genes(cells[train], 30)
        model = LogisticRegression().fit(cells[train, genes].X, y[train])
        expected = balanced_accuracy_score(y[test], model.predict(cells[test, genes].X))
        ours = table[(table["train_group"] == _OTHERS) & (table["test_group"] == cells.obs["donor"].iloc[test[0]])]
        assert ours["n_train"].item() == len(train) and ours["balanced_accuracy"].item() == pytest.approx(expected)


def test_a_strange_donor_is_seen_and_the_others_are_not_blamed() -> None:
    table = group_transfer([LINEAR], strange_donor(), "cell_type", group_key="donor", seeds=(0, 1))
    drop = _transfer_drop(table).set_index("test_group")["drop"]
    assert drop["c"] > 0.08 and abs(drop[["a", "b"]]).max() < 0.05
    known = _transfer_drop(group_transfer([LINEAR], simulated(), "cell_type", group_key="donor", seeds=(0, 1)))
    assert known["drop"].abs().max() < 0.08
    means = table[table["test_group"] == "c"].groupby("train_group")["balanced_accuracy"].mean()
    assert drop["c"] == pytest.approx(means[_ALL] - means[_OTHERS]) and set(means.index) == {
        "a",
        "b",
        "c",
        _OTHERS,
        _ALL,
    }


def test_types_that_only_one_side_has_are_named_and_left_out() -> None:
    cells = simulated().copy()
    types = cells.obs["cell_type"].astype(str).to_numpy()
    types[(cells.obs["donor"] == "b") & (types == "type_00")] = "only b"
    types[(cells.obs["donor"] == "a") & (types == "type_01")] = None
    cells.obs["kind"] = types
    table = group_transfer([LINEAR], cells, "kind", group_key="donor").set_index(["train_group", "test_group"])
    assert table.loc[("a", "b"), "missing"] == "only b; type_01" and table.loc[("a", "b"), "n_types"] == 2
    assert table.loc[("b", "b"), "missing"] == "" and table.loc[("b", "b"), "n_types"] == 4
    assert table.loc[("b", "a"), "missing"] == "type_00"
    others, mixed = table.loc[(_OTHERS, "b")], table.loc[(_ALL, "b")]
    assert others["missing"] == mixed["missing"] == "only b" and others["n_test"] == mixed["n_test"] > 0


def test_groups_without_a_common_type_have_no_score() -> None:
    cells = simulated().copy()
    cells.obs["donor"] = np.where(cells.obs["cell_type"].isin(["type_00", "type_01"]), "x", "y")
    table = group_transfer([LINEAR], cells, "cell_type", group_key="donor")
    across = table[table["train_group"] != table["test_group"]]
    assert across["accuracy"].isna().all() and (across["n_test"] == 0).all()
    assert [text.get_text() for text in plot_group_transfer(table).texts].count("–") == 6


def test_groups_that_cannot_be_compared_are_refused() -> None:
    cells = simulated().copy()
    cells.obs["same"], cells.obs["little"] = "x", np.where(cells.obs["cell_type"] == "type_00", "x", "y")
    for settings, said in (
        ({"group_key": "doner"}, "did you mean 'donor'?"),
        ({"group_key": "same"}, "fewer than two groups"),
        ({"group_key": "little"}, "all of one type, 'type_00'"),
        ({"group_key": "donor", "test_share": 1}, "test_share is 1"),
    ):
        assert said in refusal(group_transfer, [LINEAR], cells, "cell_type", **settings)


def test_the_heat_map_shows_the_means_of_one_classifier() -> None:
    rows = [("p", "a", "a", 0, 0.9), ("p", "a", "a", 1, 0.7), ("q", "a", "a", 0, 0.1)]
    table = pd.DataFrame(rows, columns=["classifier", "train_group", "test_group", "seed", "balanced_accuracy"])
    assert [text.get_text() for text in plot_group_transfer(table).texts] == ["0.80"]
    assert [text.get_text() for text in plot_group_transfer(table, classifier="q").texts] == ["0.10"]


# ------------------------------------------------------------------------------------------------------- unknown types


class Fixed:
    """A fitted classifier whose probabilities are given."""

    def __init__(self, shares: list[list[float]]):
        self.shares = np.array(shares)
        self.classes_ = np.array([chr(97 + place) for place in range(self.shares.shape[1])])

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.shares


def test_the_most_probable_types_come_in_order() -> None:
    model = Fixed([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]])
    table = top_types(model, None, k=3, cells=["x", "y"])
    ends = ["", "_2", "_3"]
    assert list(table) == ["cell", *(f"{name}{end}" for end in ends for name in ("cell_type", "probability"))]
    assert table[[f"cell_type{end}" for end in ends]].to_numpy().tolist() == [["b", "a", "c"], ["a", "c", "b"]]
    assert table[[f"probability{end}" for end in ends]].to_numpy().tolist() == [[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]
    assert table["cell"].tolist() == ["x", "y"] and top_types(model, None, 1)["cell"].tolist() == [0, 1]
    alike = Fixed([np.random.default_rng(0).integers(3, size=26).tolist()])
    expected = sorted(range(26), key=lambda place: (-alike.shares[0, place], place))
    assert top_types(alike, None, 26).filter(like="cell_type").iloc[0].tolist() == alike.classes_[expected].tolist()
    for k in (0, 4, 1.5, "2"):
        assert "ask for 1 to 3" in refusal(top_types, model, None, k)


def test_top_types_of_any_classifier_with_probabilities() -> None:
    (X, y), _ = parts()
    network = SelectorMLPClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, y)
    for model in (network, GaussianNB().fit(X.toarray(), y), _train_classifier(LINEAR, X, y)):
        values = X.toarray() if isinstance(model, GaussianNB) else X
        table = top_types(model, values, k=4)
        assert (table["cell_type"] == model.predict(values)).all()
        np.testing.assert_allclose(table.filter(like="probability").sum(axis=1), 1, rtol=1e-4)
    for svm in (LinearSVMClassifier().fit(X, y), _train_classifier("svm_l2", X, y)):
        assert "LinearSVMClassifier gives no probabilities" in refusal(top_types, svm, X)


def test_held_out_types_are_not_trained_on_and_all_their_cells_are_asked_for() -> None:
    (X, y), (X_test, y_test) = parts()
    table = hold_out_types([LINEAR], (X, y), (X_test, y_test), types=["type_02"])
    n_unknown = int((y == "type_02").sum() + (y_test == "type_02").sum())
    assert table["unknown"].sum() == n_unknown and len(table) == len(y_test) + (y == "type_02").sum()
    assert "type_02" not in set(table["cell_type"]) and (table["unknown"] == (table["true_type"] == "type_02")).all()
    model = _train_classifier(LINEAR, X[y != "type_02"], y[y != "type_02"])
    np.testing.assert_allclose(table["probability"][: len(y_test)], model.predict_proba(X_test).max(axis=1))
    assert set(hold_out_types([LINEAR], (X, y), (X_test, y_test))["held_out"]) == set(y)
    assert "did you mean 'type_02'?" in refusal(hold_out_types, [LINEAR], (X, y), (X_test, y_test), types=["type02"])
    assert "no probabilities" in refusal(hold_out_types, ["svm_l2"], (X, y), (X_test, y_test), types=["type_02"])


def test_test_cells_of_a_type_that_was_never_there_are_unknown_too() -> None:
    (X, y), (X_test, y_test) = parts()
    kept = y != "type_03"
    table = hold_out_types([LINEAR], (X[kept], y[kept]), (X_test, y_test), types="type_02")
    assert set(table.loc[table["unknown"], "true_type"]) == {"type_02", "type_03"}


def test_a_type_with_a_twin_cannot_be_detected() -> None:
    """Half of a type under another name: its twin takes every cell, with probabilities like those of its own."""
    (X, y), (X_test, y_test) = parts()
    names = [np.where((own == "type_00") & (np.arange(len(own)) % 2 == 0), "twin", own) for own in (y, y_test)]
    found = unknown_detection(hold_out_types([LINEAR], (X, names[0]), (X_test, names[1]), types=["twin"])).iloc[0]
    assert found["taken_by"] == "type_00" and found["taken_share"] > 0.7 and found["auroc"] < 0.75


def test_the_measures_of_detection_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    unknown = np.repeat([False, True], [300, 100])
    probability = np.where(unknown, rng.beta(4, 2, 400), rng.beta(9, 1, 400))
    table = pd.DataFrame({"classifier": "m", "held_out": "t", "unknown": unknown, "probability": probability,
                          "cell_type": ["u"] * 300 + ["v"] * 60 + ["u"] * 40})  # fmt: skip
    found = unknown_detection(table, sure=0.8).iloc[0]
    assert found["auroc"] == pytest.approx(1 - roc_auc_score(unknown, probability)) and found["n_unknown"] == 100
    assert found["unknown_sure"] == (probability[unknown] >= 0.8).mean()
    threshold = np.quantile(probability[unknown], 0.95)
    assert found["known_lost"] == (probability[~unknown] < threshold).mean() > 0
    assert (found["taken_by"], found["taken_share"]) == ("v", 0.6)
    apart = unknown_detection(table.assign(probability=np.where(unknown, 0.3, 0.9))).iloc[0]
    assert (apart["auroc"], apart["known_lost"], apart["unknown_sure"]) == (1, 0, 0)


def test_the_curves_of_the_unknown_are_those_of_their_cells() -> None:
    rows = [("m", "t", False, 0.9), ("m", "t", False, 0.7), ("m", "t", True, 0.4), ("n", "t", True, 0.1)]
    table = pd.DataFrame(rows, columns=["classifier", "held_out", "unknown", "probability"])
    known, held = plot_unknown(table).lines
    assert known.get_xdata()[1:].tolist() == [0.7, 0.9] and held.get_xdata()[1:].tolist() == [0.4]
    assert held.get_label() == "t, held out"
