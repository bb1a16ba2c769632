"""The classifiers and the gene selector are scikit-learn estimators to the letter."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier
from selectormlp.data import InputError
from selectormlp.pipeline import GeneSelector
from selectormlp.selection import PanelDesign
from selectormlp.tabnet import TabNetClassifier

QUICK: dict[str, Any] = {"hidden_sizes": (32,), "max_epochs": 3, "learning_rate": 1e-2, "batch_size": 64}
BRIEF: dict[str, Any] = {
    "max_epochs": 2, "steps_per_epoch": 8, "batch_size": 64, "virtual_batch_size": 32, "n_steps": 2, "n_independent": 1,
}  # fmt: skip
LEARNED = [LinearSVMClassifier(), SelectorMLPClassifier(**QUICK)]  # know the cells below in their few steps
MACHINES = [*LEARNED, TabNetClassifier(**BRIEF)]
SELECTORS = [GeneSelector(1), GeneSelector(1, method=LogisticRegression())]
# scikit-learn expects the same two failures of its LinearSVC and SGDClassifier; what holds instead is tested below
STOCHASTIC = "batches, held-out cells and the order of LIBLINEAR's steps are drawn for the cells that are there"
EXPECTED = {f"check_sample_weight_equivalence_on_{kind}_data": STOCHASTIC for kind in ("dense", "sparse")}


def expected_failures(estimator: BaseEstimator) -> dict[str, str]:
    """The checks that an estimator cannot pass, and why."""
    return {} if isinstance(estimator, GeneSelector) else EXPECTED


@pytest.fixture(autouse=True)
def _without_lightnings_hints() -> Any:
    """Lightning says of tiny trainings that they are tiny."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        yield


@parametrize_with_checks([*MACHINES, *SELECTORS], expected_failed_checks=expected_failures)
def test_estimators_pass_the_checks_of_scikit_learn(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def cells() -> tuple[sparse.csr_matrix, np.ndarray]:
    """120 cells of three types x 20 genes, three of which tell the types apart."""
    rng = np.random.default_rng(0)
    types = np.repeat(["alpha", "beta", "ductal"], 40)
    values = rng.poisson(0.5, (120, 20)).astype(np.float32)
    for number, name in enumerate(np.unique(types)):
        values[types == name, number] += 4
    return sparse.csr_matrix(np.log1p(values)), types


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: type(machine).__name__)
def test_a_cell_of_weight_two_is_a_cell_that_is_there_twice(machine: BaseEstimator, cells) -> None:
    """The parts of a fit that are not drawn at random: spread, scale and weights; for the L2 machine all of it."""
    X, y = cells
    times = np.arange(120) % 3
    again = np.repeat(np.arange(120), times)
    weighted = clone(machine).fit(X, y, sample_weight=times)
    repeated = clone(machine).fit(X[again], y[again])
    np.testing.assert_allclose(weighted.gene_spread_, repeated.gene_spread_)
    np.testing.assert_allclose(weighted.gene_scale_, repeated.gene_scale_)
    if isinstance(machine, LinearSVMClassifier):
        exact = LinearSVMClassifier(penalty="l2", tol=1e-10)
        same = [exact.fit(X, y, sample_weight=times).coef_, exact.fit(X[again], y[again]).coef_]
        np.testing.assert_allclose(*same, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: type(machine).__name__)
def test_weights_of_types_shift_the_predictions(machine: BaseEstimator, cells) -> None:
    X, y = cells
    shares = {}
    for weight in (1e-3, 1, 1e3):
        fitted = clone(machine).set_params(class_weight={"alpha": weight, "beta": 1, "ductal": 1}).fit(X[:, 3:], y)
        shares[weight] = (fitted.predict(X[:, 3:]) == "alpha").mean()
    assert shares[1e-3] < shares[1] < shares[1e3]
    with pytest.raises(ValueError, match="class_weight"):
        clone(machine).set_params(class_weight="even").fit(X, y)


def test_balanced_is_what_the_robust_protocol_does(cells) -> None:
    X, y = cells[0][20:], cells[1][20:]
    plain, robust, asked, dict_of_ones = (
        LinearSVMClassifier(**settings).fit(X, y).coef_
        for settings in (
            {"balance_types": False},
            {},
            {"class_weight": "balanced"},
            {"class_weight": {"alpha": 1, "beta": 1, "ductal": 1}},
        )
    )
    np.testing.assert_array_equal(robust, asked)
    np.testing.assert_array_equal(plain, dict_of_ones)
    assert not np.allclose(plain, robust)


@pytest.mark.parametrize("weights", [np.zeros(120), -np.ones(120), np.full(120, np.nan), np.ones(7)])
def test_weights_that_cannot_be_are_refused(weights: np.ndarray, cells) -> None:
    with pytest.raises(InputError, match="sample_weight"):
        LinearSVMClassifier().fit(*cells, sample_weight=weights)


@pytest.mark.parametrize("machine", LEARNED, ids=lambda machine: type(machine).__name__)
def test_pipelines_searches_and_cross_validation(machine: BaseEstimator, cells) -> None:
    X, y = cells
    pipeline = make_pipeline(MaxAbsScaler(), clone(machine))
    assert cross_val_score(pipeline, X, y, cv=3, n_jobs=2).mean() > 0.8
    search = GridSearchCV(pipeline, {f"{pipeline.steps[-1][0]}__protocol": ["robust", "report"]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    calibrated = CalibratedClassifierCV(clone(machine), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    assert calibrated.score(X, y) > 0.8


@pytest.mark.parametrize("machine", LEARNED, ids=lambda machine: type(machine).__name__)
def test_select_from_model_keeps_the_markers_and_names_them(machine: BaseEstimator, cells) -> None:
    X, y = cells
    table = pd.DataFrame(X.toarray(), columns=[f"gene{i}" for i in range(20)])
    chooser = SelectFromModel(
        clone(machine), max_features=3, threshold=-np.inf, importance_getter="feature_importances_"
    )
    assert list(chooser.set_output(transform="pandas").fit_transform(table, y).columns) == ["gene0", "gene1", "gene2"]
    assert chooser.estimator_.gene_names_.tolist() == list(table.columns)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: type(machine).__name__)
def test_formats_and_types_of_numbers_do_not_matter(machine: BaseEstimator, cells) -> None:
    X, y = cells
    forms = [X, X.astype(np.float64), X.toarray(), X.toarray().astype(np.float64), sparse.csc_matrix(X)]
    scores = [clone(machine).fit(form, y).decision_function(form) for form in forms]
    for other in scores[1:]:
        np.testing.assert_allclose(scores[0], other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("labels", [[1, 2, 3], [True, False], [0.0, 1.0, 5.0], ["alpha", "Zelle", "β"]])
def test_labels_of_any_type_come_back_as_they_were(labels: list, cells) -> None:
    X = cells[0]
    y = np.array(labels)[np.arange(120) % len(labels)]
    fitted = LinearSVMClassifier().fit(X, y)
    assert fitted.predict(X).dtype.kind == y.dtype.kind and set(fitted.classes_) == set(labels)


def test_a_cells_prediction_does_not_depend_on_its_company(cells) -> None:
    X, y = cells
    model = SelectorMLPClassifier(**QUICK).fit(X, y)
    alone = np.vstack([model.class_scores(X[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(alone, model.class_scores(X)[:10], rtol=1e-12)


@pytest.mark.parametrize("method", ["discriminant", "svm_l1", LogisticRegression(), RandomForestClassifier(30)])
def test_the_selector_finds_the_markers_by_any_method(method: Any, cells) -> None:
    X, y = cells
    chooser = GeneSelector(3, method=method).fit(X, y)
    assert set(chooser.genes_) == {"x0", "x1", "x2"} and chooser.get_support(indices=True).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(chooser.transform(X).toarray(), X[:, :3].toarray())


def test_arrays_tables_and_anndata_give_the_same_panel(cells) -> None:
    counts, y = np.expm1(cells[0].toarray()), cells[1]
    X = sparse.csr_matrix(np.log1p(20 * counts / counts.sum(axis=1, keepdims=True)))  # of an AnnData depth is removed
    names = [f"gene{i}" for i in range(20)]
    table = pd.DataFrame(X.toarray(), columns=names)
    adata = AnnData(
        X, obs=pd.DataFrame({"type": y}, index=[f"c{i}" for i in range(120)]), var=pd.DataFrame(index=names)
    )
    before = adata.obs.copy()
    from_table, from_anndata, with_y = (
        GeneSelector(6).fit(table, y),
        GeneSelector(6, label_key="type").fit(adata),
        GeneSelector(6).fit(adata, y),
    )
    assert from_table.genes_ == from_anndata.genes_ == with_y.genes_
    assert [f"gene{name[1:]}" for name in GeneSelector(6).fit(X, y).genes_] == from_table.genes_
    kept = from_anndata.transform(adata[:, ::-1])
    assert kept.var_names.tolist() == from_table.get_feature_names_out().tolist() and "type" in kept.obs
    pd.testing.assert_frame_equal(adata.obs, before)
    with pytest.raises(InputError, match="not in the data"):
        from_anndata.transform(adata[:, :1])


def test_the_selector_keeps_the_rules_of_a_panel(cells) -> None:
    X, y = cells
    table = pd.DataFrame(X.toarray(), columns=[f"gene{i}" for i in range(20)])
    chooser = GeneSelector(4, must_include=["gene19"], exclude=["gene0"], min_markers=1).fit(table, y)
    assert chooser.genes_[0] == "gene19" and "gene0" not in chooser.genes_ and len(chooser.genes_) == 4
    for settings, words in (
        ({"n_genes": 21}, "there are 20 to choose from"),
        ({"must_include": ["gene20"]}, "must_include names 'gene20', which is not in the data; leave it out"),
        ({"must_include": ["gen7"]}, "did you mean 'gene7'?"),
        ({"groups": "branch"}, "give the cells as AnnData"),
        ({"method": "svm_l1", "min_markers": 1}, "min_markers needs method='discriminant'"),
        ({"method": KNeighborsClassifier()}, "ranks no genes"),
    ):
        with pytest.raises(InputError, match=words):
            GeneSelector(4).set_params(**settings).fit(table, y)
    other_spelling = GeneSelector(4, must_include=["Gene-7"]).fit(table, y)  # case and punctuation alone: taken
    assert other_spelling.genes_[0] == "gene7"
    with pytest.raises(InputError, match="only one class, 'alpha'"):
        GeneSelector(2).fit(table, np.repeat("alpha", 120))
    with pytest.raises(InputError, match="needs label_key"):
        GeneSelector(2).fit(AnnData(X))


def test_every_parameter_of_the_selector_is_a_rule_of_a_panel() -> None:
    """All rules of `PanelDesign` can be searched over, but for those that a split has."""
    of_the_split = {"min_cells", "seed"}
    own = set(GeneSelector().get_params()) - {"label_key", "random_state", "model_settings"}
    assert own == set(PanelDesign.__annotations__) - of_the_split
    for name in own - {"method"}:
        default = PanelDesign.__dataclass_fields__[name]
        assert getattr(GeneSelector()._design(), name) in (getattr(PanelDesign(), name), []), default


def test_the_choice_inside_a_pipeline_learns_nothing_from_noise() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 300)), np.repeat(["a", "b"], 40)
    assert cross_val_score(make_pipeline(GeneSelector(5), LogisticRegression()), X, y, cv=4).mean() < 0.65
    outside = GeneSelector(5).fit(X, y).transform(X)
    assert cross_val_score(LogisticRegression(), outside, y, cv=4).mean() > 0.7
