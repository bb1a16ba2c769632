"""TabNet: every setting acts, explanations add up, files and cut-off trainings, pretraining, and what is refused."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_tabnet.sparsemax import SparsemaxFunction
from scipy import sparse
from sklearn.metrics import average_precision_score, f1_score, precision_score

from selectormlp.classifiers import make_classifier
from selectormlp.data import InputError
from selectormlp.masking import masking_curve, rank_genes
from selectormlp.saving import load_model, save_model
from selectormlp.tabnet import (
    TabNetClassifier,
    _SparsemaxFunction,
    _tabnet_measures,
    _TabNetNet,
    _TabNetProtocol,
    _TabNetShape,
    explain_cells,
    explain_types,
    plot_type_shares,
    pretrain_tabnet,
)

QUICK: dict[str, Any] = {"max_epochs": 3, "steps_per_epoch": 10, "batch_size": 64, "virtual_batch_size": 32}
Cells = tuple[sparse.csr_matrix, np.ndarray]


@pytest.fixture(scope="module")
def cells() -> Cells:
    """300 cells of three unequal types, 40 genes, the first six of them markers."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], [180, 90, 30])
    x = rng.poisson(0.5, size=(300, 40)).astype(np.float32)
    for i, name in enumerate("abc"):
        x[np.ix_(y == name, [2 * i, 2 * i + 1])] += rng.poisson(6, size=((y == name).sum(), 2))
    order = rng.permutation(300)
    return sparse.csr_matrix(np.log1p(x[order])), y[order]


@pytest.fixture(scope="module")
def fitted(cells: Cells) -> TabNetClassifier:
    """A TabNet that has learned the three types."""
    return TabNetClassifier(**{**QUICK, "max_epochs": 12, "patience": None}).fit(*cells)


CHANGES = {
    "n_decision": 4, "n_attention": 4, "n_steps": 2, "gamma": 1.0, "n_independent": 1, "n_shared": 1, "momentum": 0.5,
    "virtual_batch_size": 8, "mask": "entmax", "sparsity": 1.0, "clip": 1e-3, "max_epochs": 4, "steps_per_epoch": 5,
    "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 1.0, "class_weight": None, "validation_fraction": 0.5,
    "random_state": 1,
}  # fmt: skip
BELOW = {"patience", "plateau_factor", "plateau_patience", "pretrained", "log_folder", "resume", "trainer_arguments"}


def test_every_setting_is_tried() -> None:
    assert set(CHANGES) | BELOW == set(TabNetClassifier().get_params())
    own = {*_TabNetShape.__dataclass_fields__, *(set(vars(_TabNetProtocol())) - set(vars(_TabNetProtocol.__base__())))}
    assert own - {"n_genes"} <= set(CHANGES) | BELOW


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_scores(cells: Cells, name: str) -> None:
    x, y = cells[0][:200], cells[1][:200]
    before, after = (
        TabNetClassifier(**{**QUICK, "patience": None, **new}).fit(x, y) for new in ({}, {name: CHANGES[name]})
    )
    assert not np.array_equal(before.class_scores(x), after.class_scores(x))


def test_a_training_ends_when_patience_epochs_were_no_better_than_the_best(cells: Cells) -> None:
    """Whatever path the training takes: with validation cells of the wrong types, it gets worse as it learns."""
    wrong = np.array([{"a": "b", "b": "c", "c": "a"}[name] for name in cells[1]])
    settings = {**QUICK, "max_epochs": 25, "steps_per_epoch": 2}

    def fit(patience: int | None) -> TabNetClassifier:
        return TabNetClassifier(**settings, patience=patience).fit(*cells, validation=(cells[0], wrong))

    accuracy = fit(None).history_["validation_accuracy"]
    assert len(accuracy) == 25
    for patience in (1, 2):
        stopped = fit(patience)
        n_epochs = len(stopped.history_)
        assert n_epochs < 25 and stopped.history_["validation_accuracy"].tolist() == accuracy[:n_epochs].tolist()
        assert accuracy[n_epochs - patience : n_epochs].max() < accuracy[: n_epochs - patience].max()
        assert stopped.best_epoch_ == n_epochs - patience


@pytest.mark.parametrize(("factor", "patience", "expected"), [(0.1, 0, [1, 1, 0.1, 0.01]), (0.5, 1, [1, 1, 1, 0.5])])
def test_without_a_lower_loss_the_learning_rate_falls(cells: Cells, factor, patience, expected) -> None:
    """Steps of a millionth lower no loss, nor do running means that begin where the means of the only batch are."""
    x, rates = cells[0].toarray(), []
    standard = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)

    class Rates(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    still = {"learning_rate": 1e-6, "momentum": 0.0, "batch_size": 300, "steps_per_epoch": 1, "max_epochs": 4}
    settings = {"plateau_factor": factor, "plateau_patience": patience, "trainer_arguments": {"callbacks": [Rates()]}}
    TabNetClassifier(**still, **settings, patience=None).fit(standard, cells[1], validation=(standard, cells[1]))
    np.testing.assert_allclose(rates, 1e-6 * np.array(expected))


def test_the_same_seed_gives_the_same_network(cells: Cells) -> None:
    first, second = (TabNetClassifier(**QUICK).fit(*cells).class_scores(cells[0]) for _ in range(2))
    assert np.array_equal(first, second)


def test_planted_markers_have_the_largest_shares(cells: Cells, fitted: TabNetClassifier) -> None:
    planted = np.arange(40) < 6
    assert fitted.score(*cells) > 0.9
    assert average_precision_score(planted, fitted.feature_importances_) > 0.5 > 2 * planted.mean()


def test_shares_add_up_and_explain_what_the_cell_is_scored_by(cells: Cells, fitted: TabNetClassifier) -> None:
    x, y = cells
    shares = fitted.explain(x)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.shape == x.shape and shares.nnz < 0.9 * x.shape[0] * x.shape[1]
    np.testing.assert_allclose(explain_types(fitted, x, y).sum(), 1)
    by_cell = explain_cells(fitted, x, n_genes=40, cells=[f"cell {i}" for i in range(300)])
    rebuilt = by_cell.pivot(index="cell", columns="gene", values="share").fillna(0)
    rebuilt = rebuilt.reindex(index=[f"cell {i}" for i in range(300)], columns=fitted.gene_names_, fill_value=0)
    np.testing.assert_allclose(rebuilt, shares.toarray())
    assert (by_cell.groupby("cell")["share"].diff().dropna() <= 0).all()
    assert len(explain_cells(fitted, x[:7], n_genes=2)) <= 14
    assert plot_type_shares(explain_types(fitted, x, y), n_genes=1).get_images()[0].get_array().max() == 1


def test_a_cell_is_scored_and_explained_alike_in_any_company(cells: Cells, fitted: TabNetClassifier) -> None:
    x = cells[0]
    np.testing.assert_allclose(fitted.class_scores(x)[5:6], fitted.class_scores(x[5:6].toarray()), rtol=1e-12)
    np.testing.assert_allclose(fitted.explain(x)[5:6].toarray(), fitted.explain(x[5:6]).toarray(), atol=1e-12)
    assert fitted.embed(x).shape == (300, 8)
    np.testing.assert_allclose(fitted.predict_proba(x).sum(axis=1), 1)


def test_shares_of_a_cell_whose_steps_decide_nothing_are_the_mean_of_its_masks() -> None:
    torch.manual_seed(0)
    network = _TabNetNet(_TabNetShape(n_genes=5), 2).eval()
    masks = torch.rand(3, 4, 5)
    network.encoder.steps = lambda x: ((mask, torch.zeros(4, 8)) for mask in masks)  # type: ignore[method-assign]
    torch.testing.assert_close(network.gene_shares(torch.zeros(4, 5)), masks.mean(dim=0))


def test_a_saved_model_is_the_same_model(cells: Cells, fitted: TabNetClassifier, tmp_path: Path) -> None:
    save_model(fitted, tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, TabNetClassifier) and again.get_params() == fitted.get_params() | {"random_state": 0}
    np.testing.assert_array_equal(again.class_scores(cells[0]), fitted.class_scores(cells[0]))
    pd.testing.assert_frame_equal(rank_genes(again), rank_genes(fitted))
    assert again.best_epoch_ == fitted.best_epoch_ and len(again.history_) == len(fitted.history_)


def test_the_masking_curve_ends_at_the_models_own_accuracy(cells: Cells, fitted: TabNetClassifier) -> None:
    curve = masking_curve(fitted, *cells, rank_genes(fitted), step=20)
    assert curve["n_genes"].tolist() == [0, 20, 40]
    assert curve["accuracy"].iloc[-1] == fitted.score(*cells) > curve["accuracy"].iloc[0]


def test_a_training_that_was_cut_off_goes_on_and_logs_every_step(cells: Cells, tmp_path: Path) -> None:
    whole = {**QUICK, "max_epochs": 4, "patience": None}
    at_once = TabNetClassifier(**whole, log_folder=tmp_path / "once").fit(*cells)
    TabNetClassifier(**{**whole, "max_epochs": 2}, log_folder=tmp_path / "cut").fit(*cells)
    resumed = TabNetClassifier(**whole, log_folder=tmp_path / "cut", resume=True).fit(*cells)
    np.testing.assert_array_equal(resumed.class_scores(cells[0]), at_once.class_scores(cells[0]))
    logged = pd.read_csv(tmp_path / "once" / "csv" / "metrics.csv")
    assert logged["step_loss"].count() == 40 and logged["validation_f1_a"].count() == 4
    with pytest.raises(InputError, match="its learning_rate is 0.01, not 0.5"):
        TabNetClassifier(**whole, learning_rate=0.5, log_folder=tmp_path / "cut", resume=True).fit(*cells)


def test_an_epoch_is_thirty_batches_where_a_pass_is_shorter(cells: Cells) -> None:
    settings = {**QUICK, "steps_per_epoch": None, "max_epochs": 1}
    assert TabNetClassifier(**settings).fit(*cells).history_["step"].tolist() == [30]
    assert TabNetClassifier(**{**settings, "batch_size": 4}).fit(*cells).history_["step"].iloc[0] > 60


def test_trainer_arguments_reach_the_trainer_and_win(cells: Cells) -> None:
    limited = TabNetClassifier(**QUICK, trainer_arguments={"max_epochs": 1}).fit(*cells)
    free = TabNetClassifier(**{**QUICK, "max_epochs": 1}, trainer_arguments={"gradient_clip_val": 1e-6}).fit(*cells)
    assert len(limited.history_) == 1 and not np.array_equal(limited.gene_shares_, free.gene_shares_)


def test_measures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    measures = _tabnet_measures(["x", "y", "z"])
    for _ in range(2):  # as after two epochs
        measures.reset()
        true, found = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
        measures.update(torch.from_numpy(found), torch.from_numpy(true))
    values = {name: float(value) for name, value in measures.compute().items()}
    f1 = f1_score(true, found, average=None)
    assert values["median_f1"] == pytest.approx(np.median(f1)) and values["f1_y"] == pytest.approx(f1[1])
    assert values["precision"] == pytest.approx(precision_score(true, found, average="macro"))
    assert values["weighted_accuracy"] == pytest.approx(values["accuracy"]) == pytest.approx((true == found).mean())
    assert values["recall"] == pytest.approx(values["balanced_accuracy"])


@pytest.mark.parametrize("scale", [0.001, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("shape", [(40, 300), (5, 1), (3, 40), (2, 3, 50)])
def test_shares_are_those_of_the_package_that_sorts(shape: tuple[int, ...], scale: float) -> None:
    torch.manual_seed(0)
    scores = scale * torch.randn(shape)
    scores[0] = scores[0].round()  # equal scores
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    shares, expected = _SparsemaxFunction.apply(ours), SparsemaxFunction.apply(theirs, -1)
    torch.testing.assert_close(shares, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(shape[:-1]), rtol=1e-5, atol=1e-5)
    slope = torch.randn(shape)
    for each in (shares, expected):
        (each * slope).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_pretraining_learns_and_its_encoder_is_where_training_starts(cells: Cells) -> None:
    x, y = cells
    encoder = pretrain_tabnet(x, model_settings={**QUICK, "max_epochs": 12, "patience": None})
    rebuilt = encoder.history["validation_rebuilt"]
    assert rebuilt.iloc[-1] > rebuilt.iloc[0] and rebuilt.iloc[-1] > 0
    plain, started = (TabNetClassifier(**QUICK, pretrained=start).fit(x, y) for start in (None, encoder))
    assert not np.array_equal(plain.class_scores(x), started.class_scores(x))
    again = pretrain_tabnet(x.toarray(), model_settings={**QUICK, "max_epochs": 12, "patience": None})
    assert all(torch.equal(again.weights[name], value) for name, value in encoder.weights.items())
    with pytest.raises(InputError, match="pretrained on other genes, or in another order; pretrain it on these"):
        TabNetClassifier(**QUICK, pretrained=encoder).fit(x, y, gene_names=[f"h{i}" for i in range(40)])
    with pytest.raises(InputError, match="pretrained with n_steps=3, and this has n_steps=2; give both the same"):
        TabNetClassifier(**QUICK, n_steps=2, pretrained=encoder).fit(x, y)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mask": "softmax"}, "mask is 'softmax'; it must be one of 'sparsemax', 'entmax'"),
        ({"gamma": 0.5}, "gamma is 0.5; it must be 1 or more"),
        ({"n_steps": 0}, "n_steps is 0; it must be 1 or more"),
        ({"n_shared": 0, "n_independent": 0}, "n_independent and n_shared are both 0; a step needs at least one layer"),
    ],
)
def test_impossible_shapes_are_refused(cells: Cells, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        TabNetClassifier(**QUICK, **settings).fit(*cells)
    assert str(refusal.value) == sentence


def test_explanations_refuse_what_does_not_fit(cells: Cells, fitted: TabNetClassifier) -> None:
    with pytest.raises(InputError, match="there are 300 cells and 2 types; one type for each cell is needed"):
        explain_types(fitted, cells[0], cells[1][:2])
    with pytest.raises(InputError, match="there are 2 names for 300 cells; pass one for each"):
        explain_cells(fitted, cells[0], cells=["x", "y"])


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch_tabnet"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorch_tabnet", None)
    monkeypatch.delitem(sys.modules, "selectormlp.tabnet")
    with pytest.raises(InputError, match=r"TabNet needs the package pytorch-tabnet: pip install 'selectormlp\[sims\]"):
        make_classifier("tabnet")
    monkeypatch.undo()
    assert importlib.import_module("selectormlp.tabnet").TabNetClassifier is TabNetClassifier
