"""The pages: rendering without nbdev, links, and the reader's own copy of the book."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from selectormlp import book
from selectormlp.data import InputError

FRAME = """
project: {type: website, output-dir: _docs}
format: {html: {theme: {light: cosmo, dark: darkly}, toc: true}}
website:
  title: Tiny
  site-url: https://example.org/tiny
  sidebar:
    contents:
      - section: Start
        contents: [index.ipynb]
      - section: Later
        contents: [07_absent.ipynb]
      - section: Method
        contents: [06_masking.ipynb]
"""


def write(folder: Path, name: str, *cells: object) -> Path:
    """Write a notebook."""
    notebook = new_notebook(cells=list(cells))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def build(folder: Path, *cells: object) -> str:
    """Render two pages and return the HTML of the first."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(exist_ok=True)
    write(notebooks, "index", new_markdown_cell("# Start: a *page*\n\n> One line"), *cells)
    write(notebooks, "06_masking", new_markdown_cell("# Masks\n\n> Fewer genes"), new_markdown_cell("## Why\n\nSo."))
    (folder / "_quarto.yml").write_text(FRAME, encoding="utf-8")
    return book.render_site(notebooks, folder / "site", folder / "_quarto.yml").read_text(encoding="utf-8")


def test_formulas_become_mathml(tmp_path: Path) -> None:
    text = "Of $a < b$ and `$code$`, $5.\n\n$$\nc = |d|\n$$ {#eq-one}\n\nSee @eq-one."
    page = build(tmp_path, new_markdown_cell(text))
    assert page.count("<math") == 2
    assert "<code>$code$</code>" in page and "$5." in page
    assert "katex" not in page.lower().replace("smalldocs", "")
    assert '<a href="#eq-one">Equation 1</a>' in page and 'id="eq-one"' in page


def test_formulas_in_outputs_ask_nothing_of_the_network(tmp_path: Path) -> None:
    output = new_output("display_data", data={"text/markdown": "the weight $w_j$"})
    page = build(tmp_path, new_code_cell("show()", outputs=[output]))
    assert "<math" in page
    assert book.check_links(tmp_path / "site").empty


def test_links_between_chapters_and_absolute_links(tmp_path: Path) -> None:
    text = "[a](06_masking.ipynb#why) [b](06_masking.html) [c](https://example.org/tiny/masking.html) [d](https://pypi.org)"
    page = build(tmp_path, new_markdown_cell(text))
    assert page.count('href="masking.html"') >= 2 and 'href="masking.html#why"' in page
    assert book.check_links(tmp_path / "site").empty


def test_sidebar_leaves_out_chapters_that_are_absent(tmp_path: Path) -> None:
    page = build(tmp_path)
    assert "Method" in page and "Later" not in page and "07_absent" not in page


def test_hidden_cells_and_error_stream_are_left_out(tmp_path: Path) -> None:
    page = build(
        tmp_path,
        new_code_cell("#| hide\nsecret"),
        new_code_cell("#| default_exp module"),
        new_code_cell("#| export\nshown", outputs=[new_output("stream", name="stderr", text="noise")]),
        new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}),
    )
    assert "shown" in page and "7" in page
    for text in ("secret", "default_exp", "export", "noise"):
        assert text not in page.partition("<main")[2]


def test_a_reference_to_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="@fig-gone"):
        build(tmp_path, new_markdown_cell("See @fig-gone."))


def test_a_failed_build_leaves_the_old_site(tmp_path: Path) -> None:
    before = build(tmp_path)
    with pytest.raises(InputError):
        build(tmp_path, new_markdown_cell("See @fig-gone."))
    assert (tmp_path / "site" / "index.html").read_text(encoding="utf-8") == before


def test_a_folder_that_is_no_site_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a site"):
        build(tmp_path)
    assert (tmp_path / "site" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ('<a href="gone.html">x</a>', "there is no such page"),
        ('<a href="masking.html#nowhere">x</a>', "there is no such place in the page"),
        ('<a href="../../etc/passwd">x</a>', "there is no such page"),
        ('<script src="https://example.org/x.js"></script>', "a request to another site"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "a request to another site"),
        ('<p style="background: url(http://example.org/x.png)">', "a request to another site"),
        ('<style>@import "https://example.org/x.css";</style>', "a request to another site"),
    ],
)
def test_check_links_finds(tmp_path: Path, extra: str, problem: str) -> None:
    page = build(tmp_path)
    (tmp_path / "site" / "index.html").write_text(page.replace("</body>", f"{extra}</body>"), encoding="utf-8")
    assert list(book.check_links(tmp_path / "site")["problem"]) == [problem]


def test_pages_from_the_disk_can_search(tmp_path: Path) -> None:
    page = build(tmp_path, new_markdown_cell("An unmistakable word."))
    assert "site_libs/site.js" in page and "site_libs/search.js" in (tmp_path / "site/site_libs/site.js").read_text()
    assert "unmistakable" in (tmp_path / "site" / "site_libs" / "search.js").read_text(encoding="utf-8")


@pytest.fixture
def small_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put two small chapters in the place of the real ones, and small cells in the place of loading."""
    import pandas as pd

    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "site.js").touch()
    (shipped / "_quarto.yml").write_text(FRAME.replace("07_absent", "02_split"), encoding="utf-8")
    parameters = "cells = 'pancreas'\nlabel_key = 'a'\nrun_folder = '../runs/x'\nprotocol = 'robust'\nseed = 0"
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    write(shipped, "index", new_markdown_cell("# Index\n\n> As shipped"))
    write(shipped, "00_data", new_markdown_cell("# Cells\n\n> As shipped"))
    count = "from pathlib import Path\nfolder = Path(run_folder)\nfolder.mkdir(exist_ok=True, parents=True)\n"
    count += "(folder / 'split.txt').open('a').write(str(seed))"
    write(shipped, "02_split", new_markdown_cell("# Split\n\n> A line"), tagged, new_code_cell(count))
    fail = "from pathlib import Path\nif (Path(run_folder) / 'stop').exists():\n    raise ValueError('no\\nmore genes')"
    write(shipped, "06_masking", new_markdown_cell("# Masks\n\n> A line"), tagged, new_code_cell(fail))

    class Checked:
        type_counts = pd.Series({"T cell": 3, "B | cell": 2})

    monkeypatch.setattr(book, "chapters_folder", lambda: shipped)
    monkeypatch.setattr(book, "load_cells", lambda cells, label_key: None)
    monkeypatch.setattr(book, "check_cells", lambda adata, label_key, min_cells: Checked)
    return tmp_path / "out"


def test_book_runs_goes_on_and_refuses(small_book: Path) -> None:
    (small_book / "run").mkdir(parents=True)
    (small_book / "run" / "stop").touch()
    with pytest.raises(InputError, match="not empty"):
        book.run_book("pbmc68k", "bulk_labels", small_book)
    (small_book / "run" / "stop").unlink()
    (small_book / "run").rmdir()

    index = book.run_book("pbmc68k", "bulk_labels", small_book, seed=3)
    page = index.read_text(encoding="utf-8")
    assert "Gene panels for pbmc68k" in page and "5 cells of 2 types" in page and "T cell" in page
    assert (small_book / "run" / "split.txt").read_text() == "3"
    assert {"index.html", "data.html", "split.html", "masking.html"} <= {path.name for path in index.parent.iterdir()}
    assert book.check_links(small_book / "site").empty
    metadata = json.loads((small_book / "notebooks" / "02_split.ipynb").read_text())["metadata"]
    assert metadata["papermill"]["parameters"]["seed"] == 3

    (small_book / "notebooks" / "06_masking.ipynb").unlink()
    (small_book / "run" / "stop").touch()
    with pytest.raises(InputError, match="chapter 06_masking of the book stopped.*more genes"):
        book.run_book("pbmc68k", "bulk_labels", small_book, seed=3)
    assert not (small_book / "notebooks" / "06_masking.ipynb").exists()

    (small_book / "run" / "stop").unlink()
    book.run_book("pbmc68k", "bulk_labels", small_book, seed=3)
    assert (small_book / "run" / "split.txt").read_text() == "3", "a chapter that was done ran again"
    with pytest.raises(InputError, match="another|other settings"):
        book.run_book("pbmc68k", "bulk_labels", small_book, seed=4)


def test_a_missing_package_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "papermill", None)
    with pytest.raises(InputError, match=r"selectormlp\[book\]"):
        book.book_package("papermill")
