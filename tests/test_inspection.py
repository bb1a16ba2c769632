"""What is said about a panel: curves, stability, thinning, and the page."""

import json
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import balanced_accuracy_score

from selectormlp import inspection
from selectormlp.data import _NOTICE, InputError, normalise, prepare_cells
from selectormlp.evaluation import _make_judge
from selectormlp.inspection import (
    _caption,
    _cells_of_page,
    _panel_tables,
    _thin_counts,
    enough_genes,
    forecast_panel,
    panel_confusions,
    panel_curve,
    panel_robustness,
    panel_stability,
    plot_dots,
    plot_substitutes,
    slide_panel,
    write_panel_report,
)
from selectormlp.selection import DesignedPanel, describe_panel, select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.split import CellSplit


@pytest.fixture(scope="module")
def counts():
    """Raw counts of 500 cells, 100 genes and 4 types."""
    return simulate_cells(n_cells=500, n_genes=100, n_types=4, n_markers_per_type=3, seed=2)


@pytest.fixture(scope="module")
def panel(counts):
    """A panel of 12 genes."""
    return select_genes(counts, "cell_type", 12)


def test_the_curve_is_what_a_judge_says(counts, panel) -> None:
    curve = panel_curve(panel, counts, sizes=(3, 12, 50), judges=("logistic_regression",))
    assert curve["n_genes"].tolist() == [3, 12]
    cells = prepare_cells(counts, "cell_type")
    train, test = (panel.split.subset(cells, part)[:, panel.genes[:3]] for part in ("train", "test"))
    judge = _make_judge("logistic_regression").fit(train.X.toarray(), train.obs["cell_type"].astype(str))
    expected = balanced_accuracy_score(test.obs["cell_type"].astype(str), judge.predict(test.X.toarray()))
    assert curve["accuracy"].iloc[0] == pytest.approx(expected)


def test_enough_is_the_smallest_size_near_the_best() -> None:
    curve = pd.DataFrame({"n_genes": [5, 10, 20, 40], "judge": "one", "accuracy": [0.6, 0.895, 0.9, 0.89]})
    assert enough_genes(curve) == 10 and enough_genes(curve, tolerance=0.001) == 20
    assert enough_genes(curve, tolerance=0.5) == 5


def test_confusions_count_the_test_cells(counts, panel) -> None:
    tables = panel_confusions(panel, counts, first=2)
    assert list(tables) == ["2 genes", "12 genes"]
    assert all(table.to_numpy().sum() == len(panel.split.cells("test")) for table in tables.values())
    assert list(panel_confusions(panel, counts, first=99)) == ["12 genes"]


def test_stability_counts_resamples(counts, panel) -> None:
    table = panel_stability(panel, counts, n_resamples=4, seed=1)
    assert table.equals(panel_stability(panel, counts, n_resamples=4, seed=1))
    assert not table.equals(panel_stability(panel, counts, n_resamples=4, seed=9))
    assert table["frequency"].isin([0.25, 0.5, 0.75, 1.0]).all()
    assert table["frequency"].sum() == pytest.approx(len(panel))
    assert set(table.loc[table["in_panel"], "gene"]) <= set(panel.genes)


def test_stability_keeps_the_rules(counts) -> None:
    ruled = select_genes(counts, "cell_type", 6, must_include=["gene_0001"] if "gene_0001" in counts.var_names else [])
    must = ruled.settings["rules"]["must_include"]
    table = panel_stability(ruled, counts, n_resamples=2).set_index("gene")["frequency"]
    assert all(table[gene] == 1 for gene in must)
    for wrong in ({"n_resamples": 0}, {"share": 1.0}):
        with pytest.raises(InputError, match="n_resamples >= 1"):
            panel_stability(ruled, counts, **wrong)


@pytest.mark.parametrize("capture", [0.05, 0.5, 1.0])
def test_thinning_keeps_the_expected_share(capture: float) -> None:
    rng = np.random.default_rng(0)
    X = csr_matrix(rng.poisson(5.0, (200, 50)).astype(np.float32))
    before = X.copy()
    thinned = _thin_counts(X, capture, seed=3)
    assert (before != X).nnz == 0  # the input is left as it was
    assert thinned.sum() / X.sum() == pytest.approx(capture, rel=0.02)
    assert (thinned.data == np.round(thinned.data)).all() and (thinned.data > 0).all()
    assert (_thin_counts(X, capture, seed=3) != thinned).nnz == 0
    if capture < 1:
        assert (thinned > X).nnz == 0


def test_thinning_by_nothing_changes_nothing_and_nonsense_is_refused() -> None:
    X = csr_matrix(np.array([[1.0, 2], [0, 3]]))
    assert (_thin_counts(X, 1.0) != X).nnz == 0
    for wrong in (0, -1, 2.0, np.inf, np.nan):  # molecules that were not counted cannot be made up
        with pytest.raises(InputError, match="above 0 and at most 1"):
            _thin_counts(X, wrong)


def test_fewer_molecules_tell_less(counts, panel) -> None:
    table = panel_robustness(panel, counts, captures=(0.02, 1.0), failures=(0.0, 0.8))
    accuracy = table.set_index(["capture", "failed", "training"])["accuracy"]
    assert accuracy[1.0, 0.0, "transferred"] == accuracy[1.0, 0.0, "trained alike"]
    assert accuracy[0.02, 0.0, "trained alike"] < accuracy[1.0, 0.0, "trained alike"]
    assert accuracy[1.0, 0.8, "trained alike"] < accuracy[1.0, 0.0, "trained alike"]
    curve = panel_curve(panel, counts, sizes=(12,), judges=("logistic_regression",))
    assert accuracy[1.0, 0.0, "transferred"] == pytest.approx(curve["accuracy"].iloc[0], abs=0.03)


def test_thinning_needs_counts(counts, panel) -> None:
    with pytest.raises(InputError, match="raw counts: these are log-normalised"):
        panel_robustness(panel, normalise(counts))
    logged = normalise(counts)
    tables = _panel_tables(panel, logged, _cells_of_page(panel, logged), n_resamples=1)
    assert not {"robustness", "forecast"} & set(tables)


def test_the_page_forecasts_for_the_platform_that_the_panel_was_chosen_for(counts, panel, tmp_path) -> None:
    page = write_panel_report(panel, counts, tmp_path, n_resamples=1).read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "forecast.csv")
    assert table["platform"].tolist() == ["same"] * 2 + ["imaging"] * 2 + ["sequencing_targeted"] * 2
    expected = forecast_panel(panel, counts, "imaging", sizes=(len(panel),), n_draws=10)
    pd.testing.assert_series_equal(table["accuracy"][2:4].reset_index(drop=True), expected["accuracy"], rtol=1e-5)
    assert (table["low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["high"]).all()
    assert "<h2>On the platform that will measure it</h2>" in page and f"{table['accuracy'][0]:.3f}" in page
    aimed = replace(panel, settings={**panel.settings, "rules": {**panel.settings["rules"], "target": "sequencing"}})
    write_panel_report(aimed, counts, tmp_path, n_resamples=1)
    assert pd.read_csv(tmp_path / "forecast.csv")["platform"].tolist() == ["same"] * 2 + ["sequencing"] * 2
    logged = write_panel_report(panel, normalise(counts), tmp_path, n_resamples=1).read_text(encoding="utf-8")
    assert "that will measure it" not in logged and not (tmp_path / "forecast.csv").exists()


def test_figures_show_the_genes(counts, panel) -> None:
    import matplotlib.pyplot as plt

    shown = [text.get_text() for text in plot_dots(panel, counts, most=5).get_yticklabels()]
    assert sorted(shown) == sorted(panel.genes[:5])
    types = panel.table.set_index("gene")["highest_in"][shown]
    assert len(types.drop_duplicates()) == (types != types.shift()).sum()  # the genes of a type stand together
    assert [text.get_text() for text in plot_substitutes(panel, most=4).get_yticklabels()] == panel.genes[:4]
    plt.close("all")


BARE = DesignedPanel(pd.DataFrame({"gene": ["a"]}), "cell_type", settings={"rules": {"min_cells": 7}})
_TABLES = ("panel", "coverage", "types", "curve", "ceiling", "recalls", "stability", "robustness", "forecast")


def test_the_page_holds_everything_and_escapes_names(counts, tmp_path) -> None:
    odd = counts.copy()
    odd.var_names = [f"<b>{name}</b>" for name in odd.var_names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        chosen = select_genes(odd, "cell_type", 6)
        page = write_panel_report(chosen, odd, tmp_path / "page", n_resamples=1).read_text(encoding="utf-8")
    assert "<b>gene" not in page and "&lt;b&gt;gene" in page
    assert page.count("<figure>") == 7 == len(list((tmp_path / "page").glob("*.png")))
    names = {path.name for path in (tmp_path / "page").glob("*.csv")}
    assert names == {f"{name}.csv" for name in _TABLES}
    assert page.count('type="range"') == 1
    assert pd.read_csv(tmp_path / "page" / "panel.csv")["gene"].tolist() == chosen.genes
    book = pd.read_excel(tmp_path / "page" / "panel.xlsx", sheet_name=None)
    assert book["genes"]["gene"].tolist() == chosen.genes and book["types"]["recall"].between(0, 1).all()


def test_the_numbers_of_a_page_agree(counts, panel, tmp_path) -> None:
    """Headline, table of types, curve and slider are means of the same predictions; the files hold what is shown."""
    page = write_panel_report(panel, counts, tmp_path, n_resamples=1).read_text(encoding="utf-8")
    types, curve, recalls = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("types", "curve", "recalls"))
    whole = recalls[recalls["n_genes"] == len(panel)].set_index("type")["recall"]
    assert types.set_index("type")["recall"].to_dict() == pytest.approx(whole.to_dict())
    by_size = recalls.groupby("n_genes")["recall"].mean()
    assert curve.groupby("n_genes")["accuracy"].mean().to_dict() == pytest.approx(by_size.to_dict())
    accuracy, low, high = inspection._accuracy_interval(types)
    assert accuracy == pytest.approx(by_size[len(panel)]) and low < accuracy < high
    assert f"{accuracy:.1%} balanced accuracy (95 % interval {low:.1%} to {high:.1%})" in page
    ceiling, own = pd.read_csv(tmp_path / "ceiling.csv"), curve[curve["judge"] == "logistic_regression"]
    alone = own.set_index("n_genes")["accuracy"][len(panel)]
    assert f"Logistic regression alone reaches {alone:.1%}" in page and ceiling["n_genes"].tolist() == [100]
    assert f"{ceiling['accuracy'][0]:.1%} with the main components of the 100 most variable genes" in page
    assert ((types["low"] <= types["recall"]) & (types["recall"] <= types["high"])).all()
    parts = panel.split.counts().sum()
    cells = f"{parts['train']} train, {parts['validation']} validation, {parts['test']} test cells of 4 types"
    assert f"Made from cells in memory: {cells}. selectormlp" in page
    held_out = panel.split.table[panel.split.table["part"] == "test"]["cell_type"].value_counts()
    assert types.set_index("type")["test_cells"].to_dict() == held_out.to_dict()
    for name in _TABLES:
        assert f'<a href="{name}.csv">' in page and (tmp_path / f"{name}.csv").exists()


def test_what_speaks_against_a_panel_stands_above_its_figures(counts, panel, tmp_path) -> None:
    odd = counts.copy()
    odd.var_names = ["MALAT1", "XIST", *odd.var_names[2:]]
    names = sorted(set(odd.obs["cell_type"]))
    odd.obs["cell_type"] = odd.obs["cell_type"].astype(str).replace({names[0]: "Doublet", names[1]: "unassigned"})
    odd.obs["donor"] = [f"d{number % 3}" for number in range(odd.n_obs)]
    made = describe_panel(["XIST", odd.var_names[5]], odd, label_key="cell_type")
    page = write_panel_report(made, odd, tmp_path, n_resamples=1).read_text(encoding="utf-8")
    (box,) = re.findall(r"<section class=.before.*?</section>", page, re.DOTALL)
    for words in (
        "XIST (sex)",
        "Types not told apart",
        "fewer than 30 test cells",
        "no cell types: Doublet; unassigned.",
        "donors",
    ):
        assert words in box, words
    types = pd.read_csv(tmp_path / "types.csv", keep_default_na=False)
    lines = inspection._before_you_order(replace(made, settings={"rules": {"batch_key": "donor"}}), types)
    assert not any("No donors" in line for line in lines)
    assert "None of the signs" not in page


@pytest.mark.parametrize("n", [[20, 60, 200, 35], [5, 8, 200, 35], [7] * 14])
def test_the_interval_of_the_accuracy_holds_the_truth(n: list[int]) -> None:
    """Types of other sizes and recalls, their cells drawn 400 times."""
    rng, share = np.random.default_rng(0), np.linspace(0.6, 0.97, len(n))
    names = [f"type {number:02d}" for number in range(len(n))]
    held = 0
    for hits in rng.binomial(n, share, (400, len(n))):
        drawn = pd.DataFrame({"n_genes": 1, "type": names, "n_cells": n, "recall": hits / n})
        accuracy, low, high = inspection._accuracy_interval(inspection._types_with_all_genes(BARE, drawn))
        assert 0 <= low <= accuracy <= high <= 1
        held += low <= share.mean() <= high
    assert 0.9 <= held / 400 <= 0.99


def test_a_type_without_test_cells_has_no_say() -> None:
    drawn = pd.DataFrame({"n_genes": 1, "type": ["a", "b"], "n_cells": [10, 0], "recall": [0.5, np.nan]})
    types = inspection._types_with_all_genes(BARE, drawn)
    assert inspection._accuracy_interval(types)[0] == 0.5 and types["low"].tolist()[1:] == [0]


@pytest.mark.slow
def test_the_judges_of_a_page_see_a_bounded_number_of_cells(counts, panel, tmp_path, monkeypatch) -> None:
    every = panel.split.counts()
    assert inspection._lighter(panel).split.table.equals(panel.split.table)  # all of them, where they are few
    fewer = inspection._lighter(panel, most=60).split.counts()
    assert (fewer.sum() <= 60).all() and (fewer.sum() > 60 - len(every)).all()
    for part in every:
        cap = fewer[part].max()
        assert (fewer[part] == every[part].clip(upper=cap)).all()  # small types keep all their cells
    assert set(inspection._lighter(panel, most=60).split.table["cell"]) < set(panel.split.table["cell"])
    monkeypatch.setattr(inspection, "_lighter", partial(inspection._lighter, most=60))
    page = write_panel_report(panel, counts, tmp_path, n_resamples=1).read_text(encoding="utf-8")
    expected = f"The evaluation classifiers saw {fewer['train'].sum()} of {every['train'].sum()} training cells"
    assert expected in page and "drawn at random" in page
    written = pd.read_csv(tmp_path / "curve.csv")
    judges = inspection._PAGE_JUDGES
    pd.testing.assert_frame_equal(written, panel_curve(inspection._lighter(panel), counts, judges=judges))
    assert not written.equals(panel_curve(panel, counts, judges=judges))


def test_cells_outside_the_split_do_not_touch_a_page(counts, panel) -> None:
    held = panel.split.table.groupby(["part", "cell_type"]).head(4)  # 4 cells of each part: fewer than min_cells
    few = replace(panel, split=CellSplit(held.reset_index(drop=True)))
    inside = counts[counts.obs_names.isin(held["cell"])]
    assert panel_curve(few, counts, sizes=(3,)).equals(panel_curve(few, inside, sizes=(3,)))


def test_a_panel_without_a_split_says_so(counts) -> None:
    for ask in (panel_curve, panel_confusions):
        with pytest.raises(InputError, match="has no split"):
            ask(BARE, counts)


def page(name: str) -> str:
    """The text of a page of the book, without its code."""
    cells = json.loads((Path(__file__).parent.parent / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_the_page_on_reading_names_every_file_and_column(panel, counts, tmp_path):
    told = set(re.findall(r"`([^`]+)`", page("guides/how_to_read_the_result")))
    write_panel_report(panel, counts, tmp_path, n_resamples=1)
    run = Path(__file__).parent / "models" / "study_format_1"
    tables = [path for path in [*tmp_path.glob("*.csv"), *run.glob("*.csv")] if path.stem != "overlap"]
    columns = {name for table in tables for name in pd.read_csv(table, nrows=1).columns}
    columns = {re.sub("^detected in .+", "detected in ...", name) for name in columns}
    files = {path.name + "/" * path.is_dir() for path in [*tmp_path.iterdir(), *run.iterdir()]}
    beside_their_table = {f"{name}.png" for name in ("curve", "stability", "robustness")}
    assert (columns | files) - beside_their_table <= told


def test_a_figure_that_shows_some_of_the_genes_says_so(panel) -> None:
    many = replace(panel, table=pd.concat([panel.table] * 30, ignore_index=True).head(45))
    some = "The first genes, each at the type in which it is highest"
    assert _caption("dots", many) == f"{some} (40 of 45; the others are in the table)."
    assert _caption("dots", panel) == f"{some}." and "(" not in _caption("curve", many)


def test_the_slider_has_every_type() -> None:
    types = [f"type {number}" for number in range(47)]
    recalls = pd.DataFrame(
        [(size, name, 0.5) for size in (1, 2) for name in types], columns=["n_genes", "type", "recall"]
    )
    html = slide_panel(recalls).html
    assert all(f'"{name}"' in html for name in types)
    few = json.loads(re.search(r'json">(.*?)</script>', slide_panel(recalls, n_types=30).html)[1])
    assert len(few["columns"]) == 30


def test_what_is_chosen_again_is_not_announced(counts, panel, caplog) -> None:
    """The figures of a resample are not the panel's: only the panel itself says what it lacks and has to spare."""
    with caplog.at_level(_NOTICE, "selectormlp"):
        again = select_genes(counts, "cell_type", 30)
        told = len([line for line in caplog.messages if "no gain is shown" in line])
        panel_stability(again, counts, n_resamples=2)
    assert told == 1 == len([line for line in caplog.messages if "no gain is shown" in line])


def test_nothing_is_said_of_genes_that_are_carried(counts) -> None:
    first = counts.var_names[0]
    panel = select_genes(counts, "cell_type", 6, must_include=["NOT-1", first, "NOT-2"], carry=True)
    stability = panel_stability(panel, counts, n_resamples=2)
    assert first in set(stability["gene"]) and not stability["gene"].str.startswith("NOT-").any()
    bars = inspection.plot_stability(panel, stability).patches
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([2, 4, 5, 6])  # ranks of the panel
    labels = [text.get_text() for text in plot_substitutes(panel).get_yticklabels()]
    assert labels == panel.judged_genes
