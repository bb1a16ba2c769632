"""Which gene is meant: every name of a list is accounted for, and none is matched wrongly."""

import logging
import re
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from selectormlp import load_pancreas, match_genes, select_genes
from selectormlp.data import InputError, _one_letter_apart, _plain
from selectormlp.evaluation import score_panel
from selectormlp.identity import _genes_of_date, _Matcher, _meant_genes, _name_table, _nomenclature, _organism_of
from selectormlp.split import split_cells

KEY = "cell_type"


@pytest.fixture(scope="module")
def pancreas() -> AnnData:
    return load_pancreas()


@pytest.mark.parametrize(
    ("asked", "gene", "how"),
    [
        ("INS", "INS", "name"), (" INS ", "INS", "name"), ("ENSG00000254647", "INS", "id"), ("CD45", "PTPRC", "alias"),
        ("ENSG00000254647.7", "INS", "id"), ("hla-dra", "HLA.DRA", "spelling"), ("her2", "ERBB2", "alias"),
        ("SEPTIN9", "SEPT9", "alias"), ("SEPT9", "SEPT9", "name"), ("CD20", "", "ambiguous"), ("PD-1", "", "ambiguous"),
        ("9-Sep", "", "date"), ("2-Mar", "", "date"), ("01/Mar/2024", "", "date"), ("Sonic", "", "not in the data"),
        ("PAX5", "PAX5", "name"), ("IGHG99", "", "not in the data"), ("", "", "not in the data"),
    ],
)  # fmt: skip
def test_names_mean_what_people_mean(pancreas: AnnData, asked: str, gene: str, how: str) -> None:
    (found,) = match_genes([asked], pancreas).itertuples()
    assert (found.asked, found.gene, found.how) == (asked, gene, how)


def test_notes_say_between_what_and_what_was_named_before(pancreas: AnnData) -> None:
    found = match_genes(["CD20", "9-Sep", "INS", "ENSG00000254647"], pancreas).set_index("asked")["note"]
    assert "MS4A1" in found["CD20"] and "KRT20" in found["CD20"] and "SEPT9" in found["9-Sep"]
    assert found["INS"] == "" and "named before, as 'INS'" in found["ENSG00000254647"]


def test_a_round_trip_of_planted_names_is_accounted_for_and_never_wrong() -> None:
    names, rng = _nomenclature("human"), np.random.default_rng(0)
    symbols = [symbol for symbol, ids in names.ids.items() if len(ids) == 1 and not symbol.startswith("LOC")]
    data = [str(symbol) for symbol in rng.choice(symbols, 3000, replace=False)]
    var = pd.DataFrame({"gene_ids": [names.ids[symbol][0] for symbol in data]}, index=data)
    asked: list[tuple[str, str]] = []
    for symbol in data[:400]:
        asked += [(symbol, symbol), (f"{names.ids[symbol][0]}.{rng.integers(1, 20)}", symbol)]
        asked += [(alias, symbol) for alias in names.aliases[symbol]]
    absent = [str(symbol) for symbol in rng.choice(symbols, 300, replace=False)]
    absent = [symbol for symbol in absent if not var["gene_ids"].isin(names.ids[symbol]).any()]
    asked += [(symbol, "") for symbol in absent] + [(f"{day}-Sep", "") for day in range(1, 13)]
    found = match_genes([name for name, _ in asked], var)
    assert found["asked"].tolist() == [name for name, _ in asked] and (found["how"] != "").all()
    meant = np.array([gene for _, gene in asked], dtype=object)
    matched = found["gene"] != ""
    for name, gene, right in zip(found["asked"][matched], found["gene"][matched], meant[matched], strict=True):
        assert gene == right or _plain(name) == _plain(gene)  # an alias that is another gene's own name means that gene
    assert matched[np.isin(found["asked"], data[:400])].all() and not matched[np.isin(found["asked"], absent)].any()
    assert (found["how"] == "ambiguous").any() and (found["how"] == "alias").sum() > 500


def test_ids_as_names_and_mice_are_known() -> None:
    human, mouse = _nomenclature("human"), _nomenclature("mouse")
    ids = pd.DataFrame(index=[human.ids[symbol][0] for symbol in ("INS", "GCG", "PTPRC")])
    assert match_genes(["INS", "CD45"], ids)["gene"].tolist() == [ids.index[0], ids.index[2]]
    small = ["Ins1", "Gcg", "Ptprc"]
    found = _organism_of(small)
    assert found is not None and found.organism == "mouse" and _organism_of(["gene_1", "gene_2"]) is None
    assert match_genes([mouse.ids["Gcg"][0], "GCG"], small)["gene"].tolist() == ["Gcg", "Gcg"]


def test_dates_are_those_of_genes() -> None:
    assert _genes_of_date("1-Mar", ["MARCH1", "MARC1", "MARCHF1", "MARS1"]) == ["MARC1", "MARCH1", "MARCHF1"]
    assert _genes_of_date("Sep-15", ["SEPT15"]) is None and _genes_of_date("1-Dec", []) == []


def test_the_table_is_whole_and_small() -> None:
    table = _name_table()
    assert not table.duplicated(["organism", "symbol"]).any() and set(table["organism"]) == {"human", "mouse"}
    assert table["ids"].str.fullmatch(r"(ENS(MUS)?G\d{11}(\|ENS(MUS)?G\d{11})*)?").all()


def test_rules_take_aliases_and_say_so(pancreas: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "selectormlp"):
        panel = select_genes(pancreas, KEY, 5, min_cells=20, must_include=["CD45", "hla dra"], exclude=["HER2", "^MT"])
    assert panel.genes[:2] == ["PTPRC", "HLA.DRA"] and panel.settings["rules"]["must_include"] == ["PTPRC", "HLA.DRA"]
    said = [record.getMessage() for record in caplog.records]
    assert "must_include: 'CD45' is taken as PTPRC (an alias)" in said
    assert "exclude: 'HER2' is taken as ERBB2 (an alias)" in said
    order = ["ribosomal", "CD45", "^MT", "INS", "sex"]
    kept = select_genes(pancreas, KEY, 3, min_cells=20, exclude=order).settings["rules"]["exclude"]
    assert kept == ["ribosomal", "PTPRC", "^MT", "INS", "sex"]
    names, told = _meant_genes(["INS"], pd.DataFrame(index=["INS"]))
    assert (names, told) == (["INS"], [])


def test_all_missing_genes_are_named_at_once(pancreas: AnnData) -> None:
    asked = ["INS", "CD20", "1-Mar", "GCGG", "Sonic"]
    with pytest.raises(InputError, match=r"must_include names 4 genes .*'CD20' \(.*MS4A1.*\).*'1-Mar'.*GCG.*'Sonic'"):
        select_genes(pancreas, KEY, 10, min_cells=20, must_include=asked)
    with pytest.raises(InputError, match=r"names 'CD20', which is not in the data; it may be KRT20 or MS4A1: name one"):
        select_genes(pancreas, KEY, 10, min_cells=20, must_include=["CD20"])
    cells = pancreas[:200]
    with pytest.raises(InputError, match=r"first is 'CD45'; did you mean 'PTPRC'"):
        score_panel(["INS", "CD45"], cells, split_cells(pancreas, KEY, min_cells=20), KEY)


def test_a_table_of_genes_is_read_by_its_columns(pancreas: AnnData) -> None:
    table = pd.DataFrame({"gene_name": ["INS", "PTPRC"]}, index=["ENSG00000254647", "ENSG00000081237"])
    assert match_genes(["INS", "CD45"], table)["gene"].tolist() == ["INS", "PTPRC"]
    assert match_genes(["INS"], pancreas.var)["how"].tolist() == ["name"]


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match="the names are one text"):
        match_genes("INS GCG", ["INS"])
    assert match_genes([], ["INS"]).empty
    assert match_genes(["a" * 5000, "<b>", "=1+1", "$x$", "🧬"], ["INS"])["how"].eq("not in the data").all()


@pytest.fixture
def other_table(tmp_path: Path) -> Path:
    """A table of names in which CD999 is another name of INS."""
    table = pd.DataFrame(
        {"organism": "human", "symbol": ["INS", "GCG"], "ids": ["", ""], "aliases": ["CD999|IDDM1", ""], "extra": "x"}
    )
    table.to_csv(tmp_path / "names.csv.gz", index=False)
    return tmp_path / "names.csv.gz"


def test_a_newer_table_of_names_is_taken_where_asked(
    other_table: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert match_genes(["CD999"], ["INS", "GCG"])["how"].tolist() == ["not in the data"]
    monkeypatch.setenv("SELECTORMLP_GENE_NAMES", str(other_table))
    with caplog.at_level(logging.INFO, "selectormlp"):
        assert match_genes(["CD999"], ["INS", "GCG"])["gene"].tolist() == ["INS"]
    assert f"gene names: '{other_table}'" in caplog.text
    monkeypatch.delenv("SELECTORMLP_GENE_NAMES")
    assert match_genes(["CD999"], ["INS", "GCG"])["how"].tolist() == ["not in the data"]


def test_a_table_of_names_from_an_address_needs_its_checksum(
    other_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right digest fetches once, into the cache; no digest, another one, a file that is no table: one sentence."""
    digest = sha256(other_table.read_bytes()).hexdigest()
    monkeypatch.setattr("pooch.os_cache", lambda _: str(tmp_path / "cache"))
    serve = partial(SimpleHTTPRequestHandler, directory=str(other_table.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/names.csv.gz"
        for source, words in (
            (url, "has no checksum; end it with #sha256="),
            (f"{url}#sha256={'0' * 64}", "could not be fetched"),
            (f"{url}x#sha256={digest}", "could not be fetched"),
            (str(tmp_path / "none.csv"), "none.csv"),
        ):
            monkeypatch.setenv("SELECTORMLP_GENE_NAMES", source)
            with pytest.raises(InputError, match=re.escape(words)):
                match_genes(["CD999"], ["INS", "GCG"])
        monkeypatch.setenv("SELECTORMLP_GENE_NAMES", f"{url}#sha256={digest}")
        assert match_genes(["CD999"], ["INS", "GCG"])["gene"].tolist() == ["INS"]
        server.shutdown()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"gene_names-{digest[:16]}.csv.gz"]
    (tmp_path / "wrong.csv").write_text("symbol,ids\nINS,\n")
    monkeypatch.setenv("SELECTORMLP_GENE_NAMES", str(tmp_path / "wrong.csv"))
    with pytest.raises(InputError, match="has no column 'organism'"):
        match_genes(["CD999"], ["INS", "GCG"])


def test_mouse_names_are_not_taken_for_human_aliases_nor_dots_for_gaps(pancreas: AnnData) -> None:
    """INS-1 is an old name of FOXM1, and Ins1 a gene of the mouse; R writes HLA.B for HLA-B."""
    found = match_genes(["Ins1", "INS-1", "HLA-B", "HLA-DRA", "MIR124-3"], pancreas).set_index("asked")
    assert found.loc["Ins1", "gene"] == "" and "a gene of the mouse" in found.loc["Ins1", "note"]
    assert found.loc["INS-1", "gene"] == "FOXM1"
    assert found.loc[["HLA-B", "HLA-DRA"], "gene"].tolist() == ["HLA.B", "HLA.DRA"]
    among = match_genes(["MIR124-3"], [*pancreas.var_names[:3000], "MIR1243"])  # another gene, which is called so
    assert among["gene"].tolist() == [""]


def test_near_misses_are_those_that_a_comparison_with_every_name_finds(pancreas: AnnData) -> None:
    match, rng = _Matcher(pancreas.var), np.random.default_rng(0)
    names = list(match.names)
    for _ in range(60):
        plain, letter = _plain(str(rng.choice(names))), str(rng.choice(list("abkz17")))
        place, kind = int(rng.integers(0, len(plain))), int(rng.integers(0, 4))
        typed = [
            plain[:place] + letter + plain[place:], plain[:place] + plain[place + 1 :],
            plain[:place] + letter + plain[place + 1 :],
            plain[:place] + plain[place : place + 2][::-1] + plain[place + 2 :],
        ][kind]  # fmt: skip
        assert match._near(typed) == [name for name in names if _one_letter_apart(_plain(name), typed)]


def test_a_date_of_a_spreadsheet_cell_is_a_date() -> None:
    for text in ("2024-09-01 00:00:00", "2024-09-01", "2001-09-01T00:00:00"):
        assert _genes_of_date(text, ["SEPT1", "SEPT9"]) == ["SEPT1"]
    assert _genes_of_date("2024-09-01 12:30:00", ["SEPT1"]) is None and _genes_of_date("2024-05-01", []) is None
    assert match_genes(["2024-03-02 00:00:00"], ["MARCH2", "INS"])["how"].tolist() == ["date"]


def test_a_gene_of_the_other_organism_is_called_so_and_nothing_is_no_gene(pancreas: AnnData) -> None:
    found = match_genes(["Ins2", "H2-K1", "", None, float("nan")], pancreas)
    assert (found["gene"] == "").all() and (found["how"] == "not in the data").all()
    assert found["note"][0] == "Ins2 is a gene of the mouse, and the data are of the human"  # GINS2 is another gene
    assert (found["note"][2:] == "").all()
