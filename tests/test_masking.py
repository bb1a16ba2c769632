"""Masking curves: those that follow changes are those of one full prediction per mask, for every kind of classifier."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier

from selectormlp import masking
from selectormlp.classifiers import make_classifier
from selectormlp.data import InputError
from selectormlp.masking import masking_curve, predict_masked, random_masking_curve, rank_genes

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


def fitted(kind: str, x: sparse.csr_matrix, y: np.ndarray):
    """A classifier of a kind, or a random forest that knows its genes."""
    condition, settings = KINDS[kind]
    if condition == "forest":
        forest = RandomForestClassifier(20, random_state=0).fit(x, y)
        forest.gene_names_ = np.array([f"g{i}" for i in range(x.shape[1])])
        return forest
    return make_classifier(condition, **settings).fit(x, y)


def plain_right(model, x: sparse.csr_matrix, y: np.ndarray, genes: np.ndarray, n_kept: int) -> np.ndarray:
    """Which cells are right when the other genes are set to 0."""
    kept = np.isin(model.gene_names_, genes[:n_kept])
    return model.predict(sparse.csr_matrix(x.toarray() * kept)) == y


@pytest.mark.parametrize(("kind", "n_types"), [*product(KINDS, (5,)), ("selector", 2), ("svm", 2), ("forest", 2)])
def test_curve_is_one_full_prediction_per_mask(kind: str, n_types: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "BLOCK_CELLS", 130)  # several blocks, the last one smaller
    x, y = cells(n_types)
    model = fitted(kind, x, y)
    ranking = rank_genes(model)
    genes = ranking["gene"].to_numpy()
    steps = (7, N_GENES) if kind == "forest" else (1, 7, 50, N_GENES, 1000)
    for step in steps:
        curve = masking_curve(model, x, y, ranking, step=step)
        right = [plain_right(model, x, y, genes, n) for n in curve["n_genes"]]
        assert curve["n_genes"].tolist() == [*range(0, N_GENES, step), N_GENES]
        np.testing.assert_allclose(curve["accuracy"], [hits.mean() for hits in right], rtol=1e-12)
        recall = [pd.Series(hits).groupby(y).mean().mean() for hits in right]
        np.testing.assert_allclose(curve["balanced_accuracy"], recall, rtol=1e-12)
        for other in (x.toarray(), x.toarray().astype(float), x.tocsc(), sparse.csr_array(x)):
            pd.testing.assert_frame_equal(masking_curve(model, other, y, ranking, step=step), curve)


@pytest.mark.parametrize("kind", ["selector", "svm", "forest"])
def test_random_orders_are_curves_of_their_own(kind: str) -> None:
    x, y = cells(5)
    model = fitted(kind, x, y)
    curves = random_masking_curve(model, x, y, step=20, n_orders=2, seed=3)
    names = np.sort(np.asarray(model.gene_names_).astype(str))
    for number, curve in curves.groupby("order"):
        stream = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(masking.RANDOM_ORDERS, number)))
        genes = stream.permutation(names)
        expected = [plain_right(model, x, y, genes, n).mean() for n in curve["n_genes"]]
        np.testing.assert_allclose(curve["accuracy"], expected, rtol=1e-12)


def test_types_unknown_to_the_model_are_never_right() -> None:
    x, y = cells(5)
    model = fitted("svm", x, y)
    curve = masking_curve(model, x, np.where(y == "type 0", "unheard of", y), rank_genes(model), step=30)
    known = model.predict(x)[y != "type 0"] == y[y != "type 0"]
    assert np.isclose(curve["accuracy"].iloc[-1], known.sum() / len(y))


def test_folded_network_has_the_scores_of_the_network() -> None:
    import torch

    x, y = cells(5)
    for kind in ("selector", "clamped", "mlp", "no batch norm", "report", "svm"):
        model = fitted(kind, x, y)
        folded = model.folded()
        units = torch.from_numpy(folded.inputs.units(x).astype(folded.inputs.weight.dtype))
        with torch.inference_mode():
            scores = folded.rest(units).numpy()
        np.testing.assert_allclose(scores, model.class_scores(x), rtol=1e-4, atol=1e-4)


def test_other_estimators_are_masked_plainly() -> None:
    x, y = cells(5)
    model = fitted("forest", x, y)
    kept = np.arange(N_GENES) < 10
    expected = model.predict(sparse.csr_matrix(x.toarray() * kept))
    for cells_x in (x, x.toarray()):
        assert (predict_masked(model, cells_x, model.gene_names_[:10]) == expected).all()
    nameless = RandomForestClassifier(5, random_state=0).fit(x, y)
    with pytest.raises(InputError, match="RandomForestClassifier does not know its genes"):
        masking_curve(nameless, x, y, rank_genes(model))


def test_cells_that_do_not_fit_the_model_are_refused() -> None:
    x, y = cells(5)
    model = fitted("svm", x, y)
    with pytest.raises(InputError, match=r"X is \(400, 59\), for 400 labels in y and a model of 60 genes"):
        masking_curve(model, x[:, :-1], y, rank_genes(model))
    with pytest.raises(InputError, match=r"X is \(399, 60\), for 400 labels"):
        masking_curve(model, x[:-1], y, rank_genes(model))
