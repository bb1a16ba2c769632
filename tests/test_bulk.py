"""Tables of samples: reading and readying them, cross-validation, its interval, and what the rest does with them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn import metrics
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from selectormlp import bulk, classifiers, data, readers
from selectormlp.data import choose_variable_genes, normalise, prepare_cells
from selectormlp.masking import masking_curve, rank_genes
from selectormlp.panels import panel_overlap
from selectormlp.pipeline import GeneSelector
from selectormlp.selection import select_genes
from selectormlp.split import split_cells


@pytest.fixture(scope="module")
def lines() -> AnnData:
    """The shipped cell lines."""
    return bulk.load_nci60()


@pytest.fixture
def frame() -> pd.DataFrame:
    """40 samples x 6 logged genes, two of which go with the phenotype in the last column."""
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(rng.normal(7, 1, (40, 6)).round(2), columns=list("ABCDEF"), index=[f"s{i}" for i in range(40)])
    sick = np.arange(40) % 2 == 1
    genes.loc[sick, ["A", "B"]] += 3
    return genes.assign(state=np.where(sick, "sick", "well"))


def written(frame: pd.DataFrame, path, **settings):
    """The path of a table that was written."""
    frame.to_csv(path, index_label="sample", **settings)
    return path


def read_quietly(*given, **settings) -> tuple[AnnData, list[str]]:
    """What is read, and the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return bulk.read_samples(*given, **settings), [str(each.message) for each in said]


# Reading


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t"), ("csv.gz", ","), ("tsv.gz", "\t")])
def test_a_table_is_read_in_both_directions(frame, tmp_path, ending, separator):
    across = bulk.read_samples(written(frame, tmp_path / f"a.{ending}", sep=separator), "state")
    labels = written(frame[["state"]], tmp_path / "labels.csv")
    turned = written(frame.drop(columns="state").T, tmp_path / f"b.{ending}", sep=separator)
    down = bulk.read_samples(turned, "state", labels=labels, genes_in="rows")
    pd.testing.assert_frame_equal(across.to_df(), down.to_df(), check_names=False)
    pd.testing.assert_frame_equal(across.obs, down.obs)
    np.testing.assert_allclose(across.to_df().to_numpy(), frame.drop(columns="state"), rtol=1e-6)
    assert list(across.obs["state"]) == list(frame["state"])


def test_samples_and_genes_may_share_names(frame, tmp_path):
    table = frame.drop(columns="state").set_axis([str(i) for i in range(40)]).set_axis(list("123456"), axis=1)
    labels = written(frame[["state"]].set_axis(table.index), tmp_path / "labels.csv")
    adata = bulk.read_samples(written(table.T, tmp_path / "table.csv"), "state", labels=labels, genes_in="rows")
    assert adata.shape == (40, 6) and list(adata.obs["state"]) == list(frame["state"])


def test_a_label_file_is_joined_by_name(frame, tmp_path, caplog):
    more = pd.concat([frame["state"].iloc[::-1], pd.Series({"x1": "sick", "x2": "well"})]).rename("state").to_frame()
    table = written(frame.drop(columns="state"), tmp_path / "table.csv")
    caplog.set_level("INFO", logger="selectormlp")
    adata, said = read_quietly(table, "state", labels=written(more.assign(age=50), tmp_path / "labels.tsv", sep="\t"))
    assert list(adata.obs["state"]) == list(frame["state"]) and list(adata.obs_names) == list(frame.index)
    assert said == [] and "2 of the 42 names" in caplog.text and list(adata.obs["age"]) == ["50"] * 40


def test_what_is_missing_is_left_out_and_counted(frame, tmp_path):
    frame.loc[["s0", "s1", "s2"], "state"] = ["", "NA", None]
    frame.loc["s5", ["C", "D"]] = np.nan
    frame["F"] = 4.0
    adata, said = read_quietly(written(frame, tmp_path / "table.csv"), "state")
    assert said == [
        "1 of 40 samples lack a value and are left out",
        "3 of 39 cells have no label in 'state' and are left out",
        "1 of 6 genes have one value in all samples and are left out",
    ]
    assert list(adata.obs_names) == [f"s{i}" for i in range(40) if i not in (0, 1, 2, 5)]
    other, said = read_quietly(tmp_path / "table.csv", "state", missing="genes")
    assert said[0] == "2 of 6 genes lack a value and are left out" and list(other.var_names) == ["A", "B", "E"]
    assert "s5" in other.obs_names


def test_a_missing_label_is_never_the_other_one(frame, tmp_path):
    frame.loc["s4", "state"] = None
    adata, _ = read_quietly(written(frame, tmp_path / "table.csv"), "state")
    assert "s4" not in adata.obs_names and set(adata.obs["state"]) == {"sick", "well"}


def test_small_labels_are_left_out_when_asked(frame, tmp_path):
    frame.loc[["s0", "s1"], "state"] = "other"
    path = written(frame, tmp_path / "table.csv")
    with pytest.raises(data.InputError, match="has 2 of the 3"):
        bulk.read_samples(path, "state")
    assert set(bulk.read_samples(path, "state", min_cells=5).obs["state"]) == {"sick", "well"}


# A clinical table

CLINICAL = """patient,age,sex,TP53,MDM2,smoking
p1,61,f,7.1,9.0,current smoker
p2,55,m,6.8,8.1,never smoked
p3,70,f,7.9,8.8,not asked
p4,48,m,5.2,9.9,stopped
p5,66,f,6.6,7.4,never smoked
p6,59,f,8.0,9.1,
p7,51,m,6.1,7.7,current smoker
p8,73,m,6.4,7.0,never smoked
"""
COUNTS_AS = {"current smoker": "yes", "stopped": "yes", "never smoked": "no"}


@pytest.fixture
def clinical(tmp_path):
    """A table with text beside its genes."""
    path = tmp_path / "clinical.csv"
    path.write_text(CLINICAL)
    return path


def test_a_clinical_table_is_read_by_its_genes_and_answers(clinical):
    adata, said = read_quietly(clinical, "smoking", genes=["MDM2", "TP53"], label_names=COUNTS_AS, values="ready")
    assert list(adata.var_names) == ["MDM2", "TP53"] and list(adata.obs["sex"]) == list("fmmfmm")
    assert dict(adata.obs["smoking"]) == {"p1": "yes", "p2": "no", "p4": "yes", "p5": "no", "p7": "yes", "p8": "no"}
    np.testing.assert_allclose(adata.to_df().loc["p7"], [7.7, 6.1], rtol=1e-6)
    assert said == ["2 of 8 cells have no label in 'smoking' and are left out"]


def test_numbers_and_label_files_can_be_renamed_too(frame, tmp_path):
    coded = frame.assign(state=(frame["state"] == "sick").astype(int), age=50)
    settings = {"genes": ["A", "B"], "label_names": {1: "sick", 0: "well"}}
    across = bulk.read_samples(written(coded, tmp_path / "a.csv"), "state", **settings)
    labels = written(coded[["state"]], tmp_path / "labels.csv")
    turned = written(frame.drop(columns="state").T, tmp_path / "b.csv")
    down = bulk.read_samples(turned, "state", labels=labels, genes_in="rows", **settings)
    for adata in (across, down):
        assert list(adata.var_names) == ["A", "B"] and list(adata.obs["state"]) == list(frame["state"])
    np.testing.assert_array_equal(across.X.toarray(), down.X.toarray())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"genes": ["TP53", "MDM4"]}, r"1 of the 2 genes are not in '.*', the first is 'MDM4'; did you mean 'MDM2'\?"),
        ({"genes": ["TP53", "sex"]}, "the column 'sex' of '.*' holds text"),
        ({"genes": ["TP53", "smoking"]}, "'smoking' is among the genes and the phenotype; take it out of genes"),
        ({"genes": []}, "genes names no column"),
        ({"genes": ["TP53"], "label_names": {"never smokd": "no"}}, "has 'never smokd', which .* mean 'never smoked'"),
        ({"genes": ["TP53"], "label_names": "yes"}, "label_names is 'yes'; pass a label for each answer"),
        ({"genes": ["TP53"], "label_names": {"stopped": "yes"}}, "'smoking'"),
        ({}, "holds text"),
    ],
)
def test_a_clinical_table_that_cannot_be_read_is_one_sentence(clinical, settings, words):
    with pytest.raises(data.InputError, match=words) as told:
        read_quietly(clinical, "smoking", values="ready", **settings)
    assert "\n" not in str(told.value)
    with pytest.raises(data.InputError, match="'nowhere.csv'"):
        bulk.read_samples("nowhere.csv", "smoking", genes=["TP53"])


def test_a_gene_column_that_is_there_twice_is_refused(clinical):
    clinical.write_text(CLINICAL.replace("MDM2", "TP53"))
    with pytest.raises(data.InputError, match="more than one column 'TP53'"):
        bulk.read_samples(clinical, "smoking", genes="TP53")


def test_a_pair_plot_shows_each_two_genes(frame):
    import matplotlib.pyplot as plt

    figure = bulk.plot_pairs(frame[["A", "B", "C"]], frame["state"])
    axes = np.array(figure.axes).reshape(3, 3)
    for row, down in enumerate("ABC"):
        for column, across in enumerate("ABC"):
            if row == column:
                assert sum(bar.get_height() for bar in axes[row, column].patches) == 40
            else:
                shown = np.vstack([dots.get_offsets() for dots in axes[row, column].collections])
                both = pd.concat([frame[frame["state"] == state] for state in ("sick", "well")])
                np.testing.assert_allclose(shown, both[[across, down]])
    plt.close("all")
    with pytest.raises(data.InputError, match="a pair plot of 1 genes cannot be read"):
        bulk.plot_pairs(frame[["A"]], frame["state"])
    with pytest.raises(data.InputError, match="there are 40 samples and 39 labels"):
        bulk.plot_pairs(frame[["A", "B"]], frame["state"][1:])


# Values


def made(values: np.ndarray) -> AnnData:
    """Samples of two kinds with these values."""
    obs = pd.DataFrame({"state": ["sick", "well"] * (len(values) // 2)}, index=[f"s{i}" for i in range(len(values))])
    var = pd.DataFrame(index=[f"g{i}" for i in range(values.shape[1])])
    return AnnData(values.astype(np.float32), obs=obs, var=var)


def test_values_are_recognised_and_made_ready():
    rng = np.random.default_rng(0)
    counts = rng.poisson(200, (12, 5)).astype(float)
    per_million = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e6)
    intensities, ratios = rng.lognormal(5, 1, (12, 5)), rng.normal(0, 2, (12, 5))
    same_totals = np.sort(rng.normal(8, 1, 5))[np.argsort(rng.normal(size=(12, 5)), axis=1)]  # quantile-normalised
    for values, kind, expected in (
        (counts, "counts", per_million), (intensities, "linear", np.log1p(intensities)), (ratios, "ready", ratios),
        (same_totals, "ready", same_totals),
    ):  # fmt: skip
        adata = bulk._prepare_samples(made(values), "state")
        assert adata.uns["values_taken_as"] == kind
        np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-5)
        np.testing.assert_allclose(normalise(adata).X.toarray(), expected, rtol=1e-5)
        again = prepare_cells(normalise(adata), "state")
        np.testing.assert_allclose(again.X.toarray(), expected, rtol=1e-5)
        assert len(choose_variable_genes(adata, 3)) == 3
    with pytest.raises(data.InputError, match="scaled"):
        prepare_cells(made(ratios), "state")  # without the note it is refused, as ever


def test_what_the_values_are_can_be_said():
    whole = np.random.default_rng(0).integers(0, 3, (12, 5))  # genotypes, say: whole numbers, and no counts
    adata = made(whole)
    kept = bulk._prepare_samples(adata, "state", values="ready")
    np.testing.assert_array_equal(kept.X.toarray(), whole)
    np.testing.assert_array_equal(adata.X, whole)
    np.testing.assert_allclose(bulk._prepare_samples(adata, "state", values="linear").X.toarray(), np.log1p(whole))
    np.testing.assert_array_equal(adata.X, whole)  # what was given is left as it was


def test_the_note_survives_a_file(tmp_path):
    ratios = np.random.default_rng(0).normal(0, 2, (12, 5))
    bulk._prepare_samples(made(ratios), "state").write_h5ad(tmp_path / "samples.h5ad")
    again = prepare_cells(readers.read_cells(tmp_path / "samples.h5ad"), "state")
    np.testing.assert_allclose(again.X.toarray(), ratios, rtol=1e-5)


# The shipped table


def test_the_cell_lines_are_what_the_readme_says(lines, root):
    import hashlib

    said = (root / "data" / "README.md").read_text()
    for name in ("expression.csv.gz", "samples.csv"):
        assert hashlib.sha256((data.data_folder() / "nci60" / name).read_bytes()).hexdigest() in said
    assert lines.shape == (50, 3000) and lines.obs["p53"].value_counts().to_dict() == {"MUT": 33, "WT": 17}
    assert lines.obs.loc["U251", "person"] == "SNB-19" and lines.obs["person"].nunique() == 48
    assert lines.uns["values_taken_as"] == "ready" and not lines.var_names.str.contains(r"^\d+-[A-Z]").any()


def test_the_panel_tools_take_the_cell_lines(lines):
    assert split_cells(lines, "p53").counts().loc["WT"].tolist() == [12, 2, 2]
    panels = {str(seed): select_genes(lines, "p53", 10, seed=seed) for seed in (0, 1)}
    assert np.diag(panel_overlap(panels)).tolist() == [10, 10]
    X, y = lines.X.toarray() - lines.X.toarray().mean(axis=0), lines.obs["p53"].to_numpy().astype(str)
    model = bulk._small_network(model_settings={"max_epochs": 2}).fit(X, y, gene_names=lines.var_names)
    curve = masking_curve(model, X, y, rank_genes(model), step=1000)
    assert curve["accuracy"].iloc[-1] == (model.predict(X) == y).mean() > 0.9


# Yes or no


def test_the_small_network_is_the_tutorials(monkeypatch):
    real, sizes = classifiers._hold_out, []

    def hold_out(cells, fraction, *, seed):
        parts = real(cells, fraction, seed=seed)
        sizes.extend(len(part.codes) for part in parts)
        return parts

    monkeypatch.setattr(classifiers, "_hold_out", hold_out)
    model = bulk._small_network(model_settings={"max_epochs": 1}).fit(
        np.random.default_rng(0).normal(size=(40, 5)), ["no", "yes"] * 20
    )
    parts = [part for part in model.network_.modules() if hasattr(part, "in_features")]
    layers = [(part.in_features, part.out_features) for part in parts]
    assert layers == [(5, 64), (64, 2)] and sizes == [38, 2]  # one sample of each label for the curves
    settings = model._settings()
    assert (settings.learning_rate, settings.weight_decay, settings.noise) == (1e-3, 0.0, 0.0)
    assert bulk._small_network(model_settings={"learning_rate": 0.1, "hidden_sizes": (8,)}).get_params()[
        "hidden_sizes"
    ] == (8,)


def test_folds_match_scikit_learn(frame):
    X, y = frame.drop(columns="state"), frame["state"]
    model = make_pipeline(StandardScaler(), LogisticRegression())
    cv = StratifiedKFold(4, shuffle=True, random_state=1)
    found = bulk.cross_validated_scores(model, X, y, positive="well", cv=cv, names=X.index)
    held_out = cross_val_predict(model, X, (y == "well").astype(int), cv=cv, method="predict_proba")[:, 1]
    said = found.per_sample().loc[X.index]
    np.testing.assert_allclose(said["probability"], held_out)
    np.testing.assert_array_equal(said["positive"], y == "well")
    assert (found.scores["n_train"] + found.scores["n_test"] == 40).all() and list(found.scores["fold"]) == [1, 2, 3, 4]
    for number, (_, test) in enumerate(cv.split(X, y)):
        true, chance = (y == "well").to_numpy()[test], held_out[test]
        row = found.scores.iloc[number]
        assert row["roc_auc"] == metrics.roc_auc_score(true, chance)
        assert row["f1"] == metrics.f1_score(true, chance >= 0.5)
        assert row["brier_score"] == pytest.approx(metrics.brier_score_loss(true, chance))


def test_each_sample_is_held_out_once_in_each_round_and_arrays_are_as_good_as_frames(frame):
    X, y = frame.drop(columns="state"), frame["state"]
    whole = bulk.cross_validated_scores(LogisticRegression(), X, y, positive="sick")
    assert len(whole.scores) == 25 and (whole.predictions.groupby("sample").size() == 5).all()
    plain = bulk.cross_validated_scores(LogisticRegression(), X.to_numpy(), y.to_numpy(), positive="sick")
    pd.testing.assert_frame_equal(whole.scores, plain.scores)
    pd.testing.assert_frame_equal(whole.predictions, plain.predictions)


def test_a_model_never_sees_what_it_is_judged_by(frame):
    """A model that remembers its samples is right about those it has seen, and guesses on all others."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.permutation(["a", "b"] * 30)
    from sklearn.neighbors import KNeighborsClassifier

    found = bulk.cross_validated_scores(KNeighborsClassifier(1), X, y, positive="a")
    assert KNeighborsClassifier(1).fit(X, y).score(X, y) == 1.0 and abs(found.scores["accuracy"].mean() - 0.5) < 0.15


def test_groups_stay_together(lines):
    X, person = lines[:, ["CDKN1A", "BAX"]].to_df(), lines.obs["person"].to_numpy().astype(str)
    settings = {"positive": "WT", "names": person, "groups": person}
    cv = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    found = bulk.cross_validated_scores(LogisticRegression(), X, lines.obs["p53"], cv=cv, **settings)
    assert found.predictions.groupby("sample")["fold"].nunique().eq(1).all()
    settings["groups"] = None
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    apart = bulk.cross_validated_scores(LogisticRegression(), X, lines.obs["p53"], cv=cv, **settings)
    assert apart.predictions.groupby("sample")["fold"].nunique().max() == 2


@pytest.mark.parametrize("chooser", [GeneSelector(10), SelectKBest(k=10)], ids=lambda chooser: type(chooser).__name__)
def test_genes_chosen_outside_find_labels_that_mean_nothing(lines, chooser):
    X, y = lines.to_df(), np.random.default_rng(0).permutation(lines.obs["p53"].to_numpy().astype(str))
    judge, cv = make_pipeline(StandardScaler(), LogisticRegression()), StratifiedKFold(5, shuffle=True, random_state=0)
    outside = bulk.cross_validated_scores(judge, chooser.fit_transform(X, y), y, positive="WT", cv=cv)
    inside = bulk.cross_validated_scores(make_pipeline(chooser, judge), X, y, positive="WT", cv=cv)
    assert outside.scores["roc_auc"].mean() > 0.8 and inside.scores["roc_auc"].mean() < 0.65


# The interval


def test_the_interval_is_the_corrected_one():
    scores = pd.DataFrame({"accuracy": [0.8, 0.9, 0.7, 0.85], "n_train": 60, "n_test": 15})
    found = bulk.score_interval(scores, "accuracy", level=0.9)
    reach = 2.3533634 * np.std([0.8, 0.9, 0.7, 0.85], ddof=1) * np.sqrt(1 / 4 + 15 / 60)  # t of 3 degrees of freedom
    assert found.mean == pytest.approx(0.8125) and found.high == pytest.approx(0.8125 + reach)
    assert found.low == pytest.approx(0.8125 - reach) and found.level == 0.9
    wide = bulk.score_interval(scores, "accuracy")
    assert wide.high == 1.0 and wide.low < found.low


@pytest.mark.slow
def test_the_interval_holds_the_truth_where_it_is_known():
    rng, cv, found, truths = np.random.default_rng(1), RepeatedStratifiedKFold(n_splits=5, n_repeats=2), [], []

    def draw(n):
        y = np.arange(n) % 5 < 2
        return rng.normal(size=(n, 3)) + y[:, None] * [1.2, 0, 0], y.astype(int)

    fresh = draw(20_000)
    for seed in range(40):
        X, y = draw(75)
        cv.random_state = seed
        truths.append(LogisticRegression().fit(X, y).score(*fresh))
        scores = bulk.cross_validated_scores(LogisticRegression(), X, y, positive=1, cv=cv).scores
        found.append((*vars(bulk.score_interval(scores, "accuracy")).values(), scores["accuracy"].std()))
    mean, low, high, _, spread = np.array(found).T
    corrected = (low <= np.mean(truths)) & (np.mean(truths) <= high)
    plain = np.abs(mean - np.mean(truths)) <= 2.262 * spread / np.sqrt(10)  # t of 9 degrees of freedom
    assert corrected.mean() >= 0.9 > plain.mean() + 0.05


# Thresholds and figures


def test_thresholds_say_what_counting_says():
    rng = np.random.default_rng(0)
    positive = rng.integers(0, 2, 60)
    chance = np.clip(0.3 * positive + rng.uniform(0, 0.7, 60), 0, 1).round(2)
    table = bulk.threshold_table(positive, chance)
    assert table["threshold"].is_monotonic_increasing and table["recall"].iloc[0] == 1
    for row in table.itertuples():
        says = chance >= row.threshold
        assert row.precision == pytest.approx(metrics.precision_score(positive, says))
        assert row.recall == pytest.approx(metrics.recall_score(positive, says))
        assert row.f1 == pytest.approx(metrics.f1_score(positive, says))


def test_figures_show_the_table():
    import matplotlib.pyplot as plt

    table = bulk.threshold_table([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.9])
    ax = plt.subplots()[1]
    assert bulk.plot_thresholds(table, ax=ax) is ax and len(ax.lines) == 3
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), table["recall"])
    scores = pd.DataFrame({"model": ["one", "one", "two"], "roc_auc": [0.6, 0.8, 0.9], "n_train": 8, "n_test": 2})
    drawn = bulk.plot_fold_scores(scores)
    found = bulk.score_interval(scores[:2])
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["one", "two"]
    assert sorted(drawn.collections[0].get_offsets()[:, 0]) == [0.6, 0.8] and len(drawn.collections) == 2
    np.testing.assert_allclose(drawn.lines[0].get_xdata(), [found.low, found.high])
    np.testing.assert_allclose(drawn.lines[1].get_xdata(), [0.7])
    assert len(drawn.lines) == 2  # a single fold has no interval
    plt.close("all")
