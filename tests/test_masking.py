"""Masking curves: those that follow changes are those of one full prediction per mask, for every kind of classifier."""

import functools
from collections.abc import Callable
from itertools import product
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score

from selectormlp import masking
from selectormlp.classifiers import _model_colour, make_classifier
from selectormlp.data import InputError
from selectormlp.masking import (
    _curve_sizes,
    masking_curve,
    plot_masking_curves,
    predict_masked,
    random_masking_curve,
    rank_genes,
)

SMALL = {"hidden_sizes": (16, 8), "max_epochs": 2}
KINDS = {
    "selector": ("selector_l1", SMALL),
    "clamped": ("selector_clamped_l1", SMALL),
    "mlp": ("mlp", SMALL),
    "no batch norm": ("mlp_nothing", SMALL),
    "report": ("selector_l1", {"protocol": "report", **SMALL}),
    "svm": ("svm_l2", {}),
    "forest": ("forest", {}),
}
N_GENES = 60


def cells(n_types: int, seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray]:
    """400 cells of `n_types` types, 60 genes, two markers each; the last cell has no gene at all."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(n_types, size=400)
    x = rng.poisson(0.15, size=(400, N_GENES)).astype(np.float32)
    x[np.arange(400), 2 * codes] += rng.poisson(2, size=400)
    x[-1] = 0
    return sparse.csr_matrix(np.log1p(x)), np.array([f"type {code}" for code in codes])


@pytest.fixture(autouse=True)
def checked_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch check the sparse tensors that the library hands it as right: it reads memory by their numbers.

    Those without any value are let through: there is nothing to read, and older versions stumble over their strides.
    """
    import torch

    plain = torch.sparse_csr_tensor

    def checked(*arrays, **settings):
        return plain(*arrays, **(settings | {"check_invariants": len(arrays[1]) > 0}))

    monkeypatch.setattr(torch, "sparse_csr_tensor", checked)


@functools.cache
def fitted(kind: str, n_types: int = 5):
    """A classifier of a kind for `cells(n_types)`, or a random forest that knows its genes."""
    x, y = cells(n_types)
    condition, settings = KINDS[kind]
    if condition == "forest":
        forest = RandomForestClassifier(20, random_state=0).fit(x, y)
        forest.gene_names_ = np.array([f"g{i}" for i in range(x.shape[1])])
        return forest
    own = {name: value for name, value in settings.items() if name != "protocol"}
    protocol = settings.get("protocol", "robust")
    return make_classifier(condition, protocol=protocol, model_settings=own).fit(x, y)


def plain_right(model, x: sparse.csr_matrix, y: np.ndarray, genes: np.ndarray, n_kept: int) -> np.ndarray:
    """Which cells are right when the other genes are set to 0."""
    kept = np.isin(model.gene_names_, genes[:n_kept])
    return model.predict(sparse.csr_matrix(x.toarray() * kept)) == y


@pytest.mark.parametrize(("kind", "n_types"), [*product(KINDS, (5,)), ("selector", 2), ("svm", 2), ("forest", 2)])
def test_curve_is_one_full_prediction_per_mask(kind: str, n_types: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_BLOCK_CELLS", 130)  # several blocks, the last one smaller
    x, y = cells(n_types)
    model = fitted(kind, n_types)
    ranking = rank_genes(model)
    genes = ranking["gene"].to_numpy()
    steps = (7, N_GENES) if kind == "forest" else (1, 7, 50, N_GENES, 1000)
    for step in steps:
        curve = masking_curve(model, x, y, ranking, step=step)
        right = [plain_right(model, x, y, genes, n) for n in curve["n_genes"]]
        assert curve["n_genes"].tolist() == [*range(0, N_GENES, step), N_GENES]
        np.testing.assert_allclose(curve["accuracy"], [hits.mean() for hits in right], rtol=1e-12)
        called = [predict_masked(model, x, genes[:n]) for n in curve["n_genes"]]
        assert [(types == y).tolist() for types in called] == [hits.tolist() for hits in right]
        recall = [balanced_accuracy_score(y, types) for types in called]
        np.testing.assert_allclose(curve["balanced_accuracy"], recall, rtol=1e-12)
        for other in (x.toarray(), x.toarray().astype(float), x.tocsc(), sparse.csr_array(x)) if step == 7 else ():
            pd.testing.assert_frame_equal(masking_curve(model, other, y, ranking, step=step), curve)


@pytest.mark.parametrize("kind", ["selector", "svm", "forest"])
def test_random_orders_are_curves_of_their_own(kind: str) -> None:
    x, y = cells(5)
    model = fitted(kind)
    curves = random_masking_curve(model, x, y, step=20, n_orders=2, seed=3)
    names = np.sort(np.asarray(model.gene_names_).astype(str))
    for number, curve in curves.groupby("order"):
        stream = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(masking._RANDOM_ORDERS, number)))
        genes = stream.permutation(names)
        expected = [plain_right(model, x, y, genes, n).mean() for n in curve["n_genes"]]
        np.testing.assert_allclose(curve["accuracy"], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["svm", "selector"])
def test_classifiers_of_this_library_need_no_full_prediction(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cells(5)
    model = fitted(kind)
    called = model.predict(x)
    monkeypatch.setattr(model, "predict", None)  # the slow way of other estimators
    assert (predict_masked(model, x, model.gene_names_) == called).all()
    assert np.isclose(masking_curve(model, x, y, rank_genes(model))["accuracy"].iloc[-1], (called == y).mean())


@pytest.mark.parametrize("kind", ["svm", "selector"])
def test_cells_without_any_gene_have_a_flat_curve(kind: str) -> None:
    model = fitted(kind)
    curve = masking_curve(model, sparse.csr_matrix((6, N_GENES)), np.repeat(["type 0", "type 1"], 3), rank_genes(model))
    called = model.predict(sparse.csr_matrix((1, N_GENES), dtype=np.float32))[0]
    assert curve["accuracy"].tolist() == [0.5 if called in ("type 0", "type 1") else 0.0] * 3


def test_types_unknown_to_the_model_are_never_right() -> None:
    x, y = cells(5)
    model = fitted("svm")
    curve = masking_curve(model, x, np.where(y == "type 0", "unheard of", y), rank_genes(model), step=30)
    known = model.predict(x)[y != "type 0"] == y[y != "type 0"]
    assert np.isclose(curve["accuracy"].iloc[-1], known.sum() / len(y))


def test_folded_network_has_the_scores_of_the_network() -> None:
    import torch

    x, y = cells(5)
    for kind in ("selector", "clamped", "mlp", "no batch norm", "report", "svm"):
        model = fitted(kind)
        folded = model.folded()
        units = torch.from_numpy(folded.inputs.units(x).astype(folded.inputs.weight.dtype))
        with torch.inference_mode():
            scores = folded.rest(units).numpy()
        np.testing.assert_allclose(scores, model.class_scores(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_under_masks_is_the_cross_entropy_of_each_full_prediction(kind: str) -> None:
    (x, y), ranked = cells(5), fitted(kind, 5)
    ranking, known = rank_genes(ranked), np.isin(y, ranked.classes_)
    other = np.where(np.arange(len(y)) % 7 == 0, "unheard of", y)
    for labels in (y, other):
        curve = masking_curve(ranked, x, labels, ranking, step=25, loss=True)
        assert curve.drop(columns="loss").equals(masking_curve(ranked, x, labels, ranking, step=25))
        if not hasattr(ranked, "predict_proba"):
            assert curve["loss"].isna().all()
            continue
        known = np.isin(labels, ranked.classes_)
        for size, loss in zip(curve["n_genes"], curve["loss"], strict=True):
            kept = np.isin(ranked.gene_names_, ranking["gene"][:size])
            of_type = ranked.predict_proba(sparse.csr_matrix(x.multiply(kept)))[known]
            with np.errstate(divide="ignore"):
                own = -np.log(of_type[np.arange(known.sum()), np.searchsorted(ranked.classes_, labels[known])])
            np.testing.assert_allclose(loss, own.mean(), rtol=1e-4)
    random = random_masking_curve(ranked, x, y, step=30, n_orders=2, loss=True)
    assert ("loss" in random) and random["loss"].isna().all() == (not hasattr(ranked, "predict_proba"))


def test_other_estimators_are_masked_plainly() -> None:
    x, y = cells(5)
    model = fitted("forest")
    kept = np.arange(N_GENES) < 10
    expected = model.predict(sparse.csr_matrix(x.toarray() * kept))
    for cells_x in (x, x.toarray()):
        assert (predict_masked(model, cells_x, model.gene_names_[:10]) == expected).all()
    nameless = RandomForestClassifier(5, random_state=0).fit(x, y)
    with pytest.raises(InputError, match="RandomForestClassifier does not know its genes"):
        masking_curve(nameless, x, y, rank_genes(model))


def test_cells_that_do_not_fit_the_model_are_refused() -> None:
    x, y = cells(5)
    model = fitted("svm")
    with pytest.raises(InputError, match=r"X is \(400, 59\), for 400 labels in y and a model of 60 genes"):
        masking_curve(model, x[:, :-1], y, rank_genes(model))
    with pytest.raises(InputError, match=r"X is \(399, 60\), for 400 labels"):
        masking_curve(model, x[:-1], y, rank_genes(model))


def refusal(function: Callable, *arguments, **settings) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


def test_masking_refuses_rankings_that_are_not_the_models() -> None:
    x, y = cells(5)
    model = fitted("svm")
    ranking = rank_genes(model)
    for wrong, found, unknown in (
        (ranking[:-1], 59, 0),
        (pd.concat([ranking[:-1], ranking[:1]]), 60, 0),
        (pd.concat([ranking, ranking[:1]]), 61, 0),
        (ranking.assign(gene=["no", *ranking["gene"][1:]]), 60, 1),
        (ranking.assign(gene=ranking["gene"] + "x"), 60, 60),
    ):
        assert refusal(masking_curve, model, x, y, wrong) == (
            f"the ranking has {found} genes, {unknown} of them unknown to the model, which has 60: a masking curve"
            " needs each gene once"
        )
    for step in (0, 2.5):
        sentence = f"step is {step}; keep at least 1 more gene at each point of the curve"
        assert refusal(masking_curve, model, x, y, ranking, step=step) == sentence
    known = model.gene_names_[:2]
    sentence = "the model does not know the gene 'no'; leave it out"
    assert refusal(predict_masked, model, x, [*known, "no", "never"]) == sentence
    sentence = "n_orders is 0; pass a whole number of 1 or more"
    assert refusal(random_masking_curve, model, x, y, n_orders=0) == sentence
    assert refusal(masking_curve, model, x[:, :-1], y, ranking) == (
        "X is (400, 59), for 400 labels in y and a model of 60 genes; pass the model's genes and a label for each cell"
    )
    nameless = SimpleNamespace(feature_importances_=np.ones(60))
    assert refusal(predict_masked, nameless, x, known) == (
        "SimpleNamespace does not know its genes; set its gene_names_, in the order of X"
    )


def test_random_orders_are_repeatable_and_differ() -> None:
    x, y = cells(5)
    model = fitted("svm")
    one, two = (random_masking_curve(model, x, y, step=30, n_orders=3, seed=seed) for seed in (0, 0))
    pd.testing.assert_frame_equal(one, two)
    assert not random_masking_curve(model, x, y, step=30, n_orders=3, seed=1).equals(one)
    assert one.groupby("order")["accuracy"].apply(tuple).nunique() == 3


def test_defaults_are_steps_of_50_genes_and_5_random_orders() -> None:
    x, y = cells(5)
    model = fitted("svm")
    assert masking_curve(model, x, y, rank_genes(model))["n_genes"].tolist() == [0, 50, 60]
    curves = random_masking_curve(model, x, y)
    pd.testing.assert_frame_equal(curves, random_masking_curve(model, x, y, step=50, n_orders=5, seed=0))
    assert curves["order"].tolist() == np.repeat(range(5), 3).tolist() and curves.index.tolist() == list(range(15))
    assert list(curves) == ["n_genes", "accuracy", "balanced_accuracy", "order"]
    assert len(random_masking_curve(model, x, y, n_orders=1)) == 3
    assert len(masking_curve(model, x, y, rank_genes(model), step=1)) == 61


def test_sizes_hold_none_and_all() -> None:
    assert _curve_sizes(10, 4).tolist() == [0, 4, 8, 10] and _curve_sizes(8, 4).tolist() == [0, 4, 8]
    assert _curve_sizes(3, 1).tolist() == [0, 1, 2, 3] and _curve_sizes(3, 5).tolist() == [0, 3]


def test_ranking_does_not_depend_on_the_order_of_genes() -> None:
    flat = SimpleNamespace(feature_importances_=np.ones(4), gene_names_=np.array(list("cabd"), dtype=object))
    assert rank_genes(flat, list("dbca"))["gene"].tolist() == list("abcd")
    assert refusal(rank_genes, flat, list("abc")) == (
        "there are 3 gene names for a model of 4 genes; pass one for each, in its order"
    )
    falling = SimpleNamespace(feature_importances_=[1, 3, 2, 3], gene_names_=np.array(list("cbda"), dtype=object))
    ranking = rank_genes(falling)
    assert ranking.to_dict("list") == {"gene": list("abdc"), "importance": [3, 3, 2, 1], "rank": [1, 2, 3, 4]}
    assert ranking["importance"].dtype == float
    assert rank_genes(falling, [4, 3, 2, 1])["gene"].tolist() == ["1", "3", "2", "4"]


def test_an_estimator_that_saw_a_table_knows_its_genes() -> None:
    x, y = cells(5)
    forest = fitted("forest")
    ranking = rank_genes(forest)
    named = SimpleNamespace(predict=forest.predict, feature_names_in_=forest.gene_names_)
    expected = masking_curve(forest, x, y, ranking, step=30)
    pd.testing.assert_frame_equal(masking_curve(named, x, y, ranking, step=30), expected)
    assert (predict_masked(named, x, iter(ranking["gene"])) == forest.predict(x)).all()


def test_other_estimators_are_given_what_they_were_given_before() -> None:
    class Sees:
        """Notes the masked cells that it is asked about."""

        gene_names_ = np.array(list("abc"))
        seen: list = []

        def predict(self, x: np.ndarray) -> np.ndarray:
            Sees.seen.append(x)
            return np.repeat("one", x.shape[0])

    ranking = pd.DataFrame({"gene": list("bca")})
    x = np.arange(1, 7, dtype=float).reshape(2, 3)
    for values in (x, sparse.csc_matrix(x)):
        Sees.seen = []
        curve = masking_curve(Sees(), values, np.array(["one", "two"]), ranking, step=2)
        shown = [cells.toarray() if sparse.issparse(cells) else cells for cells in Sees.seen]
        expected = [np.zeros((2, 3)), x * [0, 1, 1], x]
        assert all((cells == other).all() for cells, other in zip(shown, expected, strict=True))
        assert all(sparse.issparse(cells) == sparse.issparse(values) for cells in Sees.seen)
        assert curve["accuracy"].tolist() == curve["balanced_accuracy"].tolist() == [0.5, 0.5, 0.5]
        assert predict_masked(Sees(), values, ["c"]).tolist() == ["one", "one"]
        last = Sees.seen[-1]
        assert ((last.toarray() if sparse.issparse(last) else last) == x * [0, 0, 1]).all()


def test_the_figure_has_a_line_for_each_model_and_grey_ones_for_random_orders() -> None:
    rows = [
        (model, order, n, n / 100 + order / 1000, n / 50)
        for model, order in (("svm_l1", -1), ("svm_l1", 0), ("mlp", -1), ("mlp", 0), ("mlp", 1))
        for n in (0, 20)
    ]
    curves = pd.DataFrame(rows, columns=["model", "order", "n_genes", "accuracy", "balanced_accuracy"])
    ax = plot_masking_curves(curves)
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0, 20]] * 5
    assert [line.get_ydata().tolist() for line in ax.lines] == [
        [0, 0.2], [0, 0.2], [0.001, 0.201], [-0.001, 0.199], [-0.001, 0.199],
    ]  # fmt: skip
    assert [line.get_color() for line in ax.lines] == [
        "#999999", "#999999", "#999999", _model_colour("svm_l1"), _model_colour("mlp"),
    ]  # fmt: skip
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["random orders", "svm_l1", "mlp"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("genes kept (the others are set to 0)", "accuracy")
    assert ax.get_ylim() == (0, 1)
    few = plot_masking_curves(curves[curves["order"] < 1].query("model == 'svm_l1'"))
    assert [text.get_text() for text in few.get_legend().get_texts()] == ["random orders", "svm_l1"]
    figure, own = plt.subplots()
    assert plot_masking_curves(curves, measure="balanced_accuracy", ax=own) is own
    assert own.get_ylabel() == "balanced accuracy" and own.lines[3].get_ydata().tolist() == [0, 0.4]
    assert figure.axes == [own]
    plt.close("all")
