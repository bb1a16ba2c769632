"""What a stranger's file, name or address can do, and where an output may not go."""

import contextlib
import errno
import gzip
import json
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scripts import chromium

from selectormlp import book, files, readers
from selectormlp.book import _first_page
from selectormlp.cli import main
from selectormlp.data import (
    InputError,
    _cell_labels,
    _figure_text,
    _markdown_text,
    _spreadsheet_text,
    _terminal_text,
    _unescaped_text,
)
from selectormlp.evaluation import plot_confusion
from selectormlp.files import (
    _check_place,
    _fingerprint_path,
    _only_writer,
    _read_json,
    _read_table,
    _refuse_input,
    _write_table,
)
from selectormlp.inspection import _PAGE_FILES, write_panel_report
from selectormlp.panels import GenePanel, plot_panel, read_panel
from selectormlp.readers import read_cells
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.site import _render_site
from selectormlp.sources import open_cells
from selectormlp.split import CellSplit, read_split
from selectormlp.study import _study_config, run_study


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return simulate_cells(n_cells=120, n_genes=40, n_types=3, n_housekeeping=3, library_size=300, size_ratio=1, seed=0)


@pytest.fixture
def here(counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    counts.write_h5ad("cells.h5ad")
    return tmp_path


# ------------------------------------------------------------------------------------------------- outputs and inputs

SPELLINGS: dict[str, Callable[[Path], str]] = {
    "as it is": lambda path: path.name,
    "absolute": str,
    "with dots": lambda path: f"sub/../{path.name}",
    "a link": lambda path: link(path, "soft"),
    "a link to a link": lambda path: link(Path(link(path, "soft")), "second"),
    "a hard link": lambda path: hard(path),
    "through a folder that is a link": lambda path: f"{link(path.parent, 'again')}/{path.name}",
}


def link(path: Path, name: str) -> str:
    Path(name).symlink_to(Path(path).absolute())
    return name


def hard(path: Path) -> str:
    os.link(path, "hard")
    return "hard"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_output_is_no_input_however_it_is_spelt(spelling: str, here: Path) -> None:
    (here / "sub").mkdir()
    (here / "labels.csv").write_text("a,b\n")
    out = SPELLINGS[spelling](here / "labels.csv")
    with pytest.raises(InputError, match="cannot write .*which is read; choose another place"):
        _check_place(out, endings=[".csv"], inputs=("cells.h5ad",), others=(None, "labels.csv"))
    _check_place("panel.csv", endings=[".csv"], inputs=("cells.h5ad", "pancreas"), others=("labels.csv",))


def test_a_store_is_no_place_for_results(here: Path, counts: AnnData) -> None:
    counts.write_zarr("cells.zarr")
    before = _fingerprint_path("cells.zarr")
    link(here / "cells.zarr", "soft")
    for out in ("cells.zarr", "soft", "cells.zarr/run", "soft/run", "./cells.zarr/../cells.zarr"):
        assert main(["report", "cells.zarr", "--label-key", "cell_type", "--out", out]) == 2
    assert main(["report", "cells.h5ad", "--label-key", "cell_type", "--out", "cells.zarr"]) == 2
    assert main(["select", "cells.zarr", "--label-key", "cell_type", "--out", "cells.zarr/panel.csv"]) == 2
    assert _fingerprint_path("cells.zarr") == before


COMMANDS: dict[str, list[str]] = {
    "the cells": ["select", "cells.h5ad", "--out", "x/../cells.h5ad"],
    "the labels": ["select", "cells.h5ad", "--labels", "labels.csv", "--out", "labels.csv"],
    "the panel to extend": ["select", "cells.h5ad", "--extend", "list.csv", "--out", "./list.csv"],
    "the candidates": ["select", "cells.h5ad", "--candidates", "list.csv", "--out", "x/../list.csv"],
    "the settings": ["select", "cells.h5ad", "--config", "settings.json", "--out", "settings.json"],
    "the settings with =": ["select", "cells.h5ad", "--config=settings.json", "--out", "x/../settings.json"],
    "a panel in the folder of the page": ["select", "cells.h5ad", "--extend", "p_report/panel.csv", "--out", "p.csv"],
    "the run's own labels": ["report", "cells.h5ad", "--labels", "x/scores.csv", "--out", "x"],
    "the cells of a book": ["book", "x/cells.h5ad", "--out", "x"],
    "a part of the model": ["predict", "cells.h5ad", "--model", "model", "--out", "model/config.json"],
    "the cells to predict": ["predict", "cells.h5ad", "--model", "model", "--out", "x/../cells.h5ad"],
    "the split's own input": ["split_data", "--adata_path", "x/adata_train.h5ad", "--save_dir", "x"],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_no_command_writes_over_what_it_reads(what: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("x", "p_report", "model"):
        (here / folder).mkdir()
    for file in ("list.csv", "p_report/panel.csv"):
        (here / file).write_text("gene\nGene_00001\n")
    for file in ("labels.csv", "x/scores.csv", "model/config.json"):
        (here / file).write_text("a,b\n")
    (here / "settings.json").write_text("{}")
    for file in ("x/cells.h5ad", "x/adata_train.h5ad"):
        shutil.copy("cells.h5ad", file)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    key = {"predict": [], "split_data": ["--y_column", "cell_type"]}
    assert main([*COMMANDS[what], *key.get(COMMANDS[what][0], ["--label-key", "cell_type"])]) == 2
    assert "cannot write" in (said := capsys.readouterr().err) and "choose another place" in said, said
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


# ------------------------------------------------------------------------------------------- several files, one answer


def test_the_page_belongs_to_the_csv_beside_it(here: Path, counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def page(panel: Any, adata: AnnData, folder: Path, **more: Any) -> Path:
        made.append([path.name for path in Path(folder).glob("*")])
        assert read_panel(more["beside"]).genes == panel.genes
        folder.mkdir(exist_ok=True)
        (folder / "panel.html").write_text(str(panel.genes))
        return folder / "panel.html"

    monkeypatch.setattr("selectormlp.inspection.write_panel_report", page)
    select = ["select", "cells.h5ad", "--label-key", "cell_type", "--out", "p.csv", "--n-genes"]
    assert main([*select, "3"]) == 0
    (here / "p_report" / "notes.txt").write_text("mine")
    assert main([*select, "4", "--page", "false"]) == 0
    assert [path.name for path in (here / "p_report").iterdir()] == ["notes.txt"] and len(read_panel("p.csv")) == 4
    assert main([*select, "5"]) == 0 and made == [[], ["notes.txt"]]
    with _only_writer(here / "p.csv"):
        assert main([*select, "6"]) == 2
    assert len(read_panel("p.csv")) == 5 and not list(here.glob(".*"))


def test_a_page_is_given_up_when_another_panel_comes(
    here: Path, counts: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = select_genes(counts, "cell_type", 4)
    panel.to_csv("p.csv")
    quick = {"panel": panel.table, "coverage": panel.coverage}
    recalls = pd.DataFrame({"n_genes": [1, 4], "type": "a", "recall": 0.5})
    quick["types"] = pd.DataFrame({"type": ["a"], "test_cells": [4], "recall": [0.5], "low": [0.1], "high": [0.9]})
    quick |= {"recalls": recalls, "curve": pd.DataFrame({"n_genes": [1, 4], "judge": "j", "accuracy": 0.5})}
    quick["ceiling"] = pd.DataFrame({"judge": ["j"], "n_genes": [9], "accuracy": [0.6]})
    monkeypatch.setattr("selectormlp.inspection._panel_tables", lambda *_, **__: quick)
    monkeypatch.setattr("selectormlp.inspection._draw", lambda *_: plot_confusion(pd.DataFrame([[1]])))
    page = write_panel_report(panel, counts, here / "p_report", beside="p.csv").read_text(encoding="utf-8")
    assert f'content="{_fingerprint_path("p.csv")}"' in page
    assert {path.name for path in (here / "p_report").iterdir()} <= set(_PAGE_FILES)

    def other(*_: Any, **__: Any) -> Any:
        (here / "p.csv").write_text("gene\nx\n")
        return quick

    monkeypatch.setattr("selectormlp.inspection._panel_tables", other)
    with pytest.raises(InputError, match="another panel has come"):
        write_panel_report(panel, counts, here / "p_report", beside="p.csv")
    assert not (here / "p_report").exists()


def test_one_writer_at_a_time_also_among_threads_and_spellings(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def write(path: Path) -> None:
        for _ in range(50):
            with contextlib.suppress(InputError), _only_writer(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    (tmp_path / "x").mkdir()
    paths = [tmp_path / "p.csv", tmp_path / "x" / ".." / "p.csv"] * 2
    threads = [threading.Thread(target=write, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not list(tmp_path.glob(".*"))


# -------------------------------------------------------------------------------------------------------- hostile names

HOSTILE = [
    "=1+1", "=HYPERLINK(\"http://example.org\")", "+1", "@SUM(1)", "-1+1", "'=x", "''@x", "\t=1", "$x$", "$",
    "\\$x", "$\\frac{", "<script>alert(1)</script>", "<img src=http://example.org/a.png>", "</td></table>",
    "&amp;", "{{ 7*7 }}", "{% x %}", "[a](javascript:alert(1))", "![a](http://example.org/a.png)",
    "@fig-curve", "`a`", "a|b", "_a_", "_nolegend_", "# a", "---", "\x1b[2J\x1b[31mred", "\x07",
    "\u202egnp.exe", "β cell", "NA", "nan1", "a,b", "a\"b", "a'b", "../../etc", "CON", "%s %d {0}", "x" * 900,
]  # fmt: skip


def test_tables_of_hostile_names_come_back_and_hold_no_formula(tmp_path: Path) -> None:
    _write_table(pd.DataFrame({"gene": HOSTILE, "=a": HOSTILE, "n": range(len(HOSTILE))}), tmp_path / "t.csv")
    import csv

    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if re.match(r"[=@\t\r]|[+-](?![\d.]+$).", cell)]
    back = _read_table(tmp_path / "t.csv")
    assert back["gene"].tolist() == HOSTILE and back.columns.tolist() == ["gene", "=a", "n"]
    GenePanel(pd.DataFrame({"gene": [name.strip() for name in HOSTILE]})).to_csv(tmp_path / "p.csv")
    assert read_panel(tmp_path / "p.csv").genes == [name.strip() for name in HOSTILE]
    parts = pd.DataFrame(
        {"cell": HOSTILE, "cell_type": HOSTILE[::-1], "part": (["train", "validation", "test"] * 99)[: len(HOSTILE)]}
    )
    CellSplit(parts).to_csv(tmp_path / "s.csv")
    assert read_split(tmp_path / "s.csv").table.equals(parts)


@pytest.mark.parametrize("end", ["\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\ud800"])
@pytest.mark.parametrize("what", ["gene", "cell", "type"])
def test_a_name_that_no_table_can_hold_is_refused(what: str, end: str, counts: AnnData) -> None:
    """A lone carriage return ends a row of a csv, and what comes after it begins a cell."""
    cells, name = counts.copy(), f"x{end}=cmd|'/c calc'!A0"
    if what == "gene":
        cells.var_names = [name, *cells.var_names[1:]]
    elif what == "cell":
        cells.obs_names = [name, *cells.obs_names[1:]]
    else:
        cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).replace("type_00", name)
    with pytest.raises(InputError, match=f"of a {what} holds a line break, a NUL or an unpaired surrogate; rename it"):
        select_genes(cells, "cell_type", 3)


def test_a_table_with_carriage_returns_in_its_texts_keeps_its_rows(tmp_path: Path) -> None:
    table = pd.DataFrame({"gene": ["a\r=1+1", "b"], "n": [1, 2]})
    _write_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(_read_table(tmp_path / "t.csv"), table)
    import csv

    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 3


@pytest.mark.parametrize("called", ["NA", "nan", "None", "NULL", "N/A"])
def test_a_gene_may_be_called_as_what_is_missing_is(called: str, here: Path, counts: AnnData) -> None:
    best = select_genes(counts, "cell_type", 3).genes[0]
    counts = counts.copy()
    counts.var_names = [called if gene == best else gene for gene in counts.var_names]
    counts.write_h5ad("named.h5ad")
    out = ["--out", "p.csv", "--n-genes", "3", "--page", "false"]
    assert main(["select", "named.h5ad", "--label-key", "cell_type", *out]) == 0
    assert read_panel("p.csv").genes[0] == called and read_panel("p.json").genes[0] == called
    quick = {"conditions": ["svm_l1"], "panel_conditions": ["svm_l1"], "panel_sizes": [3], "ablations": []}
    study = run_study(_study_config(cells="named.h5ad", label_key="cell_type", **quick), "run", progress=False)
    assert called in study.genes() and called in set(study.ranking("svm_l1")["gene"])


@pytest.mark.parametrize("name", HOSTILE)
def test_every_language_has_its_escape(name: str) -> None:
    assert _unescaped_text(_spreadsheet_text(name)) == name
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", _terminal_text(name) + _figure_text(name) + _markdown_text(name)
    )
    assert not re.search(r"[<>`*|@$\[\]\n]", _markdown_text(name))
    assert len(_figure_text(name)) < 100


@pytest.mark.filterwarnings("ignore:Glyph")
def test_figures_show_hostile_names_as_they_are() -> None:
    import matplotlib.pyplot as plt

    names = [*HOSTILE, "a $x$ b $", "\\"]
    for axes in (
        plot_confusion(pd.DataFrame(np.eye(len(names)), names, names)),
        plot_panel(GenePanel(pd.DataFrame({"gene": names})), pd.DataFrame(np.eye(len(names)), names, names)),
    ):
        axes.figure.canvas.draw()
        plt.close(axes.figure)


def test_the_first_page_of_a_book_runs_nothing(tmp_path: Path) -> None:
    import nbformat

    note = {"cells": "/x/<img src=http://example.org/a.png>@fig-a$y$.h5ad", "label_key": "`<script>alert(1)</script>"}
    page = _first_page({**note, "protocol": "robust", "seed": 0}, pd.Series(dict.fromkeys(HOSTILE, 3)), [])
    nbformat.write(page, tmp_path / "index.ipynb")
    frame = "project: {type: website}\nwebsite: {title: x, sidebar: {contents: [index.ipynb]}}\nformat: html\n"
    (tmp_path / "_quarto.yml").write_text(frame, encoding="utf-8")
    (tmp_path / "site.js").touch()
    shown = _render_site(tmp_path, tmp_path / "site", tmp_path / "_quarto.yml").read_text(encoding="utf-8")
    assert "<script>alert" not in shown and "<img src=http" not in shown and 'example.org/a.png"' not in shown
    assert "&lt;script&gt;alert(1)" in shown and "@fig-curve" in shown and "$x$" in shown


def test_messages_hold_no_commands_to_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "\x1b[2Jcells.h5ad", "--label-key", "x", "--out", "p.csv"]) == 2
    assert "\x1b" not in capsys.readouterr().err


ACTIVE = [
    "<script>pwned=1</script>", "<img src=x onerror=pwned=1>", "</script><script>pwned=1</script>",
    "\"><svg onload=pwned=1>", "' onmouseover='pwned=1", "[a](javascript:pwned=1)", "![a](http://127.0.0.1:9/a.png)",
    "<a href=http://127.0.0.1:9>a</a>", "<style>@import 'http://127.0.0.1:9/a.css'</style>", "@fig-curve",
    "{{< include /etc/passwd >}}", "$\\frac{", "<!--", "]]>", "\u202egnp.exe", "=cmd|'/c x'!A1",
]  # fmt: skip


def hostile_cells() -> AnnData:
    """Cells whose types, genes, names and label column are written in the languages of pages."""
    cells = simulate_cells(n_cells=480, n_genes=120, n_types=len(ACTIVE), n_markers_per_type=1, size_ratio=1, seed=0)
    types = dict(zip(sorted(cells.obs["cell_type"].unique()), ACTIVE, strict=True))
    cells.obs[ACTIVE[0]] = cells.obs["cell_type"].astype(str).map(types)
    del cells.obs["cell_type"]
    cells.obs_names = [f"{ACTIVE[i % len(ACTIVE)]}{i}" for i in range(cells.n_obs)]
    cells.var_names = [f"{ACTIVE[i % len(ACTIVE)]}{i}" for i in range(cells.n_vars)]
    return cells


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pages_of_hostile_cells_run_nothing_and_ask_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page of a panel, of a report and of a book, in a browser."""
    driver = pytest.importorskip("playwright.sync_api")
    monkeypatch.chdir(tmp_path)
    name, key = "<img src=x onerror=pwned=1>@fig-a$y$.h5ad", ACTIVE[0]
    hostile_cells().write_h5ad(name)
    assert main(["select", name, "--label-key", key, "--out", "p.csv", "--n-genes", "20", "--n-jobs", "1"]) == 0
    quick = {"conditions": ["svm_l1"], "panel_conditions": ["svm_l1"], "panel_sizes": [10], "ablations": []}
    Path("study.json").write_text(json.dumps({"cells": name, "label_key": key, **quick}))
    assert main(["report", "--config", "study.json", "--out", "run"]) == 0
    chapters = [path for path in book._book_chapters() if path.stem == "08_data_split"]
    monkeypatch.setattr(book, "_book_chapters", lambda: chapters)
    assert main(["book", name, "--label-key", key, "--out", "book"]) == 0
    pages = [Path("p_report/panel.html"), Path("run/report.html"), *Path("book/site").rglob("*.html")]
    assert len(pages) >= 4
    with driver.sync_playwright() as playwright:
        tab = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"]).new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("dialog", lambda dialog: pytest.fail(dialog.message))
        for page in pages:
            tab.goto(page.absolute().as_uri())
            tab.mouse.move(200, 200)
            assert tab.evaluate("typeof pwned") == "undefined", page
            links = tab.evaluate("[...document.querySelectorAll('[href], [src]')].map(e => e.href || e.src)")
            assert not [link for link in links if isinstance(link, str) and re.match("javascript:|http://127", link)], (
                page
            )
        shown = tab.goto(pages[0].absolute().as_uri()) and tab.locator("body").inner_text()
        assert all(any(f"{kind}{i}" in shown for i in range(120)) for kind in ACTIVE if kind not in ("\u202egnp.exe",))
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


# ------------------------------------------------------------------------------------------------------- files of cells


def poisoned(place: Path, how: str) -> Path:
    """An .h5ad file a part of whose values is another file of the machine."""
    secret, path = place / "secret.h5", place / "evil.h5ad"
    cells = AnnData(np.ones((3, 4), dtype=np.float32), obs=pd.DataFrame({"t": list("aab")}, index=list("xyz")))
    cells.write_h5ad(secret)
    cells.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        if how == "external link":
            file["X"] = h5py.ExternalLink(str(secret), "/X")
        elif how == "external link below":
            file["uns"]["x"] = h5py.ExternalLink("/etc/passwd", "/")
            file["X"] = np.ones((3, 4), dtype=np.float32)
        elif how == "virtual dataset":
            layout = h5py.VirtualLayout((3, 4), np.float32)
            layout[:] = h5py.VirtualSource(str(secret), "X", (3, 4))
            file.create_virtual_dataset("X", layout)
        elif how == "external storage":
            (place / "raw.bin").write_bytes(np.ones((3, 4), dtype=np.float32).tobytes())
            file.create_dataset("X", (3, 4), np.float32, external=[(str(place / "raw.bin"), 0, 48)])
        else:  # a soft link stays inside
            file["values"] = np.ones((3, 4), dtype=np.float32)
            file["X"] = h5py.SoftLink("/values")
            file["uns"]["loop"] = h5py.SoftLink("/uns")
    return path


@pytest.mark.parametrize("on_disk", ["yes", "no"])
def test_what_only_a_reference_leads_to_is_looked_at_too(on_disk: str, here: Path, counts: AnnData, capsys) -> None:
    """The types of an old file are what an attribute refers to: here bytes of another file, which no link leads to."""
    Path("secret.txt").write_text("SECRETpass=hunter2\n")
    shutil.copy("cells.h5ad", "evil.h5ad")
    with h5py.File("evil.h5ad", "r+") as file:
        del file["obs/cell_type"]
        codes = file.create_dataset("obs/cell_type", data=(np.arange(counts.n_obs) % 2).astype("i1"))
        file["obs"].attrs["encoding-version"] = "0.1.0"
        hidden = file.create_group("hidden")
        hidden["itself"] = hidden
        secret = [(str(here / "secret.txt"), 0, 18)]
        codes.attrs["categories"] = hidden.create_dataset("types", shape=(2,), dtype="S9", external=secret).ref
        del file["hidden"]
    given = ["select", "evil.h5ad", "--label-key", "cell_type", "--out", "p.csv", "--n-genes", "3", "--page", "false"]
    assert main([*given, "--on-disk", on_disk]) == 2 and not Path("p.csv").exists()
    assert "in another file, and a file of cells must hold its own data" in capsys.readouterr().err


def test_references_of_any_form_are_followed_and_none_is_waited_for(here: Path) -> None:
    """Dimension scales, lists and empty ones are in good files; a hidden part is found behind a compound, too."""
    with h5py.File("cells.h5ad", "r+") as file:
        scale, pair = file["X/indptr"], np.dtype([("part", h5py.ref_dtype), ("n", "i4")])
        scale.make_scale("places")
        file["X/data"].dims[0].attach_scale(scale)  # a list in one attribute, compounds in another
        file.attrs.create("empty", h5py.Empty(h5py.ref_dtype))
        file.attrs.create("null", h5py.Reference(), dtype=h5py.ref_dtype)
    assert read_cells("cells.h5ad").n_obs == 120
    Path("secret.txt").write_text("SECRET")
    with h5py.File("cells.h5ad", "r+") as file:
        hidden = file.create_group("hidden")
        hidden["itself"] = hidden
        part = hidden.create_dataset("part", (1,), "S6", external=[(str(here / "secret.txt"), 0, 6)])
        file.attrs.create("pair", np.array([(part.ref, 1)], dtype=pair), dtype=pair)
        del file["hidden"]
    with pytest.raises(InputError, match="in another file"):
        read_cells("cells.h5ad")


PICKLED = {
    "zarr_format": 2, "node_type": "array", "shape": [3], "chunks": [3], "dtype": "|O", "fill_value": "", "order": "C",
    "compressor": {"id": "pickle", "protocol": 5}, "filters": None, "dimension_separator": ".",
}  # fmt: skip


@pytest.mark.parametrize(
    "about",
    [
        {"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": {"obs/attributes": PICKLED}}},
        {"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": {"obs/.zattrs": PICKLED}}},
        {"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": {"metadata": PICKLED}}},
        {"zarr_consolidated_format": 1, "metadata": {"obs/attributes/.zarray": PICKLED}},
        {"metadata": {"obs/x/.zarray": PICKLED}, "consolidated_metadata": {}},
        {"zarr_format": 3, "node_type": "array", "codecs": [{"id": "zstd", "name": "nosuch.codec"}]},
        {"zarr_format": 2, "compressor": {"id": "nosuch.codec", "name": "zstd"}},
        {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"id": "zstd", "name": "pickle"}]}}]},
        {"codecs": [{"configuration": {}}]},
    ],
)
def test_no_codec_hides_behind_a_name(about: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not among the codecs that are known to run no code"):
        readers._refuse_codecs(about, tmp_path / "cells.zarr")


def test_attributes_of_a_store_may_speak_of_filters(tmp_path: Path) -> None:
    own = {"attributes": {"filters": ["median"], "codecs": "none"}}
    inside = {"consolidated_metadata": {"metadata": {"obs": {"zarr_format": 3, **own}}}}
    readers._refuse_codecs({"zarr_format": 3, **own, **inside}, tmp_path)
    readers._refuse_codecs({"metadata": {"obs/.zattrs": own["attributes"]}}, tmp_path)


@pytest.mark.parametrize("where", ["zarr", "10x", "labels"])
def test_a_pipe_among_files_is_refused_and_not_waited_for(where: str, here: Path, counts: AnnData) -> None:
    labels = None
    if where == "zarr":
        counts.write_zarr("cells.zarr")
        os.mkfifo("cells.zarr/X/pipe")
        cells = "cells.zarr"
    elif where == "10x":
        os.mkdir("folder")
        (here / "folder" / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 1\n")
        os.mkfifo("folder/barcodes.tsv")
        os.mkfifo("folder/features.tsv")
        cells = "folder"
    else:
        os.mkfifo("labels.csv")
        cells, labels = "cells.h5ad", "labels.csv"
    with pytest.raises(InputError, match="no plain file"):
        read_cells(cells, labels=labels, label_key="cell_type" if labels else None)


def test_a_column_that_a_file_lists_twice_is_read_once(here: Path) -> None:
    with h5py.File("cells.h5ad", "r+") as file:
        twice = np.array(["cell_type", "cell_type"], dtype=object)
        file["obs"].attrs.create("column-order", twice, dtype=h5py.string_dtype())
    memory = select_genes(read_cells("cells.h5ad"), "cell_type", 3)
    assert main(["select", "cells.h5ad", "--label-key", "cell_type", "--out", "p.csv", "--n-genes", "3",
                 "--page", "false", "--on-disk", "yes"]) == 0  # fmt: skip
    assert read_panel("p.csv").genes == memory.genes
    cells = read_cells("cells.h5ad")
    cells.obs = pd.concat([cells.obs, cells.obs], axis=1)
    with pytest.raises(InputError, match="more than one column 'cell_type'"):
        select_genes(cells, "cell_type", 3)


@pytest.mark.parametrize("out", [".", "./", "/", ""])
def test_a_folder_is_no_place_for_a_panel(out: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "cells.h5ad", "--label-key", "cell_type", "--out", out]) == 2
    assert "is a folder; choose another place" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["other.zarr/p.csv", "other.zarr/X/p.csv", "other.zarr/new/p.csv"])
def test_no_store_of_cells_is_a_place_for_results(out: str, here: Path, counts: AnnData, capsys) -> None:
    counts.write_zarr("other.zarr")
    assert main(["select", "cells.h5ad", "--label-key", "cell_type", "--out", out]) == 2
    assert "a .zarr store is there" in capsys.readouterr().err
    assert main(["simulate", "--out", str(Path(out).with_suffix(".h5ad"))]) == 2


def test_a_panel_that_is_killed_while_it_is_written_has_no_description_of_another(
    here: Path, counts: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    select_genes(counts, "cell_type", 5).to_csv("p.csv")

    def killed(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("selectormlp.panels._write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        select_genes(counts, "cell_type", 7).to_csv("p.csv")
    assert len(read_panel("p.csv")) == 7 and not Path("p.json").exists()
    Path(".0123abcd.p.csv").touch()
    Path(".0123abcd.p.json").touch()
    Path(".0123abcd.other.csv").touch()
    with _only_writer("p.csv"):
        assert sorted(path.name for path in here.glob(".0*")) == [".0123abcd.other.csv"]


@pytest.mark.parametrize("lacking", ["config.json", "data.json"])
def test_a_run_that_was_copied_in_part_is_not_gone_on_with(lacking: str, here: Path) -> None:
    quick = {"conditions": ["svm_l1"], "panel_conditions": ["svm_l1"], "panel_sizes": [3], "ablations": []}
    config = _study_config(cells="cells.h5ad", label_key="cell_type", **quick)
    run_study(config, "run", progress=False)
    Path("run", lacking).unlink()
    with pytest.raises(InputError, match=f"holds a run without its {lacking}"):
        run_study(config, "run", progress=False)


@pytest.mark.parametrize("how", ["external link", "external link below", "virtual dataset", "external storage"])
def test_a_file_of_cells_does_not_lead_to_other_files(how: str, tmp_path: Path) -> None:
    path = poisoned(tmp_path, how)
    for read in (read_cells, open_cells):
        with pytest.raises(InputError, match="a file of cells must hold its own data"):
            read(path)
    packed = tmp_path / "evil.h5ad.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="must hold its own data"):
        read_cells(packed)


def test_links_within_a_store_and_unknown_codecs_are_refused(counts: AnnData, tmp_path: Path) -> None:
    for number, version in enumerate((2, 3)):
        path = tmp_path / f"{number}.zarr"
        import zarr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts.write_zarr(zarr.open_group(path, mode="w", zarr_format=version).store)
        assert read_cells(path).shape == counts.shape
        for place in [*path.rglob(".zarray"), *path.rglob("zarr.json")]:
            about = json.loads(place.read_text())
            if place.name == ".zarray" and about.get("dtype") == "|O":
                about["filters"] = [{"id": "pickle", "protocol": 5}]
            elif place.name == "zarr.json" and about.get("data_type") == "string":
                about["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
            place.write_text(json.dumps(about))
        for read in (read_cells, open_cells):
            with pytest.raises(InputError, match="packed with 'pickle'"):
                read(path)
    counts.write_zarr(tmp_path / "linked.zarr")
    (tmp_path / "linked.zarr" / "obs" / "more").symlink_to("/etc")
    with pytest.raises(InputError, match="holds the link 'more'"):
        read_cells(tmp_path / "linked.zarr")


def test_a_packed_file_is_looked_at_before_it_is_unpacked(
    counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    counts.write_h5ad(tmp_path / "cells.h5ad")
    whole = (tmp_path / "cells.h5ad").read_bytes()
    (tmp_path / "cells.h5ad.gz").write_bytes(gzip.compress(whole))
    assert read_cells(tmp_path / "cells.h5ad.gz").shape == counts.shape
    bomb = tmp_path / "bomb.h5ad.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(InputError, match="does not begin like an .h5ad file"):
        read_cells(bomb)
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(whole[:4096] + bytes(2**26))
    monkeypatch.setattr(readers, "_HIGHEST_RATIO", 10)
    monkeypatch.setattr(readers, "_MOST_UNPACKED", 2**24)
    with pytest.raises(InputError, match="unpacks to more than"):
        read_cells(bomb)
    room = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: room)
    with pytest.raises(InputError, match="there is no room in .* set TMPDIR"):
        read_cells(tmp_path / "cells.h5ad.gz")
    assert {path.name for path in tmp_path.iterdir()} == {"cells.h5ad", "cells.h5ad.gz", "bomb.h5ad.gz"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_called_a_damaged_file(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5ad.gz").write_bytes(gzip.compress(b"x"))
    monkeypatch.setattr(readers, "_unpack", lambda *_: (_ for _ in ()).throw(OSError(number, "full")))
    with pytest.raises(InputError, match="no room") as caught:
        read_cells(tmp_path / "a.h5ad.gz")
    assert "damaged" not in str(caught.value)


def test_what_is_too_long_is_refused(counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="a label of 5,000 characters"):
        _cell_labels(pd.DataFrame({"t": ["a", "x" * 5000]}), "t")
    long = counts.copy()
    long.var_names = ["x" * 5000, *long.var_names[1:]]
    with pytest.raises(InputError, match="a gene has a name of 5,000 characters"):
        select_genes(long, "cell_type", 3)
    monkeypatch.setattr(readers, "_LONGEST_LINE", 100_000)
    head, row = "cell,a,b\n", "x,1,2\n"
    for name, text in {
        "head": "c" * 200_000 + ",a\nx,1\n",
        "later": head + row * 50 + "y," + "1" * 200_000 + "\n",
    }.items():
        for ending in (".csv", ".csv.gz"):
            path = tmp_path / f"{name}{ending}"
            path.write_bytes(text.encode() if ending == ".csv" else gzip.compress(text.encode()))
            with pytest.raises(InputError, match=r"(more than 100,000 characters)"):
                read_cells(path)
    (tmp_path / "good.csv").write_text(head + "".join(f"c{i},1,2\n" for i in range(5000)))
    assert read_cells(tmp_path / "good.csv").shape == (5000, 2)


def test_json_without_end_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match="lists within lists"):
        _read_json(tmp_path / "deep.json")
    monkeypatch.setattr(files, "_MOST_METADATA", 10)
    (tmp_path / "large.json").write_text('"xxxxxxxxxxxxxxx"')
    with pytest.raises(InputError, match="larger than 10 bytes"):
        _read_json(tmp_path / "large.json")


def test_soft_links_within_a_file_are_no_fault(tmp_path: Path) -> None:
    readers._refuse_outside(poisoned(tmp_path, "soft link"))


def test_inputs_that_are_not_there_do_not_count(tmp_path: Path) -> None:
    _refuse_input(tmp_path / "x.csv", ["pancreas", "https://example.org/models/x", tmp_path / "x.csv"])


# --------------------------------------------------------------------------------------------- predict within its depth


@pytest.fixture(scope="module")
def deep() -> tuple[Any, AnnData]:
    """A model of 12 genes whose values were normalised over 80, and raw counts."""
    from selectormlp.classifiers import LinearSVMClassifier
    from selectormlp.data import prepare_cells

    raw = simulate_cells(n_cells=240, n_genes=80, n_types=3, n_housekeeping=5, library_size=600, size_ratio=1, seed=0)
    cells = prepare_cells(raw, "cell_type")
    y, genes = cells.obs["cell_type"].to_numpy().astype(str), cells.var_names[:12]
    model = LinearSVMClassifier().fit(cells[:, genes].X, y, gene_names=genes.to_numpy())
    return model, raw


def test_cells_with_little_beyond_the_models_genes_are_refused(deep: tuple[Any, AnnData], tmp_path: Path) -> None:
    from selectormlp.data import normalise
    from selectormlp.saving import _expression_shares, annotate_cells, load_model, save_model

    model, raw = deep
    cells = normalise(raw)
    shares = _expression_shares(cells.X, cells.var_names)
    assert shares.sum() == pytest.approx(1) and shares.idxmax() == raw.var_names[np.asarray(raw.X.sum(axis=0)).argmax()]
    save_model(model, tmp_path / "model", normalised_over=shares)
    loaded = load_model(tmp_path / "model")
    save_model(loaded, tmp_path / "again")
    genes, right = list(model.gene_names_), model.predict(cells[:, list(model.gene_names_)].X)
    for known in (loaded, load_model(tmp_path / "again")):
        assert (annotate_cells(known, raw).obs["predicted_type"] == right).all()
        for few in (raw[:, genes].copy(), normalise(raw[:, genes].copy())):
            with pytest.raises(InputError, match=r"lack 68 of the 80 genes over which .* hold \d+% of a cell's counts"):
                annotate_cells(known, few)
        assert (annotate_cells(known, cells[:, genes].copy()).obs["predicted_type"] == right).all()
    more = np.hstack([raw.X.toarray(), np.full((raw.n_obs, 3), 500.0)]).astype(np.float32)
    extra = AnnData(more, obs=raw.obs, var=pd.DataFrame(index=[*raw.var_names, "x1", "x2", "x3"]))
    assert (annotate_cells(loaded, extra).obs["predicted_type"] == right).all()
    rare = shares[~shares.index.isin(genes)].sort_values().index[:10]
    fewer = raw[:, ~raw.var_names.isin(rare)].copy()
    assert (annotate_cells(loaded, fewer).obs["predicted_type"] == right).mean() > 0.98


def test_the_command_refuses_them_too(
    deep: tuple[Any, AnnData], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from selectormlp.data import normalise
    from selectormlp.saving import _expression_shares, save_model

    model, raw = deep
    cells = normalise(raw)
    save_model(model, "model", normalised_over=_expression_shares(cells.X, cells.var_names))
    raw.write_h5ad("raw.h5ad")
    raw[:, list(model.gene_names_)].copy().write_h5ad("few.h5ad")
    for on_disk in ("yes", "no"):
        assert main(["predict", "raw.h5ad", "--model", "model", "--out", f"{on_disk}.csv", "--on-disk", on_disk]) == 0
        assert main(["predict", "few.h5ad", "--model", "model", "--out", "few.csv", "--on-disk", on_disk]) == 2
        assert "over which the model's values were normalised" in capsys.readouterr().err
    assert (here / "yes.csv").read_bytes() == (here / "no.csv").read_bytes() and not (here / "few.csv").exists()


BASES = [b"x", b"", b"gene,share\ng,abc\n", b"\xff", b"gene,share\ng,-1\n", b"gene,share\ng,1\ng,1\n"]


@pytest.mark.parametrize("basis", BASES)
def test_shares_of_genes_that_are_none_are_refused(basis: bytes, deep: tuple[Any, AnnData], tmp_path: Path) -> None:
    import hashlib

    from selectormlp.saving import _expression_shares, load_model, save_model

    model, cells = deep
    save_model(model, tmp_path / "m", normalised_over=_expression_shares(cells.X, cells.var_names))
    (tmp_path / "m" / "normalised_over.csv").write_bytes(basis)
    described = json.loads((tmp_path / "m" / "config.json").read_text())
    described["checksums"]["normalised_over.csv"] = hashlib.sha256(basis).hexdigest()
    (tmp_path / "m" / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"normalised_over\.csv (cannot be read|holds no shares)"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("types", "a\rb", "'types' in config.json"),
        ("types", "", "'types' in config.json"),
        ("types", "\ud800", "'types' in config.json"),
        ("types", "x" * 2000, "'types' in config.json"),
        ("genes", "a\nb", "'genes' in config.json"),
        ("class_weight", [1], "its setting 'class_weight' is"),
        ("class_weight", [[]], "its setting 'class_weight' is"),
    ],
)
def test_a_strangers_model_has_names_and_settings_that_can_be(
    name: str, value: Any, words: str, deep: tuple[Any, AnnData], tmp_path: Path
) -> None:
    from selectormlp.saving import load_model, save_model

    save_model(deep[0], tmp_path / "m")
    described = json.loads((tmp_path / "m" / "config.json").read_text())
    if name in described:
        described[name][0] = value
    else:
        described["settings"][name] = value
    (tmp_path / "m" / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=words):
        load_model(tmp_path / "m")


def test_a_model_of_endless_layers_is_refused_before_it_is_built() -> None:
    from selectormlp.tabnet import TabNetClassifier

    for name in ("n_steps", "n_shared", "n_independent"):
        with pytest.raises(InputError, match="layers; 1,000 are the most"):
            TabNetClassifier(**{name: 10**9}).fit(np.ones((4, 2), np.float32), ["a", "a", "b", "b"])


@pytest.mark.parametrize(
    "harm", [{"format_version": None}, {"format_version": []}, {"genes": 3}, {"genes": [[]]}, {"settings": 3}]
)
def test_a_strangers_description_of_a_panel_is_whole_or_is_none(
    harm: dict[str, Any], here: Path, counts: AnnData
) -> None:
    panel = select_genes(counts, "cell_type", 3)
    panel.to_csv("p.csv")
    Path("p.json").write_text(json.dumps({**json.loads(Path("p.json").read_text()), **harm}))
    assert read_panel("p.csv").genes == panel.genes
    with pytest.raises(InputError, match="does not describe a panel"):
        read_panel("p.json")


@pytest.mark.parametrize("row", ["INS,1,GCG,3", "INS,1,GCG"])
def test_a_row_of_more_values_than_names_is_refused(row: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"gene,importance\n{row}\n")
    with pytest.raises(InputError, match="rows of more values than its first row has names"):
        read_panel(tmp_path / "p.csv")
    (tmp_path / "r.csv").write_text('"gene","importance"\n"1","INS",1\n"2","GCG",2\n')  # as R writes it
    assert read_panel(tmp_path / "r.csv").genes == ["INS", "GCG"]


def test_settings_without_end_are_not_read_to_their_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("endless.json")
    threading.Thread(target=feed, args=("endless.json",), daemon=True).start()
    assert main(["select", "--config", "endless.json"]) == 2
    assert "is larger than 268,435,456 bytes" in capsys.readouterr().err


def feed(pipe: str) -> None:
    """Write into a pipe until nobody reads it."""
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as file:
        while True:
            file.write(b" " * 2**20)


def test_a_closed_output_and_an_unpaired_surrogate_are_no_fault(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    given = ["select", "cells.h5ad", "--label-key", "cell_type", "--out", "p.csv", "--page", "false"]
    assert main([*given, "--n-genes", "3", "--exclude", "\udcff"]) == 0
    assert len(read_panel("p.csv")) == 3 and _read_json("p.json")["settings"]["rules"]["exclude"] == ["\udcff"]


@pytest.mark.parametrize("harm", ["weights", "leak", "a type that is no name"])
def test_a_model_whose_scores_are_no_numbers_is_refused(harm: str, tmp_path: Path) -> None:
    import hashlib

    from safetensors.numpy import load_file, save_file

    from selectormlp.classifiers import SelectorMLPClassifier
    from selectormlp.saving import load_model, save_model

    X, y = np.random.default_rng(0).random((30, 4)).astype(np.float32), np.repeat(["a", "b"], 15)
    save_model(SelectorMLPClassifier(hidden_sizes=(4,), max_epochs=1).fit(X, y), tmp_path / "m")
    load_model(tmp_path / "m")
    about = _read_json(tmp_path / "m" / "config.json")
    if harm == "weights":
        weights = tmp_path / "m" / "weights.safetensors"
        arrays = load_file(weights)
        save_file(
            {name: np.full_like(part, 3e38) if part.dtype.kind == "f" else part for name, part in arrays.items()},
            weights,
        )
        about["checksums"][weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    elif harm == "leak":
        about["settings"]["leak"] = 1e308
    else:
        about["types"] = [0.5, float("nan")]
    (tmp_path / "m" / "config.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="scores that are not numbers|'types' in config.json"):
        load_model(tmp_path / "m")


# ------------------------------------------------------------------------------------------------------- odd machines


def test_a_fit_leaves_the_random_numbers_of_torch_as_they_were() -> None:
    import torch

    from selectormlp.classifiers import SelectorMLPClassifier

    X, y = np.random.default_rng(0).random((30, 4)).astype(np.float32), np.repeat(["a", "b"], 15)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SelectorMLPClassifier(hidden_sizes=(4,), max_epochs=1).fit(X, y)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_a_terminal_of_ascii_and_a_home_that_cannot_be_written(here: Path, counts: AnnData) -> None:
    import subprocess
    import sys

    renamed = counts.copy()
    renamed.var_names = [f"β{name}" for name in counts.var_names]
    renamed.write_h5ad("greek.h5ad")
    odd = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii:strict",
        "HOME": "/proc/1/x",
    }
    command = [
        "select",
        "greek.h5ad",
        "--label-key",
        "cell_type",
        "--n-genes",
        "3",
        "--page",
        "false",
        "--out",
        "p.csv",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "selectormlp", *command], env={**os.environ, **odd}, capture_output=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u03b2" in done.stdout and all(gene.startswith("β") for gene in read_panel("p.csv").genes)


# ------------------------------------------------------------------------------------------------------------- the desk


def opened_desk(counts: AnnData, out: Path) -> Any:
    """A desk on its port."""
    from selectormlp.desk import _Given, _open_desk
    from selectormlp.selection import PanelDesign

    return _open_desk(_Given(lambda: counts, counts, "cell_type"), PanelDesign(n_genes=5), out)


def test_the_desk_writes_into_its_folder_alone(here: Path, counts: AnnData) -> None:
    from selectormlp.desk import _Desk, _Given, _Hands
    from selectormlp.selection import PanelDesign

    desk = _Desk(_Given(lambda: counts, counts, "cell_type"), PanelDesign(n_genes=5), here / "sub" / "desk")
    hands = _Hands(desk)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file() and "desk" not in path.parts}
    for text in ("../../evil.csv", str(here / "evil.csv"), "cells.h5ad", "=1+1", "\x00", "\ud800", "a" * 60):
        for act in ("keep", "take", "forget", "note", "paste", "paste-pin", "save", "pin", "ban", "swap", "again"):
            everything = dict.fromkeys(("version", "text", "gene", "other", "out", "path", "folder", "field"), text)
            hands.do({"act": act, **everything})
        for rule in ("n_genes", "max_total", "target", "weight:type_00", "candidates", "must_include", text):
            hands.do({"act": "rule", "rule": rule, "value": text})
    desk.close()
    mine = {"desk.json", "panel.csv", "panel.json", "panel.xlsx"}
    assert {path.name for path in (here / "sub" / "desk").iterdir()} == mine
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file() and "sub" not in path.parts} == before


def test_the_desk_answers_this_machine_and_its_own_page_alone(counts: AnnData, tmp_path: Path) -> None:
    pytest.importorskip("shiny")
    import http.client
    import socket

    desk = opened_desk(counts, tmp_path / "desk")
    served = desk._served
    own = {"Host": f"127.0.0.1:{served.port}"}
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": f"http://127.0.0.1:{served.port}"}

    def status(path: str, method: str = "GET", **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.request(method, path, headers={**own, **headers})
        answer = connection.getresponse()
        if answer.status != 101:
            answer.read()
        connection.close()
        return answer.status

    token = f"/{served.token}"
    assert len(served.token) >= 32 and status(f"{token}/") == 200
    assert status(f"{token}/websocket/", **upgrade) == 101
    for path in ("/", "/x/", "/websocket/", f"{token}x/", f"/lib/..{token}/", "/desk.js", "/session/a/download/b"):
        assert status(path) == 403, path
        assert status(path, **upgrade) == 403, path
    assert status(f"{token}/", Host="evil.example") == 421
    for changed in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert status(f"{token}/websocket/", **{**upgrade, **changed}) == 403, changed
    assert status(f"{token}/session/x/upload/y", "POST") == 405
    for path in ("/lib/../../../../etc/passwd", "/lib/%2e%2e/%2e%2e/etc/passwd", "/files/panel.csv", "/desk.json"):
        assert status(token + path) == 404, path
    others = {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others - {each for each in others if each.startswith("127.")}:
        with pytest.raises(OSError), socket.create_connection((address, served.port), timeout=5):
            pass
    desk.close()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", served.port), timeout=5):
        pass
