"""Lists of genes compared: planted truths are found, identical lists are equal, and no name is lost."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from selectormlp import (
    GenePanel,
    InputError,
    compare_lists,
    load_pancreas,
    open_cells,
    select_genes,
    simulate_cells,
    write_comparison,
)
from selectormlp import lists as lists_module
from selectormlp.cli import main
from selectormlp.intervals import _paired_interval
from selectormlp.lists import (
    _ALL_TYPES,
    _CEILING,
    _COMPARISON_FILES,
    ListComparison,
    _donor_groups,
    _Judged,
    _least_deviation,
    _taken_for,
)

KEY = "cell_type"
HOW: dict[str, Any] = {"n_splits": 3, "judges": ["nearest_neighbours"], "all_genes": False}


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    """600 cells of four types with known markers, from five donors."""
    made = simulate_cells(600, 80, 4, n_markers_per_type=5, library_size=400, seed=0)
    made.obs["donor"] = [f"donor {i % 5}" for i in range(made.n_obs)]
    return made


@pytest.fixture(scope="module")
def lists(cells: anndata.AnnData) -> dict[str, list[str]]:
    """All markers, and as many genes that are none."""
    marked = cells.var["is_marker"].to_numpy(dtype=bool)
    markers = cells.var_names[marked].tolist()
    return {"markers": markers, "others": cells.var_names[~marked][: len(markers)].tolist()}


@pytest.fixture(scope="module")
def usual(cells: anndata.AnnData, lists: dict[str, list[str]]) -> ListComparison:
    """The two lists, compared as `HOW` says."""
    return compare_lists(lists, cells, KEY, **HOW)


def overall(found: ListComparison) -> pd.DataFrame:
    """The differences of the mean over types, by list."""
    return found.differences[found.differences["type"] == _ALL_TYPES].set_index("list")


# What is found


def test_markers_beat_other_genes_with_the_interval_above_zero(cells, lists) -> None:
    found = compare_lists(lists, cells, KEY, baseline="others", n_splits=4)
    row = overall(found).loc["markers"]
    assert row["low"] > 0 and row["verdict"] == "better" and row["n_pairs"] == 4
    turned = overall(compare_lists(lists, cells, KEY, baseline="markers", n_splits=4)).loc["others"]
    assert turned["verdict"] == "worse" and turned["mean"] == pytest.approx(-row["mean"])
    assert turned["high"] == pytest.approx(-row["low"])
    means = found.summary.set_index("list")["balanced_accuracy"]
    assert means["markers"] > means["others"] and means[_CEILING] > means["others"]
    assert set(found.scores.groupby("list")["judge"].unique()[_CEILING]) == {"logistic_regression"}
    only = found.scores[found.scores["judge"] == "logistic_regression"].pivot(
        index="split", columns="list", values="balanced_accuracy"
    )
    assert overall(found).loc[_CEILING, "mean"] == pytest.approx((only[_CEILING] - only["others"]).mean())


def test_identical_lists_differ_by_nothing(cells, lists) -> None:
    found = compare_lists({"one": lists["markers"], "two": lists["markers"][:]}, cells, KEY, **HOW)
    assert (found.differences[["mean", "low", "high"]] == 0).all(axis=None)
    assert set(found.differences["verdict"]) == {"not shown to differ"}


def test_numbers_are_those_of_the_scores(cells, lists) -> None:
    found = compare_lists(lists, cells, KEY, n_splits=3)
    by_split = found.scores[found.scores["list"] != _CEILING].groupby(["list", "split"])["balanced_accuracy"].mean()
    share = found.settings["test_to_train"]
    assert share == pytest.approx(0.2, abs=0.03)
    for name, row in found.summary.set_index("list").drop(index=_CEILING).iterrows():
        expected = _paired_interval(by_split[name], test_to_train=share)
        assert (row["balanced_accuracy"], row["low"]) == pytest.approx((expected.mean, max(expected.low, 0)))
    expected = _paired_interval(by_split["others"] - by_split["markers"], test_to_train=share)
    row = overall(found).loc["others"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((expected.mean, expected.low, expected.high))
    wider = overall(compare_lists(lists, cells, KEY, n_splits=3, confidence=0.99)).loc["others"]
    assert wider["low"] < row["low"] and wider["mean"] == row["mean"]
    means = found.per_type.groupby("list")["recall"].mean()
    assert means["markers"] == pytest.approx(found.summary.set_index("list")["balanced_accuracy"]["markers"])
    assert found.per_type[["low", "high"]].stack().between(0, 1).all()


def test_few_cells_that_agree_by_chance_do_not_look_certain() -> None:
    plain = _paired_interval([1 / 3] * 5, test_to_train=0.2)
    careful = _paired_interval([1 / 3] * 5, test_to_train=0.2, least_deviation=_least_deviation(1 / 3, 3))
    assert plain.low > 0 > careful.low
    assert _least_deviation(0.0, 3) == 0 and _least_deviation(1.0, 3) > _least_deviation(1.0, 300) > 0
    spread = _paired_interval([0, 1, 0, 1], least_deviation=0.01)
    assert spread == _paired_interval([0, 1, 0, 1])


@pytest.mark.parametrize("change", [
    {"n_splits": 4}, {"judges": ["random_forest"]}, {"all_genes": True}, {"min_cells": 60}, {"max_cells": 60},
    {"seed": 1}, {"batch_key": "donor"}, {"confidence": 0.8}, {"baseline": "others"}, {"values": "log"},
], ids=str)  # fmt: skip
def test_every_setting_changes_something(cells, lists, usual, change: dict[str, Any]) -> None:
    before, after = usual, compare_lists(lists, cells, KEY, **(HOW | change))
    same = [getattr(before, name).equals(getattr(after, name)) for name in ("scores", "summary", "differences")]
    assert not all(same)


# Names


def test_every_name_gets_a_line_and_none_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "vendor.csv").write_text(
        "Gene Name;probes\nINS;3\nCD45;2\nINS;1\n9-Sep;4\nNO_GENE;1\nENSG00000115263;2\n"
    )
    asked = {
        "the same genes": ["INS", "PTPRC", "GCG"],
        "vendor": tmp_path / "vendor.csv",
        "names": ["SST", " PPY ", ""],
        "panel": GenePanel(pd.DataFrame({"gene": ["INS"]})),
    }
    found = compare_lists(asked, load_pancreas(), KEY, min_cells=20, **HOW)
    own = found.genes[found.genes["list"] == "vendor"].set_index("asked")
    assert own["how"].tolist() == ["name", "alias", "name", "date", "not in the data", "id"]
    assert own["gene"].tolist() == ["INS", "PTPRC", "INS", "", "", "GCG"]
    assert own["note"].iloc[2].startswith("named before")
    assert found.missing["asked"].tolist() == ["9-Sep", "NO_GENE"]
    sizes = found.summary.set_index("list")[["n_asked", "n_found"]]
    assert sizes.loc["vendor"].tolist() == [6, 3] and sizes.loc["names"].tolist() == [2, 2]
    assert (overall(found).loc["vendor", ["mean", "low", "high"]] == 0).all()


@pytest.mark.parametrize(("asked", "more", "sentence"), [
    ({"mine": ["NOPE1", "NOPE2"]}, {}, "none of the 2 names of the list 'mine' is a gene of the data"),
    ({"mine": []}, {}, "the list 'mine' names no gene"),
    ({}, {}, "there is no list to judge"),
    (["gene_000"], {}, "lists is of type list; pass a mapping"),
    ({"mine": 7}, {}, "the list 'mine' is of type int"),
    ({"mine": "no_such_file.csv"}, {}, "no_such_file.csv"),
    ({_CEILING: ["gene_000"]}, {}, "give it another name"),
    ({"mine": ["gene_000"]}, {"baseline": "mien"}, "did you mean 'mine'"),
    ({"mine": ["gene_000"]}, {"judges": ["forest"]}, "there is no judge 'forest'"),
    ({"mine": ["gene_000"]}, {"n_splits": 1}, "n_splits is 1"),
    ({"mine": ["gene_000"]}, {"judges": []}, "judges is empty"),
    ({"mine": ["gene_000"]}, {"batch_key": "doner"}, "doner"),
    ({"mine": ["gene_000"]}, {"batch_key": "one"}, "names 1 donors"),
    ({"mine": ["gene_000"]}, {"n_split": 3}, "did you mean 'n_splits'"),
])  # fmt: skip
def test_errors_are_one_sentence(cells, asked: Any, more: dict[str, Any], sentence: str) -> None:
    cells = cells.copy()
    cells.obs["one"] = "only"
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        compare_lists(asked, cells, KEY, **more)
    assert "\n" not in str(error.value)


# Splits


def test_each_donor_is_tested_once(cells, lists) -> None:
    groups = _donor_groups(cells.obs["donor"], 3, 0)
    assert sorted(sum(groups, [])) == sorted(cells.obs["donor"].unique()) and len(groups) == 3
    assert len(_donor_groups(cells.obs["donor"], 9, 0)) == 5  # as many as there are donors
    assert groups != _donor_groups(cells.obs["donor"], 3, 1)
    found = compare_lists(lists, cells, KEY, **HOW | {"batch_key": "donor", "n_splits": 9})
    assert found.scores["split"].nunique() == 5
    assert found.scores.drop_duplicates("split")["n_test"].sum() == cells.n_obs


def test_a_type_that_some_donors_lack_is_left_out_of_their_mean(cells, lists) -> None:
    kinds = sorted(cells.obs[KEY].unique())
    few = cells[~((cells.obs[KEY] == kinds[0]) & (cells.obs["donor"] == "donor 1")).to_numpy()]
    found = compare_lists(lists, few, KEY, **HOW | {"batch_key": "donor", "n_splits": 5})
    splits = found.per_type.set_index(["list", "type"])["n_splits"]
    assert splits["markers", kinds[0]] == 4 and splits["markers", kinds[1]] == 5
    assert any(f"{kinds[0]} (4 of 5)" in note for note in found.notes)


def test_a_large_atlas_is_thinned_and_says_so(cells, lists) -> None:
    found = compare_lists(lists, cells, KEY, **HOW | {"max_cells": 40})
    assert (found.scores["n_test"] <= 40).all() and any("cells were used" in note for note in found.notes)
    assert found.settings["test_to_train"] < 0.2  # cells that nobody sees make no overlap


def lazy(path: Path) -> Any:
    """Cells that are opened as anndata opens them."""
    return anndata.experimental.read_lazy(path)


def test_wherever_the_cells_lie_the_tables_are_the_same(cells, lists, tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    how = HOW | {"all_genes": True, "judges": ["nearest_neighbours", "logistic_regression"], "batch_key": "donor"}
    known = compare_lists(lists, cells, KEY, **how)
    for source in (path, open_cells(path), anndata.read_h5ad(path, backed="r"), lazy(path)):
        found = compare_lists(lists, source, KEY, **how)
        for name in ("scores", "summary", "per_type", "differences", "genes"):
            pd.testing.assert_frame_equal(getattr(found, name), getattr(known, name))


def test_a_list_that_was_chosen_on_these_cells_is_noted(cells, tmp_path: Path) -> None:
    panel = select_genes(cells, KEY, 5)
    found = compare_lists({"chosen": panel, "two": cells.var_names[:2].tolist()}, cells, KEY, **HOW)
    assert any("'chosen' was chosen on these cells" in note for note in found.notes)
    others = simulate_cells(600, 80, 4, n_markers_per_type=5, library_size=400, seed=1)
    assert not any("chosen" in note for note in compare_lists({"chosen": panel}, others, KEY, **HOW).notes)
    panel.to_csv(tmp_path / "panel.csv")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    notes = compare_lists({"chosen": tmp_path / "panel.csv"}, tmp_path / "cells.h5ad", KEY, **HOW).notes
    assert any("if on these cells" in note for note in notes)  # one is known by a fingerprint, the other by its file


def test_processes_change_nothing(cells, lists, usual) -> None:
    pd.testing.assert_frame_equal(compare_lists(lists, cells, KEY, n_jobs=2, **HOW).scores, usual.scores)


# The page


def test_the_page_shows_it_all_and_takes_nothing_else_away(cells, lists, tmp_path: Path) -> None:
    odd = {"<b>mine</b>": [*lists["markers"], "NO_GENE"], "$x_y$": lists["others"]}
    found = compare_lists(odd, cells, KEY, n_splits=2)
    page = write_comparison(found, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert {path.name for path in page.parent.iterdir()} == set(_COMPARISON_FILES)
    assert "NO_GENE" in text and "<b>mine" not in text and "http" not in text and text.count('role="img"') == 3
    assert text.count('aria-label=""') == 0
    written = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert written["mean"].to_numpy() == pytest.approx(found.differences["mean"].to_numpy())
    one = compare_lists({"alone": lists["markers"]}, cells, KEY, **HOW)
    write_comparison(one, tmp_path / "out")  # an earlier comparison goes
    assert not (tmp_path / "out" / "differences.png").exists() and "alone" in page.read_text(encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.csv").write_text("of a study")
    for folder in (tmp_path / "other", tmp_path):
        with pytest.raises(InputError, match="no part of a comparison"):
            write_comparison(one, folder)
    assert (tmp_path / "other" / "scores.csv").read_text() == "of a study"
    assert "alone" in one._repr_html_() and repr(one) == "ListComparison(1 list, 3 splits, baseline='alone')"


def test_equal_lists_are_taken_for_the_same_types(cells, lists) -> None:
    same = compare_lists({"b": lists["others"], "a": lists["others"], "c": lists["others"]}, cells, KEY, **HOW)
    wide = same.per_type.pivot(index="type", columns="list", values="taken_for")
    assert (wide["a"] == wide["b"]).all() and (wide["a"] == wide["c"]).all() and (wide["a"] != "").any()
    wrong = [("z", "x"), ("z", "y"), ("z", "y"), ("z", "x")]  # as often: the first by name, whatever came first
    for pairs in (wrong, wrong[::-1]):
        true, called = (np.array(each) for each in zip(*pairs, strict=True))
        assert _taken_for([_Judged("a", 0, "j", true, called)])["a", "z"] == "x"


def test_donors_that_share_no_type_are_one_sentence(cells, lists) -> None:
    with pytest.raises(InputError, match="the column of the types"):
        compare_lists(lists, cells, KEY, **HOW, batch_key=KEY)
    apart = cells.copy()
    apart.obs["site"] = np.where(apart.obs[KEY].isin(apart.obs[KEY].unique()[:2]), "here", "there")
    with pytest.raises(InputError, match="nothing to judge"):
        compare_lists(lists, apart, KEY, **HOW, batch_key="site")


@pytest.mark.parametrize("n_written", [1, 4, 6])
def test_a_comparison_that_was_stopped_is_written_again(
    usual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_written: int
) -> None:
    left = [n_written]

    def stopped(write: Any) -> Any:
        def one(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return write(*args, **more)

        return one

    with monkeypatch.context() as patch:
        for name in ("_write_table", "_save_figure", "_write_whole"):
            patch.setattr(lists_module, name, stopped(getattr(lists_module, name)))
        with pytest.raises(KeyboardInterrupt):
            write_comparison(usual, tmp_path / "out")
    assert not (tmp_path / "out" / "comparison.html").exists()
    assert write_comparison(usual, tmp_path / "out").exists()


# The commands


@pytest.fixture
def here(cells, lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with cells and lists of three kinds."""
    monkeypatch.chdir(tmp_path)
    cells.write_h5ad("cells.h5ad")
    pd.DataFrame({"gene": lists["markers"]}).to_csv("mine.csv", index=False)
    pd.DataFrame({"Gene Symbol": [*lists["others"][:3], "NO_GENE"], "probes": 2}).to_excel("vendor.xlsx", index=False)
    Path("paper.txt").write_text("\n".join(lists["markers"][:4]), encoding="utf-8")
    return tmp_path


FAST = ["--n-splits", "2", "--judges", "nearest_neighbours", "--all-genes", "false"]


def test_compare_takes_lists_of_any_kind(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["compare", "cells.h5ad", "--label-key", KEY, "--panels", "mine.csv", "vendor.xlsx", "paper.txt", *FAST]
    assert main([*line, "--baseline", "vendor", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "vendor: no gene of the data for NO_GENE." in said and "comparison.html" in said
    table = pd.read_csv("out/summary.csv").set_index("list")
    assert table.loc["vendor", ["n_asked", "n_found"]].tolist() == [4, 3] and list(table.index)[0] == "vendor"
    assert main([*line, "--names", "a", "b", "c", "--batch-key", "donor", "--on-disk", "yes", "--out", "out"]) == 0
    assert set(pd.read_csv("out/summary.csv")["list"]) == {"a", "b", "c"}
    assert not [path.name for path in here.iterdir() if path.name.endswith(".lock")]


def test_score_judges_one_list(here: Path, lists, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "cells.h5ad", "--label-key", KEY, "--panel", "mine.csv", "--out", "out", *FAST[:4]]) == 0
    assert "all genes" in capsys.readouterr().out
    expected = compare_lists({"mine": lists["markers"]}, "cells.h5ad", KEY, n_splits=2, judges=["nearest_neighbours"])
    pd.testing.assert_frame_equal(pd.read_csv("out/scores.csv"), expected.scores)


@pytest.mark.parametrize(("line", "sentence"), [
    ("--panels mine.csv missing.csv --out out", "missing.csv"),
    ("--panels mine.csv --out .", "lies in the folder"),
    ("--panels mine.csv mine.csv --out out", "two lists are called"),
    ("--panels mine.csv paper.txt --names a --out out", "2 lists and 1 names"),
    ("--panels mine.csv paper.txt --names a a --out out", "two lists are called 'a'"),
    ("--panels mine.csv --baseline their --out out", "is none of the lists"),
    ("--panels mine.csv --out out --n-jobs 0", "n_jobs is 0"),
    ("--panels mine.csv --out full", "no part of a comparison"),
    ("--panels full/genes.csv --out full", "full/genes.csv"),
    ("--panels mine.csv --out out --n-split 3", "did you mean"),
])  # fmt: skip
def test_wrong_lines_are_refused_and_write_nothing(
    here: Path, line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/genes.csv").write_text("gene\ngene_000\n")
    before = sorted(path.name for path in here.rglob("*"))
    assert main(["compare", "cells.h5ad", "--label-key", KEY, *line.split()]) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert len(errors) == 1 and sentence in errors[0]
    assert sorted(path.name for path in here.rglob("*")) == before


# Are the intervals right?


def script(root: Path) -> ModuleType:
    """The committed script of the coverage study."""
    spec = importlib.util.spec_from_file_location("compare_coverage", root / "benchmarks" / "compare_coverage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_intervals_of_equal_lists_hold_zero(root: Path) -> None:
    study = script(root)
    found = pd.DataFrame([study.one_resample(1000 + seed, {"n_splits": 5}) for seed in range(16)]).astype(float)
    assert found["compare_lists"].mean() >= 0.88 and found["half_width"].mean() < 0.2
    assert abs(found["mean_difference"].mean()) < 3 * found["mean_difference"].std() / np.sqrt(len(found)) + 1e-9


def test_the_stored_study_is_of_200_resamples(root: Path) -> None:
    table = pd.read_csv(root / "data" / "studies" / "compare_coverage" / "coverage.csv").set_index("splits")
    assert set(table.index) == set(script(root).WAYS) and (table["n_resamples"] == 200).all()
    assert (table["compare_lists"] >= 0.92).all() and (table["plain"] < table["compare_lists"]).all()
