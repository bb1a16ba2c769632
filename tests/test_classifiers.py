"""Training and the classifiers: presets and settings that all do something, resuming, saving, and what is refused."""

from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC

from selectormlp.classifiers import (
    _MLP_CONDITIONS,
    CONDITIONS,
    LinearSVMClassifier,
    SelectorMLPClassifier,
    _balanced_weights,
    _dual_is_quicker,
    make_classifier,
)
from selectormlp.data import InputError
from selectormlp.models import NetworkShape, SelectorNet
from selectormlp.training import (
    _REPORT,
    _ROBUST,
    TrainingProtocol,
    _BatchLoader,
    _CodedCells,
    train_network,
    training_protocol,
)

SMALL = {"hidden_sizes": (16, 8), "max_epochs": 2}


@pytest.fixture(scope="module")
def cells() -> tuple[sparse.csr_matrix, np.ndarray]:
    """300 cells of three unequal types, 40 genes, the first six of them markers."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], [180, 90, 30])
    x = rng.poisson(0.5, size=(300, 40)).astype(np.float32)
    for i, name in enumerate("abc"):
        x[np.ix_(y == name, [2 * i, 2 * i + 1])] += rng.poisson(4, size=((y == name).sum(), 2))
    order = rng.permutation(300)
    return sparse.csr_matrix(np.log1p(x[order])), y[order]


CHANGES = {
    "max_epochs": 3, "steps_per_epoch": 2, "batch_size": 64, "learning_rate": 1e-2, "selector_learning_rate": 0.1,
    "selector_start": "normal", "weight_decay": 5.0, "selector_weight_decay": 5.0, "noise": 1.0, "cosine": False,
    "penalty_weight": 10.0, "relative_penalty": False, "measured_cells": 50,
}  # fmt: skip
BELOW = {"patience", "unwatched_share"}
ELSEWHERE = {"batch_norm", "scale_genes", "balance_types", "scale_free_ranking"}  # used by the classifiers, see below


def test_every_field_of_the_protocol_is_tried() -> None:
    assert set(CHANGES) | BELOW | ELSEWHERE == {field.name for field in fields(TrainingProtocol)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_of_the_protocol_changes_the_training(name: str, cells) -> None:
    x, y = cells
    part = _CodedCells(x, np.unique(y, return_inverse=True)[1], np.ones(len(y), dtype=np.float32))
    base = replace(_ROBUST, max_epochs=2, steps_per_epoch=4)

    def outcome(protocol: TrainingProtocol) -> str:
        torch.manual_seed(0)
        shape = NetworkShape(n_genes=40, n_types=3, hidden_sizes=(8,), start=protocol.selector_start)
        network = SelectorNet(shape)
        result = train_network(network, train=part, validation=part, protocol=protocol, penalty="l1")
        weights = {key: value.double().sum().item() for key, value in network.state_dict().items()}
        return f"{weights} {result.history.to_csv()} {result.best_epoch}"

    assert outcome(base) == outcome(base)
    assert outcome(base) != outcome(replace(base, **{name: CHANGES[name]}))


def test_patience_counts_the_epochs_since_the_best_that_was_watched(cells) -> None:
    """Whatever path the training takes: with validation cells of the wrong types, it gets worse as it learns."""
    x, y = cells
    part = _CodedCells(x, np.unique(y, return_inverse=True)[1], np.ones(len(y), dtype=np.float32))
    wrong = replace(part, codes=(part.codes + 1) % 3)

    def train(**changes):
        torch.manual_seed(0)
        network = SelectorNet(NetworkShape(n_genes=40, n_types=3, hidden_sizes=(8,), start="one"))
        protocol = replace(_ROBUST, max_epochs=20, steps_per_epoch=4, learning_rate=3e-3, **changes)
        return train_network(network, train=part, validation=wrong, protocol=protocol)

    whole = train(patience=None)
    measured = whole.history["validation_balanced_accuracy"].tolist()
    assert whole.best_epoch == len(measured) == 20
    for patience, share in ((1, 0.0), (2, 0.0), (1, 0.2)):
        stopped = train(patience=patience, unwatched_share=share)
        watched = stopped.history["validation_balanced_accuracy"].tolist()[max(0, int(20 * share) - 1) :]
        assert measured[: len(stopped.history)] == stopped.history["validation_balanced_accuracy"].tolist()
        assert stopped.best_epoch == len(stopped.history) - patience < 20 - patience
        assert len(watched) > patience and max(watched[-patience:]) < max(watched[:-patience]) == watched[-patience - 1]
    assert train(patience=1, unwatched_share=1.0).best_epoch == 20


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "report"}, {"selector": "none"}, {"penalty": "l2"}, {"penalty": "l1_l2"},
        {"penalty": "none"}, {"penalty_weight": 10.0}, {"hidden_sizes": (16, 9)}, {"dropout": 0.0},
        {"batch_norm": False}, {"leak": 0.5}, {"noise": 1.0}, {"max_epochs": 3}, {"steps_per_epoch": 5},
        {"batch_size": 64}, {"learning_rate": 1e-2}, {"selector_learning_rate": 0.1},
        {"weight_decay": 5.0}, {"scale_genes": False},
        {"balance_types": False}, {"validation_fraction": 0.4}, {"random_state": 1},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_of_the_classifier_has_an_effect(change: dict, cells) -> None:
    def outcome(**settings) -> np.ndarray:
        return SelectorMLPClassifier(**{**SMALL, **settings}).fit(*cells).class_scores(cells[0])

    assert (outcome() == outcome()).all()
    assert not np.array_equal(outcome(), outcome(**change))


def test_clamping_has_an_effect_where_weights_would_leave_zero_to_one(cells) -> None:
    models = [
        SelectorMLPClassifier(**SMALL, protocol="report", selector=kind).fit(*cells) for kind in ("free", "clamped")
    ]
    free, clamped = (model.network_.selector.gene_weights() for model in models)
    assert free.min() < 0 and free.max() > 1 and clamped.min() >= 0 and clamped.max() <= 1


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "report"},
        {"penalty": "l2"},
        {"C": 0.01},
        {"scale_genes": False},
        {"balance_types": False},
    ],
    ids=str,
)
def test_every_setting_of_the_svm_has_an_effect(change: dict, cells) -> None:
    scores = [LinearSVMClassifier(**settings).fit(*cells).class_scores(cells[0]) for settings in ({}, change)]
    assert not np.allclose(*scores)


@pytest.mark.slow
@pytest.mark.parametrize("n_types", [2, 3])
@pytest.mark.parametrize("protocol", ["robust", "report"])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("with_markers", [False, True])
def test_svm_has_the_decision_values_of_scikit_learn(n_types, protocol, penalty, with_markers, cells) -> None:
    kept = cells[1] != "c" if n_types == 2 else cells[1] != ""
    x, y = cells[0][kept][:, 0 if with_markers else 6 :], cells[1][kept]
    settings = {"protocol": protocol, "penalty": penalty, "max_iter": 50_000}
    one, two = (LinearSVMClassifier(**settings, n_jobs=n_jobs).fit(x, y) for n_jobs in (1, 2))
    scaled = sparse.csr_matrix(x.multiply(1 / one.gene_scale_), dtype=float)
    weights = _balanced_weights(np.unique(y, return_inverse=True)[1]) if protocol == "robust" else None
    strength = 0.1 if protocol == "robust" else 1.0
    theirs = LinearSVC(penalty=penalty, dual=False, C=strength, tol=1e-7, max_iter=200_000, random_state=0)
    expected = theirs.fit(scaled, y, sample_weight=weights).decision_function(scaled)
    for model in (one, two):
        np.testing.assert_allclose(model.decision_function(x), expected, atol=0.05 if penalty == "l1" else 0.005)
        assert (model.predict(x) == theirs.predict(scaled)).mean() > 0.99


def test_svm_takes_the_dual_only_where_few_cells_lie_within_the_margin(cells) -> None:
    x, y = cells
    codes = np.unique(y, return_inverse=True)[1]
    machine = LinearSVMClassifier(penalty="l2")._machine()
    far = np.abs(np.random.default_rng(0).normal(size=(300, 3))) * 20  # how far a cell lies from the other types
    apart = sparse.csr_matrix(np.hstack([np.eye(3)[codes] * far, np.random.default_rng(1).normal(size=(300, 97))]))
    for matrix, quicker in ((apart, True), (x[:, 6:], False), (x[:20], True)):
        some = _CodedCells(matrix.astype(float), codes[: matrix.shape[0]], np.ones(matrix.shape[0]))
        assert _dual_is_quicker(machine, some) is quicker


@pytest.mark.parametrize("form", ["coo", "csc", "lil"])
def test_any_sparse_format_is_as_good_as_csr(form, cells) -> None:
    x, y = cells
    other = x.asformat(form)
    for make in (LinearSVMClassifier, partial(SelectorMLPClassifier, max_epochs=1, steps_per_epoch=3)):
        model, usual = make().fit(other, y), make().fit(x, y)
        np.testing.assert_allclose(model.class_scores(other), usual.class_scores(x), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model.feature_importances_, usual.feature_importances_, rtol=1e-5)


def test_svm_warns_once_when_it_did_not_converge(cells) -> None:
    for penalty in ("l1", "l2"):
        with pytest.warns(ConvergenceWarning, match="Liblinear failed to converge in 2 passes") as caught:
            LinearSVMClassifier(penalty=penalty, max_iter=2).fit(*cells)
        assert len(caught) == 1


@pytest.mark.parametrize("condition", [*CONDITIONS.index, *_MLP_CONDITIONS, "selector_l1_l2"])
@pytest.mark.parametrize("protocol", ["robust", "report"])
@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
def test_every_condition_learns_predicts_and_ranks(condition: str, protocol: str, cells) -> None:
    settings = {} if condition.startswith("svm") else SMALL
    model = make_classifier(condition, protocol=protocol, model_settings=settings).fit(*cells)
    assert set(model.predict(cells[0])) <= {"a", "b", "c"}
    assert model.feature_importances_.shape == (40,) and (model.feature_importances_ >= 0).all()


def test_rankings_of_the_report_are_its_formulas(cells) -> None:
    selector = make_classifier("selector_l1", protocol="report", model_settings=SMALL).fit(*cells)
    mlp = make_classifier("mlp", protocol="report", model_settings=SMALL).fit(*cells)
    np.testing.assert_allclose(selector.feature_importances_, selector.network_.selector.weight.detach().abs())
    np.testing.assert_allclose(mlp.feature_importances_, mlp.network_.first.weight.detach().abs().sum(0), rtol=1e-6)


def test_robust_ranking_is_scale_free(cells) -> None:
    model = SelectorMLPClassifier(**SMALL).fit(*cells)
    before = model.feature_importances_
    with torch.no_grad():
        model.network_.selector.weight[3] *= 100
        model.network_.first.weight[:, 3] /= 100
    np.testing.assert_allclose(model.feature_importances_, before, rtol=1e-5)
    units = np.ones(40, dtype=np.float32)
    units[5] = 1000  # one gene in other units
    again = SelectorMLPClassifier(**SMALL).fit(sparse.csr_matrix(cells[0].multiply(units)), cells[1])
    np.testing.assert_allclose(again.feature_importances_[5] / before[5], 1, rtol=0.2)


def test_report_protocol_is_the_reports() -> None:
    assert (
        _REPORT.max_epochs,
        _REPORT.batch_size,
        _REPORT.learning_rate,
        _REPORT.weight_decay,
        _REPORT.noise,
    ) == (
        50,
        256,
        3e-4,
        0.3,
        0.2,
    )
    assert _REPORT.penalty_weight == 0.1 and not _REPORT.relative_penalty
    assert _REPORT.steps_per_epoch is None and _REPORT.patience is None and not _REPORT.scale_genes
    default = SelectorMLPClassifier()
    assert (default.hidden_sizes, default.dropout, default.leak) == ((512, 128, 64), 0.3, 0.2)


REPORT_BATCH_NORM = {  # in the original's code: its selectors, what it retrains and its best MLP have none
    "selector_none": False, "selector_l1": False, "selector_l2": False, "selector_clamped_l1": False, "mlp": False,
    "mlp_final": True, "mlp_no_dropout": True, "mlp_no_batch_norm": False, "mlp_no_noise": True, "mlp_nothing": False,
}  # fmt: skip


@pytest.mark.parametrize(("condition", "normalised"), REPORT_BATCH_NORM.items())
def test_batch_norm_is_where_the_report_has_it(condition: str, normalised: bool, cells) -> None:
    def has_it(protocol: str, **settings) -> bool:
        model = make_classifier(condition, protocol=protocol, model_settings={**SMALL, "max_epochs": 1})
        model.set_params(**settings).fit(*cells)
        return any(isinstance(part, torch.nn.BatchNorm1d) for part in model.network_.modules())

    assert has_it("report") is normalised
    assert has_it("report", batch_norm=not normalised) is not normalised
    assert has_it("robust") is (condition not in ("mlp_no_batch_norm", "mlp_nothing"))


@pytest.mark.parametrize("protocol", ["robust", "report"])
def test_history_tells_the_two_parts_of_what_is_minimised(protocol: str, cells) -> None:
    settings = {**SMALL, "protocol": protocol, "noise": 0.0, "dropout": 0.0}
    plain = {**settings, "learning_rate": 1e-12, "selector_learning_rate": 1e-12, "weight_decay": 0.0}
    model = SelectorMLPClassifier(**plain, batch_norm=False, penalty_weight=0.3, steps_per_epoch=7).fit(*cells)
    weight = model.network_.selector.weight.detach().abs()
    wanted = 0.3 * float(weight.mean() if protocol == "robust" else weight.sum())
    np.testing.assert_allclose(model.history_["penalty"], wanted, rtol=1e-4)
    np.testing.assert_allclose(model.history_["batch_loss"], model.history_["train_loss"], rtol=0.1)
    without = SelectorMLPClassifier(**settings, penalty="none").fit(*cells).history_
    assert (without["penalty"] == 0).all() and (without["batch_loss"] > 0).all()


def test_classifier_resumes_with_the_same_weights(tmp_path, cells) -> None:
    whole = SelectorMLPClassifier(**{**SMALL, "max_epochs": 4}).fit(*cells)
    cut = SelectorMLPClassifier(
        **{**SMALL, "max_epochs": 4}, log_folder=tmp_path, trainer_arguments={"max_epochs": 2}
    ).fit(*cells)
    assert len(cut.history_) == 2
    resumed = SelectorMLPClassifier(**{**SMALL, "max_epochs": 4}, log_folder=tmp_path, resume=True).fit(*cells)
    assert (resumed.class_scores(cells[0]) == whole.class_scores(cells[0])).all()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "csv", "tensorboard"}


def test_users_callbacks_and_loggers_pass_through(tmp_path, cells) -> None:
    from pytorch_lightning import Callback
    from pytorch_lightning.loggers import CSVLogger

    class Count(Callback):
        seen = 0

        def on_train_epoch_end(self, trainer, pl_module) -> None:
            Count.seen += 1

    arguments = {"callbacks": [Count()], "logger": CSVLogger(tmp_path, name="mine")}
    SelectorMLPClassifier(**SMALL, trainer_arguments=arguments).fit(*cells)
    assert Count.seen == 2 and list(tmp_path.glob("mine/*/metrics.csv"))


def test_sparse_dense_clone_and_pipeline_agree(cells) -> None:
    x, y = cells
    model = SelectorMLPClassifier(**SMALL).fit(x, y)
    dense = clone(model).fit(x.toarray(), y)
    np.testing.assert_allclose(dense.class_scores(x.toarray()), model.class_scores(x), atol=1e-2)
    assert make_pipeline(MaxAbsScaler(), SelectorMLPClassifier(**SMALL)).fit(x, y).score(x, y) > 0.3
    two = y != "c"
    for kind in (model, LinearSVMClassifier()):
        binary = clone(kind).fit(x[two], y[two])
        assert binary.decision_function(x).shape == (300,) and binary.class_scores(x).shape == (300, 2)
        assert ((binary.decision_function(x) > 0) == (binary.predict(x) == "b")).all()


def test_refusals_of_fit(cells) -> None:
    x, y = cells
    model = SelectorMLPClassifier(**SMALL)
    with pytest.raises(InputError, match="only one class, 'a'"):
        model.fit(x, np.repeat("a", len(y)))
    with pytest.raises(InputError, match="type 'd', which no training cell has"):
        model.fit(x, y, validation=(x, np.where(y == "c", "d", y)))
    with pytest.raises(InputError, match="gene_names has 2 names"):
        model.fit(x, y, gene_names=["g", "h"])
    with pytest.raises(InputError, match="protocol is 'fast'"):
        SelectorMLPClassifier(protocol="fast").fit(x, y)
    with pytest.raises(InputError, match="validation_fraction is 2"):
        SelectorMLPClassifier(validation_fraction=2).fit(x, y)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full((300, 40), np.nan), y)
    with pytest.raises(InputError, match="takes no 'epochs'; did you mean 'max_epochs'"):
        training_protocol("robust", {"epochs": 3})


def test_balanced_weights_give_every_type_the_same_say() -> None:
    codes = np.array([0] * 90 + [2] * 10)
    weights = _balanced_weights(codes)
    assert np.isclose(weights[codes == 0].sum(), weights[codes == 2].sum()) and np.isclose(weights.mean(), 1)


def test_cells_kept_in_a_gpus_memory_give_the_same_training(monkeypatch, cells) -> None:
    """Here the processor's memory plays the GPU's: what is tried is the cutting of batches on the device."""
    from selectormlp import training

    settings = {**SMALL, "steps_per_epoch": 3}
    usual = SelectorMLPClassifier(**settings).fit(*cells)
    held = []
    monkeypatch.setattr(training, "_free_memory", lambda device: 2 * 4 * 40 * 300)  # the training cells are fewer
    monkeypatch.setattr(
        training, "_BatchLoader", lambda cells, **more: held.append(cells.x) or _BatchLoader(cells, **more)
    )
    there = SelectorMLPClassifier(**settings).fit(*cells)
    assert len(held) == 3 and all(isinstance(x, torch.Tensor) for x in held)
    assert (there.class_scores(cells[0]) == usual.class_scores(cells[0])).all()
    assert there.history_.equals(usual.history_)


def test_cells_that_do_not_fit_a_gpus_memory_stay_where_they_are(monkeypatch, cells) -> None:
    from selectormlp import training

    part = _CodedCells(cells[0], np.zeros(300, dtype=int), np.ones(300, dtype=np.float32))
    monkeypatch.setattr(training, "_free_memory", lambda device: 2 * 4 * 40 * 300 - 1)
    assert training._cells_on(torch.device("cpu"), part) is part
    monkeypatch.undo()
    assert training._cells_on(torch.device("cpu"), part) is part


def test_a_network_learns_in_sixteen_bits(cells) -> None:
    settings = {**SMALL, "learning_rate": 1e-2}
    exact = SelectorMLPClassifier(**settings).fit(*cells)
    rounded = SelectorMLPClassifier(**settings, trainer_arguments={"precision": "bf16-mixed"}).fit(*cells)
    one, two = (model.class_scores(cells[0]) for model in (exact, rounded))
    assert (one != two).any() and np.abs(one - two).max() < 0.1 * np.abs(one).max()
    assert rounded.score(*cells) > 0.9 and rounded.network_.first.weight.dtype == torch.float32


def test_two_processes_share_each_batch(monkeypatch) -> None:
    from selectormlp import training

    part = _CodedCells(np.eye(10, dtype=np.float32), np.arange(10), np.ones(10, dtype=np.float32))
    seen = []
    for rank in (0, 1):
        monkeypatch.setattr(training, "_this_process", lambda rank=rank: (rank, 2))
        seen.append([code for _, codes, _ in _BatchLoader(part, batch_size=4, shuffle=True) for code in codes.tolist()])
    assert sorted(seen[0] + seen[1]) == list(range(10)) and not set(seen[0]) & set(seen[1])


def test_hidden_layers_can_be_looked_at(cells) -> None:
    import torch

    x, y = cells
    model = SelectorMLPClassifier(**SMALL | {"hidden_sizes": (16, 8)}).fit(x, y)
    assert model.embed(x, layer=0).shape == (300, 16)
    last = model.embed(x)
    assert last.shape == (300, 8) and (model.embed(x, layer=1) == last).all()
    with torch.no_grad():
        scores = model.network_.rest[-1](torch.from_numpy(last)).numpy()
    np.testing.assert_allclose(scores, model.class_scores(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="layer is 2, and there are 2 hidden layers: 0 to 1"):
        model.embed(x, layer=2)


def test_the_first_network_is_that_of_its_chapter(cells) -> None:
    from torch import nn

    model = make_classifier("first", model_settings={"max_epochs": 1}).fit(*cells)
    kinds = [type(layer).__name__ for layer in model.network_.rest]
    assert kinds == ["LeakyReLU", "_Dropout", "Linear"] * 3 and model.network_.selector is None
    assert [layer.in_features for layer in model.network_.rest if isinstance(layer, nn.Linear)] == [1028, 256, 128]
    assert {layer.negative_slope for layer in model.network_.rest if isinstance(layer, nn.LeakyReLU)} == {0.0}
    assert make_classifier("first", model_settings={"max_epochs": None}).max_epochs == 10
