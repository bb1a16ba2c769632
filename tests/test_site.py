"""The pages: rendering without nbdev, links, and the reader's own copy of the book."""

import ast
import inspect
import json
import os
import re
import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from scripts import chromium, tool

from selectormlp import book, site
from selectormlp.data import InputError

ROOT = Path(__file__).resolve().parent.parent
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
        contents: [15_masking.ipynb]
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
    write(notebooks, "15_masking", new_markdown_cell("# Masks\n\n> Fewer genes"), new_markdown_cell("## Why\n\nSo."))
    (folder / "_quarto.yml").write_text(FRAME, encoding="utf-8")
    return site._render_site(notebooks, folder / "site", folder / "_quarto.yml").read_text(encoding="utf-8")


def test_a_chapter_shows_its_number_and_a_page_has_none(tmp_path: Path) -> None:
    page = build(tmp_path)
    assert "15. Masks" in page and ">Start: a" in page  # in the list of chapters, too
    masks = (tmp_path / "site" / "masking.html").read_text(encoding="utf-8")
    assert re.search(r'<h1 class="title">15\. Masks</h1>', masks)
    head = new_raw_cell("---\ndescription: a line\ntitle: The original's steps\n\n---\n\n")
    (moved,) = site._move_title([head], "38")
    assert yaml.safe_load(moved.source.strip("-")) == {"description": "a line", "title": "38. The original's steps"}


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
    assert site._check_links(tmp_path / "site").empty


def test_links_between_chapters_and_absolute_links(tmp_path: Path) -> None:
    text = "[a](15_masking.ipynb#why) [b](15_masking.html) [c](https://example.org/tiny/masking.html) [d](https://pypi.org)"
    page = build(tmp_path, new_markdown_cell(text))
    assert page.count('href="masking.html"') >= 2 and 'href="masking.html#why"' in page
    assert site._check_links(tmp_path / "site").empty


def test_pages_of_folders_keep_flat_addresses(tmp_path: Path) -> None:
    guides = tmp_path / "notebooks" / "guides"
    for folder in (guides, guides.with_name(".ipynb_checkpoints")):
        folder.mkdir(parents=True)
        write(
            folder,
            "from_r",
            new_markdown_cell("# From R\n\n> A line"),
            new_markdown_cell("[m](../15_masking.ipynb#why)"),
        )
    write(guides, "_from_r", new_markdown_cell("# A copy\n\n> A line"))
    page = build(tmp_path, new_markdown_cell("[r](guides/from_r.ipynb) [the same](./guides/from_r.html)"))
    assert page.count('href="from_r.html"') == 2
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert pages == {"index.html", "masking.html", "from_r.html"} and site._check_links(tmp_path / "site").empty
    assert 'href="masking.html#why"' in (tmp_path / "site" / "from_r.html").read_text(encoding="utf-8")
    repository = "title: Tiny\n  repo-url: https://example.org/r\n  repo-actions: [edit, source]"
    frame = FRAME.replace("title: Tiny", repository).replace("07_absent", "guides/from_r")
    (tmp_path / "_quarto.yml").write_text(frame, encoding="utf-8")
    site._render_site(tmp_path / "notebooks", tmp_path / "site", tmp_path / "_quarto.yml")
    page = (tmp_path / "site" / "from_r.html").read_text(encoding="utf-8")
    assert "https://example.org/r/edit/main/nbs/guides/from_r.ipynb" in page and "Later" in page


def test_two_notebooks_are_never_one_page(tmp_path: Path) -> None:
    (tmp_path / "notebooks" / "guides").mkdir(parents=True)
    write(tmp_path / "notebooks" / "guides", "masking", new_markdown_cell("# Masks\n\n> Others"))
    with pytest.raises(InputError, match="15_masking and guides/masking would both become masking.html"):
        build(tmp_path)


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
    assert list(site._check_links(tmp_path / "site")["problem"]) == [problem]


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
    write(shipped, "15_masking", new_markdown_cell("# Masks\n\n> A line"), tagged, new_code_cell(fail))

    class Checked:
        type_counts = pd.Series({"T cell": 3, "B | cell <unknown>": 2})

    for module in (site, book):
        monkeypatch.setattr(module, "_chapters_folder", lambda: shipped)
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
    assert "Gene panels for pbmc68k" in page and "5 cells of 2 types" in page
    assert "T cell" in page and "B | cell &lt;unknown&gt;" in page
    assert (small_book / "run" / "split.txt").read_text() == "3"
    assert {"index.html", "data.html", "split.html", "masking.html"} <= {path.name for path in index.parent.iterdir()}
    assert site._check_links(small_book / "site").empty
    metadata = json.loads((small_book / "notebooks" / "02_split.ipynb").read_text())["metadata"]
    assert metadata["papermill"]["parameters"]["seed"] == 3

    (small_book / "notebooks" / "15_masking.ipynb").unlink()
    (small_book / "run" / "stop").touch()
    with pytest.raises(InputError, match="chapter 15_masking of the book stopped.*more genes"):
        book.run_book("pbmc68k", "bulk_labels", small_book, seed=3)
    assert not (small_book / "notebooks" / "15_masking.ipynb").exists()

    (small_book / "run" / "stop").unlink()
    book.run_book("pbmc68k", "bulk_labels", small_book, seed=3)
    assert (small_book / "run" / "split.txt").read_text() == "3", "a chapter that was done ran again"
    with pytest.raises(InputError, match="another|other settings"):
        book.run_book("pbmc68k", "bulk_labels", small_book, seed=4)


def test_a_book_of_cells_that_do_not_fit_keeps_what_a_split_can_take(
    small_book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import pandas as pd
    from anndata import AnnData, read_h5ad

    read, loaded = [], []
    large = tmp_path / "atlas.h5ad"
    obs = pd.DataFrame({"a": ["x"] * 9 + ["y"] * 9}, index=[f"cell_{i}" for i in range(18)])
    AnnData(np.random.default_rng(0).poisson(2, (18, 5)).astype(np.float32), obs).write_h5ad(large)
    os.utime(large, (0, 0))
    monkeypatch.setattr(book, "load_cells", lambda cells, label_key: loaded.append(cells))
    real = book._read_for_book
    monkeypatch.setattr(book, "_read_for_book", lambda *given: read.append(real(*given)) or read[-1])
    pages = []
    for _ in range(2):
        pages.append(book.run_book(large, "a", small_book, on_disk="yes").read_text(encoding="utf-8"))
    kept = small_book / "cells.h5ad"
    assert len(read) == 1 and loaded == [kept] and read_h5ad(kept).shape == (18, 5)
    assert pages[0] == pages[1] and "that a split can take, kept in <code>cells.h5ad</code>" in pages[0]
    assert "Gene panels for atlas.h5ad" in pages[0]
    notebook = json.loads((small_book / "notebooks" / "15_masking.ipynb").read_text())
    assert notebook["metadata"]["papermill"]["parameters"]["cells"] == str(kept)
    assert (small_book / "run" / "split.txt").read_text() == "0", "a chapter that was done ran again"
    os.utime(large)
    os.utime(kept, (1, 1))
    book.run_book(large, "a", small_book, on_disk="yes")
    assert len(read) == 2 and (small_book / "run" / "split.txt").read_text() == "00"
    with pytest.raises(InputError, match="other settings"):
        book.run_book(large, "a", small_book, on_disk="no")


def test_a_missing_package_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "papermill", None)
    with pytest.raises(InputError, match=r"selectormlp\[book\]"):
        site._book_package("papermill")


def test_a_page_begins_with_a_way_to_its_text_and_names_its_parts(tmp_path: Path) -> None:
    page = build(tmp_path)
    first = re.search(r"<body[^>]*><a [^>]*>", page)
    assert first and 'href="#quarto-document-content"' in first[0]
    assert '<main class="content" tabindex="-1"' in page
    assert 'role="navigation"' not in page and 'role="img"' not in page
    toggles = re.findall(r'<(\w+) [^>]*data-bs-toggle="collapse"', page)
    assert toggles and set(toggles) == {"button"}


def test_links_to_the_source_name_the_notebook_and_a_readers_own_book_has_none(tmp_path: Path) -> None:
    page = build(tmp_path)
    notebooks = tmp_path / "notebooks"
    (notebooks / "CHANGES.md").write_text("# Changes\n\n[masks](15_masking.ipynb)\n", encoding="utf-8")
    links = "title: Tiny\n  repo-url: https://example.org/r\n  repo-actions: [edit, source]"
    frame = FRAME.replace("title: Tiny", links)
    (tmp_path / "_quarto.yml").write_text(frame, encoding="utf-8")
    site._render_site(notebooks, tmp_path / "site", tmp_path / "_quarto.yml")
    page = (tmp_path / "site" / "masking.html").read_text(encoding="utf-8")
    assert "https://example.org/r/edit/main/nbs/15_masking.ipynb" in page
    page = (tmp_path / "site" / "changes.html").read_text(encoding="utf-8")
    assert "https://example.org/r/blob/main/CHANGES.md" in page and 'href="masking.html"' in page
    site._render_site(notebooks, tmp_path / "site", tmp_path / "_quarto.yml", title="My cells")
    assert "/edit/" not in (tmp_path / "site" / "masking.html").read_text(encoding="utf-8")


def test_search_knows_the_words_of_outputs(tmp_path: Path) -> None:
    table = '<style>td {color: red}</style><table><tr><td>GCG</td><td title="odd">0.5</td></tr></table>'
    output = new_output("display_data", data={"text/html": f"<div>{table}</div>"})
    build(tmp_path, new_markdown_cell("## Genes"), new_code_cell("show()", outputs=[output]))
    entries = json.loads((tmp_path / "site" / "search.json").read_text(encoding="utf-8"))
    (entry,) = [entry for entry in entries if entry["href"] == "index.html#genes"]
    assert entry["text"] == "show() GCG"


def test_the_version_is_the_same_everywhere() -> None:
    from selectormlp import __version__

    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion = {__version__}\n" in settings and f"\nversion: {__version__}\n" in citation
    versions = re.findall(r"^## \[(\S+?)\]", changes, re.MULTILINE)
    assert versions[0] == "Unreleased" and __version__ not in versions[2:]
    for key in ("title", "description"):
        value = re.search(rf"^{key} = (.+)$", settings, re.MULTILINE)
        assert value and re.search(rf"^(title|abstract): {re.escape(value[1])}$", citation, re.MULTILINE)


def test_every_page_says_its_version_and_shows_a_card(tmp_path: Path) -> None:
    from selectormlp import __version__

    build(tmp_path)
    (tmp_path / "notebooks" / "CONTRIBUTING.md").write_text("# Taking part\n", encoding="utf-8")
    site._render_site(tmp_path / "notebooks", tmp_path / "site", ROOT / "_quarto.yml")
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert f"selectormlp {__version__}" in text.partition("<footer")[2] and "{version}" not in text
        assert re.search(r'<link rel="icon" href="icon.svg">', text)
        assert re.search(r'<meta property="og:image" content="https://[^"]+/card.png">', text)
        assert 'href="contributing.html"' in text and "/edit/main/" in text


def test_large_pages_are_named(tmp_path: Path) -> None:
    (tmp_path / "small.html").write_text("x")
    (tmp_path / "large.html").write_text("x" * 1_000_001)
    assert tool("build_site").too_large(tmp_path) == ["large.html is larger than 1 MB"]


def test_the_page_for_wrong_addresses_works_from_any_address(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text(build(tmp_path), encoding="utf-8")
    tool("build_site").serve_anywhere(tmp_path / "404.html", "https://example.org/tiny")
    page = site._read_page(tmp_path / "404.html")
    assert {link[:6] for link in page.loads} == {"/tiny/"} and "/tiny/masking.html" in page.links
    assert "#quarto-document-content" in page.links


def test_a_check_that_cannot_be_made_is_called_skipped(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    check = tool("check")

    def made(result: bool | None) -> Mock:
        return Mock(return_value=result, __doc__="A check.")

    results = {"good": made(True), "none": made(None)}
    monkeypatch.setattr(check, "CHECKS", results)
    assert check.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all checks passed; skipped on this machine: none"
    monkeypatch.setitem(results, "bad", made(False))
    assert check.main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "checks failed: bad; skipped on this machine: none"


def test_without_a_browser_no_page_is_called_checked(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    check_site, check = tool("check_site"), tool("check")
    monkeypatch.setattr("sys.argv", ["check_site.py"])
    monkeypatch.setenv("PATH", "")
    assert check_site.main() == check_site.SKIPPED == check.SKIPPED
    assert "no page was opened in a browser" in capsys.readouterr().out


FAULTS = {
    "<p style='color: #999'>pale</p>": "color-contrast",
    "<img src='icon.svg' alt='a dot'>": 'a picture says "a dot"',
    "<img src='gone.svg' alt='a description of enough letters'>": "a picture is not there",
    "<p><span style='display: inline-block; width: 500px'>wide</span></p>": "cut off on the right",
    "<span onclick='1'>press</span>": "only a mouse can use",
    "<a href='#top' style='outline: 0 !important'>unseen</a>": "focus is not seen",
    "<a href='#top' style='position: absolute; left: -900px'>far</a>": "focus is off the page",
    "<figure style='height: 40cm'>high</figure>": "higher than the paper",
    "<script>throw new Error('a slip')</script>": "script error: a slip",
    "<script>console.error('a complaint')</script>": "console: a complaint",
    "<img src='https://example.org/x.png' alt='a picture from elsewhere'>": "a request to https://example.org/x.png",
    "<button></button>": "button-name",
}


def test_the_browser_finds_every_fault_that_is_planted(tmp_path: Path) -> None:
    check_site = tool("check_site")
    executable = chromium()
    build(tmp_path)
    site = tmp_path / "site"
    for name in ("icon.svg", "styles.css"):
        shutil.copy(ROOT / "nbs" / name, site / name)
    page = (site / "masking.html").read_text(encoding="utf-8")
    page = page.replace("</head>", '<link rel="icon" href="icon.svg"><link rel="stylesheet" href="styles.css"></head>')
    (site / "good.html").write_text(page, encoding="utf-8")
    (site / "bad.html").write_text(page.replace("</main>", "\n".join([*FAULTS, "</main>"])), encoding="utf-8")
    (site / "404.html").write_text(page, encoding="utf-8")
    found = check_site.look_at_pages(site, tmp_path / "pictures", ["good", "bad"], executable)
    assert [fault for page, fault in found if page == "good.html"] == []
    said = [fault for page, fault in found if page == "bad.html"]
    missed = [fault for fault in FAULTS.values() if not any(fault in words for words in said)]
    assert missed == []
    kept = {"good.pdf", "good_desk_light.jpg", "good_desk_dark.jpg", "good_phone_light.jpg"}
    assert {path.name for path in (tmp_path / "pictures").glob("good*")} == kept


def test_the_reference_leads_to_every_public_name_and_to_an_example(tmp_path: Path) -> None:
    reference = tool("reference")
    export = '<details><summary>Exported source</summary><code class="sourceCode python">x(1)</code></details>'
    signature = '<code class="sourceCode python">def y(a)</code>'
    cell = '<div id="cell-3" class="cell"><code class="sourceCode python"><span>z</span>(2)</code></div>'
    (tmp_path / "page.html").write_text(f'<section id="one">{export}{signature}{cell}', encoding="utf-8")
    assert list(reference.shown_code(tmp_path / "page.html")) == [("page.html#cell-3", {"z"})]
    names = reference.public_names("split")
    assert {"split_cells", "CellSplit"} <= set(names) and "PARTS" not in names and all(names.values())
    assert reference.makers(["split"])["CellSplit"] == {"read_split", "split_cells", "split_batches"}


def every_name() -> list[str]:
    """List every public function and class of every module, and the public methods of the classes."""
    names = []
    for module in tool("build_site").exported_modules(sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))):
        library = import_module(f"selectormlp.{module}")
        for name in library.__all__:
            thing = getattr(library, name)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == library.__name__:
                names += [f"{module}:{name}", *(f"{module}:{name}.{own}" for own, _ in methods_of(thing))]
    return names


def methods_of(thing: Any) -> list[tuple[str, Any]]:
    return [(name, each) for name, each in tool("documentation").methods(thing) if not isinstance(each, property)]


@pytest.mark.parametrize("place", every_name())
def test_signatures_on_the_site_are_those_of_the_library(place: str) -> None:
    """What stands on a page is read as Python and compared with inspect.signature: names, kinds, types, defaults."""
    module, _, name = place.partition(":")
    thing: Any = import_module(f"selectormlp.{module}")
    for part in name.split("."):
        thing = getattr(thing, part)
    page = tool("build_site").documented_by_us(f"---\n\n### {name}\n\n```python\ndef nbdev():\n```\n", module)
    shown = re.search(r"```python\n(?:def|class) [\w.]+(.*?)\n```", page, re.DOTALL)
    assert shown and "nbdev" not in page
    if not shown[1]:
        assert inspect.isclass(thing) and issubclass(thing, Exception)
        return
    (function,) = ast.parse(f"def shown{shown[1]}: ...").body
    assert isinstance(function, ast.FunctionDef)
    real = inspect.signature(thing)
    own = [each for each in real.parameters.values() if each.name not in ("self", "cls")]
    assert as_shown(function.args) == [
        (each.kind, each.name, code(each.annotation), default_of(thing, each)) for each in own
    ]
    gives = inspect.Signature.empty if inspect.isclass(thing) else real.return_annotation
    assert (ast.unparse(function.returns) if function.returns else "") == code(gives)


def code(annotation: Any) -> str:
    """Return an annotation as normalised code, nothing where there is none."""
    if annotation is inspect.Signature.empty:
        return ""
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return ast.unparse(ast.parse(written, mode="eval"))


def default_of(thing: Any, parameter: inspect.Parameter) -> str:
    """Return the default of a parameter as normalised code."""
    fields = getattr(thing, "__dataclass_fields__", {})
    made = repr(parameter.default) == "<factory>"
    default = fields[parameter.name].default_factory() if made else parameter.default
    if default is inspect.Parameter.empty:
        return ""
    try:
        return ast.unparse(ast.parse(repr(default), mode="eval"))
    except SyntaxError:  # what is no code, such as a table or an object
        return "..."


def as_shown(given: ast.arguments) -> list[tuple[Any, str, str, str]]:
    """List kind, name, annotation and default of the parameters of parsed code."""
    kinds, plain = inspect.Parameter, [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(given.defaults)), *given.defaults]
    rows = [(kinds.POSITIONAL_ONLY if each in given.posonlyargs else kinds.POSITIONAL_OR_KEYWORD, each, default)
            for each, default in zip(plain, defaults, strict=True)]  # fmt: skip
    rows += [(kinds.VAR_POSITIONAL, given.vararg, None)] if given.vararg else []
    rows += [
        (kinds.KEYWORD_ONLY, each, default) for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    rows += [(kinds.VAR_KEYWORD, given.kwarg, None)] if given.kwarg else []
    text = [
        tuple("" if part is None else ast.unparse(part) for part in (each.annotation, default))
        for _, each, default in rows
    ]
    return [(kind, each.arg, *parts) for (kind, each, _), parts in zip(rows, text, strict=True)]


def test_a_long_signature_has_a_line_for_each_parameter_and_its_star() -> None:
    def choose(
        first: int, /, adata: Path, *, n_genes: int = 100, exclude: "list[str] | None" = None, seed: int = 0
    ) -> Path:
        return adata

    shown = tool("documentation").signature_text("choose", choose).split("\n")
    assert shown[:3] == ["def choose(", "    first: int,", "    /,"]
    assert shown[4:7] == ["    *,", "    n_genes: int = 100,", "    exclude: list[str] | None = None,"]
    assert shown[-1] == ") -> pathlib.Path"
    assert tool("documentation").signature_text("short", lambda *, a=1: a) == "def short(*, a=1)"


def test_the_sections_of_a_documentation_become_tables() -> None:
    text = tool("documentation").documentation_text(
        "Choose genes.\n\nMore.\n\n"
        "Parameters\n----------\nn : int, default 5\n    How many; a | b.\n\nReturns\n-------\n"
        "list of str\n    Names.\n\nReferences\n----------\n.. [1] A. doi:10.1/x\n\nExamples\n--------\n>>> 1\n1\n"
    )
    assert "| `n` | int | `5` | How many; a \\| b. |" in text and "| list of str | Names. |" in text
    assert "1. A. [doi:10.1/x](https://doi.org/10.1/x)" in text and "```pycon\n>>> 1\n1\n```" in text
    assert tool("documentation").documentation_text("One line.") == "One line."


def test_the_first_use_of_a_term_leads_to_the_glossary() -> None:
    link_terms = tool("build_site").link_terms
    terms, seen = {name: name.replace(" ", "-") for name in ("recall", "cell type", "masking", "masking curve")}, set()

    def to(words: str, place: str) -> str:
        return f"[{words}](glossary.ipynb#{place}){{.term}}"

    text = "# Recall\n\n{}, `recall`, [recall](x.html), unrecalled; a {} has {}. Recall!"
    links = [to("Cell types", "cell-type"), to("masking curve", "masking-curve"), to("recalls", "recall")]
    assert link_terms(text.format("Cell types", "masking curve", "recalls"), terms, seen) == text.format(*links)
    text = "| masking |\n<b>masking</b>\n$masking$\n~~~\nmasking\n~~~\n{} and cell type"
    assert link_terms(text.format("Masking"), terms, seen) == text.format(to("Masking", "masking"))


@pytest.mark.parametrize(
    "words",
    [
        "in double precision",
        "the average precision",
        "with batch norm",
        "batch normalization",
        "between two marker lines",
        "a gene that splits the types",
        "a forest splits importance",
        "the splits on a gene",
        "the splits of a tree",
    ],
)
def test_a_word_in_another_sense_leads_nowhere(words: str) -> None:
    link_terms, terms = (
        tool("build_site").link_terms,
        {name: name for name in ("precision", "batch", "marker", "split")},
    )
    assert link_terms(words, terms, set()) == words
    (term,) = [term for term in terms if term in words]
    later = link_terms(f"{words}; {term}", terms, set())
    assert later == f"{words}; [{term}](glossary.ipynb#{term}){{.term}}", "the first use in our sense is the link"


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_no_formula_in_a_table_holds_the_bar_that_ends_a_cell(path: Path) -> None:
    cells = nbformat.read(path, 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    rows = re.sub(r"`[^`]*`", "", "\n".join(re.findall(r"^\|.*$", text, re.MULTILINE))).split("\n")
    cut = [row for row in rows for piece in row.split("|") if len(re.findall(r"(?<!\\)\$", piece)) % 2]
    assert cut == [], "write \\lvert and \\rvert"


def test_the_glossary_names_each_word_once_and_leads_on() -> None:
    glossary = ROOT / "nbs" / "glossary.ipynb"
    terms = tool("build_site").glossary_terms(glossary)
    text = glossary.read_text(encoding="utf-8")
    assert len(terms) > 50 and len(terms) == text.count('"### ') + text.count("\\n### ")
    assert terms["f1"] == "f1" and terms["confidence interval"] == "confidence-interval"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "def a( x: int, y: str = (), ) -> dict[str, tuple[int, Any]] | None Make it.",
            "Make it. def a( x: int, y: str",
        ),
        ("class B( x: int = 3 ) The B.", "The B. class B( x: int = 3 )"),
        ("def a(x): return x", "def a(x): return x"),
        ("def a(x) -> int: return x", "def a(x) -> int: return x"),
        ("default (none) first", "default (none) first"),
    ],
)
def test_a_search_shows_what_a_function_does_before_its_signature(text: str, shown: str) -> None:
    assert site._signature_last(text).startswith(shown)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("_LIMIT = 3", "Exported source"),
        ('def f():\n    """Rank the "best" `genes`.\n\n    More."""', "Exported source: Rank the 'best' genes."),
        ('class _A:\n    pass\n\n\nclass B:\n    """A list."""', "Exported source: A list."),
    ],
)
def test_exported_source_is_folded_behind_a_line_that_says_what_it_does(source: str, line: str) -> None:
    cell = SimpleNamespace(cell_type="code", directives_={"exports": []}, source=source, get=lambda name: None)
    head = tool("build_site").arrange([cell])[0].source.splitlines()[:2]
    assert head == ["#| code-fold: true", f"#| code-summary: {json.dumps(line)}"]
