"""A panel as an order: ids, priorities, fall-backs, the shapes of vendors, and the way back."""

import json
import re
import time
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from selectormlp import cli
from selectormlp.data import InputError, load_pancreas
from selectormlp.identity import match_genes
from selectormlp.orders import _SHAPES, order_table, write_order
from selectormlp.panels import GenePanel, read_panel

PANEL = GenePanel(
    pd.DataFrame(
        {
            "gene": ["INS", "GCG", "SST", "PPY", "KRT19", "CD24"],
            "reason": ["must include", "marker of alpha", "chosen", "chosen", "chosen; no gain shown", "no weight"],
            "accuracy": [0.3, 0.5, 0.8, 0.9, 0.905, 0.904],
            "substitutes": [
                "IAPP (0.80), GCG (0.3)",
                "TTR (0.83), IRX2 (0.61)",
                "TTR (0.7), RBP4 (0.69)",
                "",
                None,
                "",
            ],
        }
    )
)
PLANTED = {  # a row of a vendor's list -> the gene of the pancreas, and how it must be found
    "INS": ("INS", "name"),
    "CD45": ("PTPRC", "alias"),
    "ENSG00000115263.16": ("GCG", "id"),
    "hla-a": ("HLA.A", "spelling"),
    "SEPTIN2": ("SEPT2", "alias"),
    "2-Sep": ("", "date"),
    "NOSUCHGENE1": ("", "not in the data"),
    "CD3": ("", "not in the data"),
    "PD-1": ("", "ambiguous"),
}
FILES = [(shape, ending) for shape in _SHAPES for ending in (".csv", ".xlsx")]


def given(*genes: str) -> GenePanel:
    """A bare list of genes."""
    return GenePanel(pd.DataFrame({"gene": list(genes)}))


@cache
def matched(names: tuple[str, ...]) -> pd.DataFrame:
    """What names that were read mean in the pancreas."""
    return match_genes(names, load_pancreas())


# The table


def test_priorities_follow_reasons() -> None:
    order = order_table(PANEL)
    assert order["priority"].tolist() == ["must have", "must have", "desired", "desired", "spare", "spare"]
    assert order["rank"].tolist() == list(range(1, 7)) and order["group"].tolist() == PANEL.genes
    assert order_table(PANEL, n_desired=0)["priority"].tolist() == ["must have"] * 2 + ["spare"] * 4
    assert order_table(PANEL, n_desired=9)["priority"].tolist()[2:] == ["desired"] * 3 + ["spare"]  # of no weight
    for reason, priority in (
        ("carried: not in the data", "must have"), ("must include, for beta", "must have"), ("preferred", "desired"),
    ):  # fmt: skip
        assert order_table(GenePanel(PANEL.table.assign(reason=reason)))["priority"].tolist() == [priority] * 6


def test_what_was_given_is_must_have(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("INS\nGCG\n")
    for panel in (read_panel(tmp_path / "list.txt"), given("INS", "GCG")):
        order = order_table(panel, n_desired=1)
        assert order["priority"].tolist() == ["must have"] * 2 and order["reason"].tolist() == ["given"] * 2


def test_fall_backs_stand_once_in_the_order_and_never_for_a_gene_of_the_panel() -> None:
    order = order_table(PANEL, substitutes=True)
    more = order[order["priority"] == "fall-back"]
    assert more[["gene", "group"]].to_numpy().tolist() == [
        ["IAPP", "INS"],
        ["TTR", "GCG"],
        ["IRX2", "GCG"],
        ["RBP4", "SST"],
    ]
    assert order["gene"].is_unique and order["gene"].tolist()[:6] == PANEL.genes
    assert more["reason"].tolist()[1] == "correlates with GCG (0.83)"


def test_a_gene_has_its_first_substitute_before_another_has_a_second() -> None:
    table = pd.DataFrame({"gene": ["A", "B"], "substitutes": ["X (0.9), Y (0.8)", "Y (0.9), X (0.8)"]})
    more = order_table(GenePanel(table), substitutes=True).iloc[2:]
    assert more[["gene", "group"]].to_numpy().tolist() == [["X", "A"], ["Y", "B"]]


def test_ids_come_from_the_data_and_else_from_the_shipped_table() -> None:
    var = pd.DataFrame({"gene_ids": ["ENSG00000000001.7", "ENSG00000254647.1"]}, index=["HLA-B", "INS"])
    assert order_table(given("HLA-B", "INS", "GCG"), var)["id"].tolist() == [
        "ENSG00000000001",
        "ENSG00000254647",
        "ENSG00000115263",
    ]
    cells = AnnData(np.zeros((1, 2), dtype=np.float32), var=var)
    assert order_table(given("HLA-B"), cells)["id"].tolist() == ["ENSG00000000001"]
    by_id = pd.DataFrame({"feature_name": ["INS", "GCG"]}, index=["ENSG00000254647", "ENSG00000115263"])
    assert order_table(given("GCG"), by_id)["id"].tolist() == ["ENSG00000115263"]
    assert order_table(given("Ins2", "Gcg", "Sst"))["id"].str.startswith("ENSMUSG").all()
    assert order_table(given("ENSG00000254647.7"))["id"].tolist() == ["ENSG00000254647"]


def test_what_is_not_known_is_empty_and_said() -> None:
    order = order_table(given("INS", "GCG", "HLA-B", "PD-1", "NOSUCHGENE1", "SEPT1", "SEPTIN1"), ["INS", "GCG"])
    found = order.set_index("gene")
    assert found.loc[["HLA-B", "PD-1", "NOSUCHGENE1"], "id"].tolist() == ["", "", ""]
    assert "6 ids: ENSG" in found.loc["HLA-B", "note"] and "ambiguous: PDCD1" in found.loc["PD-1", "note"]
    assert "not in the data" in found.loc["NOSUCHGENE1", "note"] and "no id" in found.loc["NOSUCHGENE1", "note"]
    assert found.loc["SEPT1", "id"] == found.loc["SEPTIN1", "id"] == "ENSG00000180096"
    assert "the same gene as SEPT1" in found.loc["SEPTIN1", "note"]
    assert (order_table(given("gene_1", "gene_2"))["id"] == "").all()


@pytest.mark.parametrize("n_desired", [-1, 1.5, True, "2"])
def test_wrong_numbers_and_panels_are_refused(n_desired: object) -> None:
    with pytest.raises(InputError, match="n_desired"):
        order_table(PANEL, n_desired=n_desired)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'INS' twice"):
        order_table(given("INS", "GCG", "INS"))
    with pytest.raises(InputError, match="no gene"):
        order_table(given())


# The files


@pytest.mark.parametrize(("shape", "ending"), FILES)
def test_every_file_is_read_back_as_the_panel(tmp_path: Path, shape: str, ending: str) -> None:
    path = tmp_path / f"order{ending}"
    write_order(PANEL, path, shape=shape)
    assert read_panel(path).genes == PANEL.genes
    if _SHAPES[shape].has_groups:  # all rows of a file are read, none twice
        order = write_order(PANEL, tmp_path / f"more{ending}", shape=shape, substitutes=True)
        back = read_panel(tmp_path / f"more{ending}")
        assert back.genes == order["gene"].tolist() and len(back) > len(PANEL)
    else:
        with pytest.raises(InputError, match="no place for substitutes"):
            write_order(PANEL, tmp_path / f"more{ending}", shape=shape, substitutes=True)


@pytest.mark.parametrize(("shape", "ending"), FILES)
def test_planted_rows_come_back_and_none_is_mapped_wrongly(tmp_path: Path, shape: str, ending: str) -> None:
    path = tmp_path / f"order{ending}"
    write_order(given(*PLANTED), path, shape=shape)
    back = read_panel(path).genes
    assert back == list(PLANTED)
    found = matched(tuple(back))
    assert dict(zip(found["asked"], zip(found["gene"], found["how"], strict=True), strict=True)) == PLANTED


@pytest.mark.parametrize(("shape", "ending"), FILES)
def test_a_list_that_names_a_gene_twice_is_refused_by_its_name(tmp_path: Path, shape: str, ending: str) -> None:
    table = _SHAPES[shape].table(order_table(given("INS", "GCG", "SST"))).iloc[[0, 1, 0, 2]]
    path = tmp_path / f"list{ending}"
    table.to_csv(path, index=False) if ending == ".csv" else table.to_excel(path, index=False)
    with pytest.raises(InputError, match="'INS' more than once"):
        read_panel(path)


def test_an_alias_and_its_gene_are_two_rows_that_are_said_to_be_one(tmp_path: Path) -> None:
    write_order(given("PTPRC", "CD45"), tmp_path / "order.csv", shape="xenium")
    found = matched(tuple(read_panel(tmp_path / "order.csv").genes))
    assert found["gene"].tolist() == ["PTPRC", "PTPRC"] and "named before" in found["note"].iloc[1]


@pytest.mark.parametrize(("shape", "ending"), FILES)
def test_no_name_becomes_a_formula_or_a_date(tmp_path: Path, shape: str, ending: str) -> None:
    names = ["=1+1", "+GENE", "-GENE", "@GENE", "SEPT1", "MARCH1", "1-Sep", "007", "1E5", "TRUE", "NA"]
    path = tmp_path / f"order{ending}"
    write_order(given(*names), path, shape=shape)
    assert read_panel(path).genes == names
    if ending == ".xlsx":
        from openpyxl import load_workbook

        cells = [cell for row in load_workbook(path).active.iter_rows() for cell in row if cell.value is not None]
        assert {(cell.data_type, cell.number_format) for cell in cells} == {("s", "@")}
        assert set(names) <= {cell.value for cell in cells}
    else:
        assert not any(text[0] in "=+@" for line in path.read_text().splitlines() for text in line.split(",") if text)


def test_shapes_have_the_columns_and_words_of_their_sources(tmp_path: Path) -> None:
    lines = {}
    for shape in ("xenium", "xp_convert", "ampliseq"):
        write_order(PANEL, tmp_path / f"{shape}.csv", shape=shape)
        lines[shape] = (tmp_path / f"{shape}.csv").read_text().splitlines()
    assert lines["xenium"][:2] == ["Gene,Ensembl ID,Probe sets,Force", "INS,ENSG00000254647,,forced"]
    assert lines["xenium"][3] == "SST,ENSG00000157005,,"
    assert lines["xp_convert"][0] == "ensembl_id,gene_symbol,group,priority,notes"
    assert [line.split(",")[3] for line in lines["xp_convert"][1:]] == ["must_have"] * 2 + ["desired"] * 2 + [
        "backup"
    ] * 2
    assert lines["ampliseq"][:2] == ["Type,Name", "RNA_GENE,INS"]
    assert all(shape.source.startswith("https://") for name, shape in _SHAPES.items() if name != "general")


def test_small_letters_are_said_where_capitals_are_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="selectormlp")
    write_order(given("INS", "C1orf43"), tmp_path / "order.csv", shape="ampliseq")
    assert "C1orf43" in caplog.text and "INS" not in caplog.text
    assert read_panel(tmp_path / "order.csv").genes == ["INS", "C1orf43"]


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_the_same_order_is_the_same_file_and_another_does_not_replace_it(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"order{ending}"
    write_order(PANEL, path)
    before = path.read_bytes()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_order(PANEL, path)
    assert path.read_bytes() == before
    if ending == ".xlsx":
        about = zipfile.ZipFile(path).read("docProps/core.xml").decode()
        assert set(re.findall(r"\d{4}-\d\d-\d\dT", about)) == {"1980-01-01T"}
    with pytest.raises(InputError, match="holds something else"):
        write_order(PANEL, path, n_desired=1)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["order.txt", "order.tsv", "order.xls", "order", "order.csv.gz"])
def test_other_endings_and_shapes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.csv or \.xlsx"):
        write_order(PANEL, tmp_path / name)
    with pytest.raises(InputError, match="did you mean 'xenium'"):
        write_order(PANEL, tmp_path / "order.csv", shape="xeniun")
    assert not list(tmp_path.iterdir())


def test_a_control_character_is_refused_in_a_spreadsheet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write a .csv"):
        write_order(given("INS\x01"), tmp_path / "order.xlsx")
    assert not list(tmp_path.iterdir())


# Lists that vendors and projects publish

PUBLISHED = {  # header: what public files have; the rows are ours
    "Genes,Ensembl_ID,Num_Probesets,Codewords,Annotation": "INS,ENSG00000254647,8,1,beta",  # 10x Xenium, predesigned
    "Gene,Ensembl ID,Probe sets,Force": "INS,ENSG00000254647,,forced",  # Xenium Panel Designer, by xp-convert
    "ensembl_id,gene_symbol,group,priority,notes": "ENSG00000254647,INS,islet,must_have,",  # xp-convert
    "Vizgen Gene,Notes": "INS,islet",  # MERSCOPE, a project's panel-meta.csv
    "name,id,barcodeType": "INS,ENST00000381330,merfish",  # Vizgen's codebook: its gene is in 'name'
    "Type,Name": "RNA_GENE,INS",  # Ion AmpliSeq
    "species,official gene symbol,cell type": "Hs,INS,beta",  # PanglaoDB
    "Target,Annotation": "INS,islet",  # NanoString names its genes 'target'
    "Display Name,Codeclass": "INS,Endogenous",
    "Ensembl ID,Name": "ENSG00000254647,insulin",  # a name beside an id may be a description
}


@pytest.mark.parametrize("header", PUBLISHED)
@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_published_headers_are_read(tmp_path: Path, header: str, ending: str) -> None:
    path, expected = tmp_path / f"list{ending}", "ENSG00000254647" if header == "Ensembl ID,Name" else "INS"
    (tmp_path / "list.csv").write_text(f"{header}\n{PUBLISHED[header]}\n")
    if ending == ".xlsx":
        pd.read_csv(tmp_path / "list.csv", dtype=str, keep_default_na=False).to_excel(path, index=False)
    assert read_panel(path).genes == [expected]


# The command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a panel, and cells that know other ids than the shipped table."""
    monkeypatch.chdir(tmp_path)
    var = pd.DataFrame({"gene_ids": [f"ENSG9000000000{i}" for i in range(3)]}, index=["INS", "GCG", "HLA-B"])
    AnnData(np.eye(3, dtype=np.float32), var=var).write_h5ad("cells.h5ad")
    settings = {"source": {"cells": ["cells.h5ad"], "files": {"cells.h5ad": "1"}}}
    GenePanel(pd.DataFrame({"gene": ["INS", "HLA-B"]}), "cell_type", settings=settings).to_csv("panel.csv")
    return tmp_path


def ids_of(path: str) -> list[str]:
    """The ids of an order."""
    return pd.read_csv(path, keep_default_na=False)["id"].tolist()


def test_the_command_takes_ids_from_the_cells_of_the_panel(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["order", "--panel", "panel.csv", "--out", "order.csv"]) == 0
    assert ids_of("order.csv") == ["ENSG90000000000", "ENSG90000000002"]
    said = capsys.readouterr().out
    assert "2 of 2 genes have an id." in said and "2 must have" in said
    (here / "cells.h5ad").unlink()
    assert cli.main(["order", "--panel", "panel.csv", "--out", "later.csv"]) == 0
    assert ids_of("later.csv") == ["ENSG00000254647", ""]
    said = capsys.readouterr().out
    assert "1 of 2 genes have an id; none: HLA-B." in said and "HLA-B: 6 ids" in said


def test_the_command_takes_ids_from_cells_that_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "cells.h5ad").rename("named.h5ad")
    assert cli.main(["order", "--panel", "panel.csv", "--out", "order.csv", "--ids-from", "named.h5ad"]) == 0
    assert ids_of("order.csv") == ["ENSG90000000000", "ENSG90000000002"]
    assert cli.main(["order", "--panel", "panel.csv", "--out", "x.csv", "--ids-from", "nothing.h5ad"]) == 2
    assert "nothing.h5ad" in capsys.readouterr().err and not Path("x.csv").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    {
        "panel.csv": "which is read",
        "panel.json": "which is read",
        "order.txt": "ends in .csv or .xlsx",
        "named.csv": "holds something else",
    }.items(),
)
def test_the_command_replaces_nothing(here: Path, out: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "named.csv").write_text("another run's\n")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert cli.main(["order", "--panel", "panel.csv", "--out", out]) == 2
    assert words in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_each_option_of_the_command_changes_the_order(here: Path) -> None:
    PANEL.to_csv("other.csv")
    written = {}
    for number, more in enumerate([[], ["--n-desired", "2"], ["--substitutes"], ["--shape", "xenium"]]):
        assert cli.main(["order", "--panel", "other.csv", "--out", f"{number}.csv", *more]) == 0
        written[Path(f"{number}.csv").read_bytes()] = more
    assert len(written) == 4
    Path("asked.json").write_text(json.dumps({"panel": "other.csv", "out": "4.csv", "n_desired": 2}))
    assert cli.main(["order", "--config", "asked.json"]) == 0
    assert written[Path("4.csv").read_bytes()] == ["--n-desired", "2"]


def test_an_order_that_is_read_again_keeps_its_fall_backs(tmp_path: Path) -> None:
    first = write_order(PANEL, tmp_path / "order.csv", substitutes=True)
    again = read_panel(tmp_path / "order.csv")
    second = order_table(again)
    assert second["priority"].tolist() == first["priority"].tolist()
    assert second["group"].tolist() == first["group"].tolist() and (first["priority"] == "fall-back").any()
    with pytest.raises(InputError, match="no place for substitutes"):
        write_order(again, tmp_path / "xenium.csv", shape="xenium")
    assert not (tmp_path / "xenium.csv").exists()


def test_a_date_and_a_name_of_two_genes_are_called_so() -> None:
    notes = order_table(given("1-Mar", "2024-09-01 00:00:00", "INS", "GCG"))["note"]
    assert all("made a date" in note for note in notes[:2]) and notes[2] == ""
    var = pd.DataFrame(index=["INS_ENSG00000000001", "INS_ENSG00000000002", "GCG", "SST", "PPY"])
    var["gene_ids"] = ["ENSG00000000001", "ENSG00000000002", "ENSG00000115263", "", ""]
    note = order_table(given("INS", "GCG"), var)["note"][0]
    assert "INS_ENSG00000000001 or INS_ENSG00000000002" in note and "not in the data" not in note
