"""Panels: read from any list, ranked, compared and drawn."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from selectormlp.data import InputError
from selectormlp.panels import (
    GenePanel,
    _gene_table,
    mean_expression,
    panel_from_ranking,
    panel_overlap,
    plot_panel,
    read_panel,
)


def refusal(function: Callable, *arguments: object) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


def written(folder: Path, text: str, name: str = "panel.txt") -> Path:
    """A file of that text."""
    (folder / name).write_text(text)
    return folder / name


def test_panels_are_read_from_csv_and_from_plain_lists(tmp_path: Path) -> None:
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
    assert list(panel_overlap(panels)) == panel_overlap(panels).index.tolist() == ["list.txt", "table.csv"]


def test_a_plain_list_gets_ranks_in_its_order_and_no_importance(tmp_path: Path) -> None:
    panel = read_panel(str(written(tmp_path, " INS \nNA\n7157\n")))
    assert list(panel.table) == ["gene", "importance", "rank", "reason"] and len(panel) == 3
    assert panel.genes == ["INS", "NA", "7157"] and panel.table["rank"].tolist() == [1, 2, 3]
    assert panel.table["importance"].isna().all() and set(panel.table["reason"]) == {"given"}


def test_columns_that_a_file_has_are_kept(tmp_path: Path) -> None:
    text = "gene,importance,rank,reason,probe\n007,0.5,4,ranked,p1\nGCG,0.25,9,must,p2\n"
    panel = read_panel(written(tmp_path, text))
    assert panel.genes == ["007", "GCG"] and panel.table["importance"].tolist() == [0.5, 0.25]
    assert panel.table["rank"].tolist() == [4, 9] and panel.table["reason"].tolist() == ["ranked", "must"]
    panel.to_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == text


def test_genes_with_names_of_digits_keep_their_zeros(tmp_path: Path) -> None:
    assert read_panel(written(tmp_path, "gene,rank\n007,1\n0012,2\n")).genes == ["007", "0012"]
    assert read_panel(written(tmp_path, "007\n0012\n1e3\n")).genes == ["007", "0012", "1e3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gene,rank\n", " names no gene; put one on each line below 'gene'"),
        (
            "INS\nGCG\nPPY\nGCG\nINS\n",
            " names the gene 'GCG' more than once; keep one row for each gene",
        ),
        (
            "a,b,c,d,e,f\n1,2,3,4,5,6\n",
            " has no column 'gene' (it begins with a, b, c, d, e); name the column of the genes so",
        ),
        ("a\n1,2\n", " has no column 'gene' (it begins with a); name the column of the genes so"),
    ],
)
def test_files_that_are_no_panel_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    assert refusal(read_panel, path) == f"'{path}'{words}"


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    assert refusal(read_panel, path).startswith(f"cannot read '{path}': it is empty")
    assert refusal(read_panel, tmp_path / "panels.txt").startswith(f"'{tmp_path / 'panels.txt'}' does not exist")


def test_a_ranking_gives_its_best_genes() -> None:
    ranking = pd.DataFrame({"gene": list("cab"), "importance": [3.0, 2.0, 1.0], "rank": [1, 2, 3]}, index=[7, 8, 9])
    panel = panel_from_ranking(ranking, 2, label_key="cell_type", method="svm_l1", settings={"seed": 1})
    assert panel.genes == ["c", "a"] and panel.table.index.tolist() == [0, 1]
    assert list(panel.table) == ["gene", "importance", "rank", "reason"] and set(panel.table["reason"]) == {"ranked"}
    assert (panel.label_key, panel.method, panel.settings) == ("cell_type", "svm_l1", {"seed": 1})
    assert len(panel_from_ranking(ranking, 1)) == 1 and len(panel_from_ranking(ranking, 3)) == 3
    sparse = panel_from_ranking(ranking.assign(importance=[3.0, 0.0, 0.0]), 2)
    assert sparse.table["reason"].tolist() == ["ranked", "no weight"]
    for n_genes in (0, 4, 1.5):
        sentence = f"a panel of {n_genes} genes was asked for, and there are 3 to choose from"
        assert refusal(panel_from_ranking, ranking, n_genes) == sentence


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_mean_expression_is_that_of_each_type(kind: Callable) -> None:
    values = np.array([[1, 0], [3, 0], [5, 2], [0, 4]], dtype=np.float32)
    obs = pd.DataFrame({"cell_type": pd.Categorical([2, 2, 1, 1])}, index=list("wxyz"))
    cells = AnnData(kind(values), obs=obs, var=pd.DataFrame(index=["INS", "GCG"]))
    means = mean_expression(cells, "cell_type")
    assert list(means) == ["1", "2"] and means.index.tolist() == ["INS", "GCG"]
    assert means.to_numpy().tolist() == [[2.5, 2.0], [3.0, 0.0]]


def test_the_map_of_a_panel_shows_shares_of_each_genes_highest_mean() -> None:
    expression = pd.DataFrame({"α": [2.0, 0.0, 1.0], "β": [1.0, 0.0, 4.0]}, index=["INS", "GCG", "PPY"])
    panel = GenePanel(pd.DataFrame({"gene": ["PPY", "GCG"]}))
    ax = plot_panel(panel, expression)
    (picture,) = ax.get_images()
    shares = [[0.25, 1.0], [0.0, 0.0]]  # a gene that is never on stays 0
    np.testing.assert_allclose(np.ma.filled(picture.get_array(), np.nan), shares)
    assert ax.get_aspect() == "auto"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["α", "β"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["PPY", "GCG"]
    assert [tick.tolist() for tick in (ax.get_xticks(), ax.get_yticks())] == [[0, 1], [0, 1]]
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "share of the gene's highest mean" and picture.colorbar.ax is bar
    figure, own = plt.subplots()
    assert plot_panel(panel, expression, own) is own and figure.axes[0] is own
    plt.close("all")


def test_the_map_of_a_panel_has_one_scale_and_room_for_its_genes() -> None:
    genes = [f"g{i}" for i in range(60)]
    expression = pd.DataFrame({"a": np.linspace(1, 2, 60), "b": 4.0}, index=genes).assign(c=0.0)
    heights = []
    for names, types in ((genes[:2], ["a", "b"]), (genes[:2], ["c"]), (genes, ["a", "b"])):
        ax = plot_panel(GenePanel(pd.DataFrame({"gene": names})), expression[types])
        assert ax.get_images()[0].get_clim() == (0, 1)
        assert not np.ma.is_masked(ax.get_images()[0].get_array())  # a gene that is nowhere on has shares of 0
        heights.append(ax.figure.get_figheight())
    assert heights[0] == heights[1] and 8 < heights[2] < 20
    plt.close("all")


HEADERS = [
    "Gene",
    "Genes",
    "gene_name",
    "Gene Name",
    "gene_symbol",
    "Gene Symbol",
    "Ensembl ID",
    "ensembl_gene_id",
    "Symbol",
]


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("header", HEADERS)
def test_lists_of_vendors_are_read_by_their_headers(tmp_path: Path, header: str, separator: str) -> None:
    rows = [["#", header, "Codewords"], ["1", "INS", "2"], ["2", "GCG", "1"], ["3", " SST ", ""], ["", "", ""]]
    text = "# made by a vendor\r\n" + "\r\n".join(separator.join(row[1:]) for row in rows) + "\r\n"
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_panel(tmp_path / "list.txt").genes == ["INS", "GCG", "SST"]


def test_of_several_columns_symbols_come_before_ids(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "Ensembl ID,Gene Name,Group\nENSG00000254647,INS,beta\nENSG00000115263,GCG,alpha\n"
    )
    assert read_panel(tmp_path / "list.csv").genes == ["INS", "GCG"]


def test_spreadsheets_are_read(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    table = pd.DataFrame({"Gene Name": ["INS", "GCG"], "Ensembl ID": ["ENSG00000254647", "ENSG00000115263"]})
    table.to_excel(tmp_path / "list.xlsx", index=False)
    assert read_panel(tmp_path / "list.xlsx").genes == ["INS", "GCG"]
    pd.DataFrame({"INS": ["GCG", "SST"]}).to_excel(tmp_path / "bare.xlsx", index=False)
    assert read_panel(tmp_path / "bare.xlsx").genes == ["INS", "GCG", "SST"]
    (tmp_path / "broken.xlsx").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="cannot read"):
        read_panel(tmp_path / "broken.xlsx")


def test_a_gene_that_begins_with_a_hash_is_kept_below_the_header(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("# a vendor\n# of genes\ngene,rank\nINS,1\n#4,2\n")
    assert read_panel(tmp_path / "list.csv").genes == ["INS", "#4"]


def test_columns_called_otherwise_are_text_and_type_names_do_not_split_a_header(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("Gene ID,Note\n007,a\n0012,b\n")
    assert read_panel(tmp_path / "list.csv").genes == ["007", "0012"]
    odd = pd.DataFrame({"gene": ["INS", "GCG"], "rank": [1, 2], "detected in a;b;c;d;e;f\tg\th": [0.1, 0.2]})
    odd.to_csv(tmp_path / "panel.csv", index=False)
    assert read_panel(tmp_path / "panel.csv").genes == ["INS", "GCG"]


def test_prices_with_a_decimal_comma_are_numbers(tmp_path) -> None:
    for text in ("gene;price\nINS;3,5\nGCG;2\n", "gene\tprice\nINS\t3,5\nGCG\t2\n", "gene,price\nINS,3.5\nGCG,2\n"):
        (tmp_path / "prices.csv").write_text(text)
        assert _gene_table(tmp_path / "prices.csv")["price"].to_dict() == {"INS": 3.5, "GCG": 2.0}
