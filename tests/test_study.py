"""Masking, panels, scores and the study: exact against the plain way, and safe in its folder."""

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from selectormlp.classifiers import make_classifier
from selectormlp.data import InputError, normalise, prepare_cells
from selectormlp.evaluation import compare_panels, confusion_table, score_panel, score_predictions
from selectormlp.masking import masking_curve, predict_masked, random_masking_curve, rank_genes
from selectormlp.panels import GenePanel, panel_overlap, read_panel
from selectormlp.simulation import simulate_cells
from selectormlp.split import split_cells
from selectormlp.study import Study, StudyConfig, run_study, study_config, study_steps

SMALL = {"hidden_sizes": (16, 8), "max_epochs": 2}


@pytest.fixture(scope="module")
def counts() -> AnnData:
    """700 simulated cells of four types, 120 genes."""
    return simulate_cells(
        n_cells=700, n_genes=120, n_types=4, n_housekeeping=5, library_size=400, size_ratio=3, seed=0
    )


@pytest.fixture(scope="module")
def parts(counts) -> tuple:
    cells = normalise(counts)
    split = split_cells(cells, "cell_type")
    return tuple(
        (part.X, part.obs["cell_type"].to_numpy().astype(str))
        for part in (split.subset(cells, name) for name in ("train", "validation"))
    )


@pytest.mark.parametrize("condition", ["selector_l1", "selector_clamped_l1", "mlp", "mlp_nothing", "svm_l1"])
@pytest.mark.parametrize("step", [1, 50, 1000])
def test_masking_curve_is_the_plain_one(condition: str, step: int, parts) -> None:
    (X, y), (X_validation, y_validation) = parts
    model = make_classifier(condition, **({} if condition == "svm_l1" else SMALL)).fit(X, y)
    ranking = rank_genes(model)
    curve = masking_curve(model, X_validation, y_validation, ranking, step=step)
    assert curve["n_genes"].iloc[[0, -1]].tolist() == [0, 120]
    for _, point in curve[:: max(1, len(curve) // 5)].iterrows():
        kept = np.isin(model.gene_names_, ranking["gene"][: int(point["n_genes"])])
        covered = sparse.csr_matrix(X_validation.toarray() * kept)
        expected = model.predict(covered)
        assert np.isclose(point["accuracy"], (expected == y_validation).mean(), atol=1.5 / len(y_validation))
        assert np.isclose(
            point["balanced_accuracy"], balanced_accuracy_score(y_validation, expected), atol=0.03
        )
        assert (predict_masked(model, X_validation, model.gene_names_[kept]) == expected).mean() > 0.98
    dense = masking_curve(model, X_validation.toarray(), y_validation, ranking, step=step)
    np.testing.assert_allclose(dense["accuracy"], curve["accuracy"], atol=1.5 / len(y_validation))


def test_masking_refuses_rankings_that_are_not_the_models(parts) -> None:
    (X, y), validation = parts
    model = make_classifier("svm_l1").fit(X, y)
    ranking = rank_genes(model)
    for wrong in (
        ranking[:-1],
        pd.concat([ranking[:-1], ranking[:1]]),
        ranking.assign(gene=ranking["gene"] + "x"),
    ):
        with pytest.raises(InputError, match="needs each gene once"):
            masking_curve(model, *validation, wrong)
    with pytest.raises(InputError, match="step is 0"):
        masking_curve(model, *validation, ranking, step=0)
    with pytest.raises(InputError, match="does not know the gene 'no'"):
        predict_masked(model, validation[0], ["no"])


def test_random_orders_are_repeatable_and_differ(parts) -> None:
    (X, y), validation = parts
    model = make_classifier("svm_l1").fit(X, y)
    one, two = (random_masking_curve(model, *validation, step=30, n_orders=3, seed=seed) for seed in (0, 0))
    pd.testing.assert_frame_equal(one, two)
    assert not random_masking_curve(model, *validation, step=30, n_orders=3, seed=1).equals(one)
    assert one.groupby("order")["accuracy"].apply(tuple).nunique() == 3


def test_ranking_does_not_depend_on_the_order_of_genes() -> None:
    class Flat:
        feature_importances_ = np.ones(4)

    assert rank_genes(Flat(), list("dbca"))["gene"].tolist() == list("abcd")
    with pytest.raises(InputError, match="3 gene names for a model of 4"):
        rank_genes(Flat(), list("abc"))


# ------------------------------------------------------------------------------------------------------------ panels


def test_panels_are_read_from_csv_and_from_plain_lists(tmp_path) -> None:
    (tmp_path / "list.txt").write_text("INS\nGCG\n")
    (tmp_path / "table.csv").write_text("gene,probe\nINS,1\nNA,2\n")
    (tmp_path / "twice.txt").write_text("INS\nGCG\nINS\n")
    assert read_panel(tmp_path / "list.txt").genes == ["INS", "GCG"]
    assert read_panel(tmp_path / "table.csv").genes == ["INS", "NA"]
    for name in ("twice.txt", "absent.csv"):
        with pytest.raises(InputError):
            read_panel(tmp_path / name)
    panels = {name: read_panel(tmp_path / f"{name}") for name in ("list.txt", "table.csv")}
    assert panel_overlap(panels).to_numpy().tolist() == [[2, 1], [1, 2]]


# ------------------------------------------------------------------------------------------------------------ scores


def test_per_class_accuracy_is_recall_not_precision() -> None:
    true, predicted = np.repeat(["a", "b"], [90, 10]), np.repeat(["a", "b"], [96, 4])
    scores = score_predictions(true, predicted)
    assert scores.per_type["recall"].tolist() == [1.0, 0.4]  # swapped arguments would give 0.9375 and 1
    assert (confusion_table(true, predicted).to_numpy() == confusion_matrix(true, predicted)).all()


def test_scores_of_types_that_are_never_predicted_or_never_true() -> None:
    scores = score_predictions(["a", "b", "b"], ["a", "c", "c"])
    assert scores.per_type["type"].tolist() == ["a", "b"] and scores.mean_per_class_accuracy == 0.5
    with pytest.raises(InputError, match="one each per cell"):
        score_predictions(["a"], ["a", "b"])


def test_scoring_a_panel_uses_its_genes_and_names_missing_ones(counts) -> None:
    cells = prepare_cells(counts, "cell_type")
    split = split_cells(cells, "cell_type")
    markers = cells.var_names[cells.var["is_marker"]][:20].tolist()
    others = cells.var_names[~cells.var["is_marker"]][:20].tolist()
    settings = {"hidden_sizes": (16,), "max_epochs": 10}
    table = compare_panels({"planted": markers, "others": others}, cells, split, "cell_type", **settings)
    assert (
        table.loc["planted", "mean_per_class_accuracy"] > table.loc["others", "mean_per_class_accuracy"] + 0.2
    )
    with pytest.raises(InputError, match="1 of the panel's 2 genes are not in the data"):
        score_panel([markers[0], "nope"], cells, split, "cell_type")


# ------------------------------------------------------------------------------------------------------------- study

QUICK = {
    "n_genes": 60, "max_epochs": 1, "step": 20, "n_orders": 2, "panel_sizes": (20, 10), "ablations": ("mlp",),
    "conditions": ("selector_l1", "svm_l1"), "panel_conditions": ("selector_l1", "svm_l1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def config(counts, tmp_path_factory) -> StudyConfig:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    counts.write_h5ad(path)
    return study_config(cells=str(path), label_key="cell_type", **QUICK)


@pytest.fixture(scope="module")
def study(config, tmp_path_factory) -> Study:
    return run_study(config, tmp_path_factory.mktemp("run"), progress=False)


def tables_of(config: StudyConfig, folder: Path) -> dict[str, bytes]:
    """What a study leaves without its figures, which take longer than the rest."""
    for name, step in study_steps(Study(config, folder)):
        if not name.startswith("figure") and name != "page":
            step()
    return tables(folder)


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a run folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.csv")
        if "logs" not in path.parts
    }


def test_study_leaves_what_it_promises(study) -> None:
    names = {path.name for path in study.folder.iterdir()}
    assert names >= {
        "config.json",
        "split.csv",
        "genes.csv",
        "models",
        "rankings.csv",
        "masking.csv",
        "panels",
    }
    assert names >= {"panel_masking.csv", "overlap.csv", "scores.csv", "figures", "report.html"}
    assert {path.name for path in (study.folder / "figures").iterdir()} == {
        f"figure{i}.png" for i in range(1, 7)
    }
    masking = study.masking()
    assert {0, 60} <= set(masking["n_genes"])
    assert set(study.scores()["type"]) == set(study.types())
    assert len(pd.read_csv(study.folder / "panels" / "selector_l1_top20.csv")) == 20
    assert not list(study.folder.rglob("*.ckpt")) and not list(study.folder.rglob(".*"))


def test_study_that_was_cut_off_ends_with_the_same_tables(config, study, tmp_path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(study.folder, copy)
    for name in ("rankings.csv", "masking.csv", "scores.csv", "panel_masking.csv"):
        (copy / name).unlink()
    for name in ("models/svm_l1", "models/mlp", "models/selector_l1_top10", "panels"):
        shutil.rmtree(copy / name)
    assert tables_of(config, copy) == tables(study.folder)


def test_genes_are_chosen_on_training_cells_only(config, counts, study, tmp_path) -> None:
    changed = counts.copy()
    test = changed.obs_names.isin(study.split().cells("test"))
    values = changed.X.toarray()
    values[test] = np.random.default_rng(1).poisson(3, size=values[test].shape)
    changed.X = sparse.csr_matrix(values.astype(np.float32))
    changed.write_h5ad(tmp_path / "cells.h5ad")
    other = Study(replace(config, cells=str(tmp_path / "cells.h5ad")), tmp_path / "run")
    assert other.genes() == study.genes()
    np.testing.assert_array_equal(other.model("svm_l1").coef_, study.model("svm_l1").coef_)


EFFECTS = {
    "protocol": "report", "seed": 1, "max_train": 20, "max_validation": 8, "max_test": 5, "min_cells": 130,
    "n_genes": 50,
    "conditions": ("svm_l1", "selector_l1"), "ablations": ("mlp_nothing",), "max_epochs": 2, "step": 30, "n_orders": 1,
    "panel_conditions": ("svm_l1",), "panel_sizes": (15,), "panel_step": 7,
}  # fmt: skip
INPUTS = {"cells", "label_key", "labels"}


def test_every_field_of_the_study_is_tried() -> None:
    assert set(EFFECTS) | INPUTS == {field.name for field in fields(StudyConfig)}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.filterwarnings("ignore:Liblinear failed", "ignore:types with fewer")
def test_every_field_of_the_study_changes_a_table(name: str, config, study, tmp_path) -> None:
    after = tables_of(replace(config, **{name: EFFECTS[name]}), tmp_path)
    before = {name: table for name, table in tables(study.folder).items() if name != "cell_map.csv"}
    assert after != before


def test_folder_of_another_run_or_of_changed_cells_is_refused(config, counts, study, tmp_path) -> None:
    with pytest.raises(InputError, match=r"holds another run: its seed is 0, not 5; choose another folder"):
        Study(replace(config, seed=5), study.folder)
    shutil.copytree(study.folder, tmp_path / "run")
    path = tmp_path / "cells.h5ad"
    shutil.copy(config.cells, path)
    moved = replace(config, cells=str(path))
    run = Study(moved, tmp_path / "new")
    run.split()
    counts[:650].copy().write_h5ad(path)
    with pytest.raises(InputError, match="its n_cells is 700, not 650"):
        _ = Study(moved, tmp_path / "new").cells


def test_study_that_cannot_start_leaves_nothing(config, tmp_path) -> None:
    with pytest.raises(InputError):
        run_study(replace(config, label_key="celltype"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_epoch": 1}, "did you mean 'max_epochs'?"),
        ({"protocol": "fast"}, "protocol is 'fast'"),
        ({"conditions": ["mpl"]}, "there is no condition 'mpl'"),
        ({"conditions": ["mlp"], "panel_conditions": ["svm_l1"]}, "not in conditions"),
        ({"step": 0}, "must be 1 or more"),
    ],
)
def test_config_refusals(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        study_config(cells="pancreas", label_key="cell_type", **settings)


def test_panel_of_one_method_scores_like_any_other(study) -> None:
    panel = GenePanel(pd.DataFrame({"gene": study.genes()[:10]}))
    assert study.model("svm_l1", panel).coef_.shape[1] == 10
