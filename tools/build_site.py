"""Build the site of the project into _docs, without Quarto and without a network.

Three steps: nbdev puts the documentation of every exported name into the chapters (show_doc), names of the library in
backticks become links, and `selectormlp.book.render_site` makes the pages. Then every link is checked.
"""

import argparse
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("MPLBACKEND", "Agg")


def library_names() -> dict[str, str]:
    """Map the public names of the library to the places that document them, such as `masking.html#rank_genes`."""
    from selectormlp._modidx import d

    modules: Any = d["syms"]
    places = {
        name.removeprefix(f"{module}."): place
        for module, names in modules.items()
        for name, (place, _) in names.items()
    }
    return {name: place for name, place in places.items() if "." not in name and not name.startswith("_")}


def link_names(text: str, names: dict[str, str], page: str) -> str:
    """Turn names of the library in backticks into links, but not on the page that documents them, and not in code."""

    def link(found: re.Match[str]) -> str:
        place = names.get(found[1])
        return found[0] if place is None or place.startswith(f"{page}.html#") else f"[{found[0]}]({place})"

    parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)|^\#.*?$|\[[^\]]*\]\([^)]*\))", text, flags=re.MULTILINE | re.DOTALL)
    linked = [part if index % 2 else re.sub(r"`(\w+)(?:\(\))?`", link, part) for index, part in enumerate(parts)]
    return "".join(linked)


def as_documented(line: str) -> str:
    """Change a line of exported code as it has to run for its documentation: all types known, no command started."""
    if line.startswith("if __name__ =="):
        return "if False:\n"
    return line.replace("if TYPE_CHECKING:", "if True:")


def chapter_processors() -> list[Any]:
    """List nbdev's processors, less those that link names of other libraries and hide the exported code."""
    from nbdev.processors import FilterDefaults, exec_show_docs

    class ShowDocs(exec_show_docs):
        """Run the exported cells and show_doc only."""

        def __call__(self, cell: Any) -> None:
            if cell.source and ("show_doc(" in cell.source or {"export", "exports", "exporti"} & set(cell.directives_)):
                super().__call__(cell)

        def begin(self) -> None:
            super().begin()
            self.k.input_transformers_post.append(lambda lines: [as_documented(line) for line in lines])

    own = {"add_links", "add_fold", "mv_exports"}
    chosen = [processor for processor in FilterDefaults().base_procs() if processor.__name__ not in own]
    return [ShowDocs if processor is exec_show_docs else processor for processor in chosen]


def arrange(cells: list[Any]) -> list[Any]:
    """Put the documentation of exported code before the code, and fold code that defines nothing."""
    arranged: list[Any] = []
    for cell in cells:
        code = next((index for index in range(len(arranged) - 1, -1, -1) if not arranged[index].get("has_sd")), 0)
        if cell.get("has_sd"):
            while code and arranged[code - 1].get("has_sd"):
                code -= 1
            arranged.insert(code, cell)
            continue
        if cell.cell_type == "code" and "exports" in cell.directives_:
            opened = "show" if re.search(r"^(?:def|class|@)", cell.source, re.MULTILINE) else "true"
            cell.source = f'#| code-fold: {opened}\n#| code-summary: "Exported source"\n{cell.source}'
        arranged.append(cell)
    return arranged


def document(notebook_path: Path, destination: Path, names: dict[str, str]) -> None:
    """Write a chapter with the documentation of what it exports, its code shown below."""
    from execnb.nbio import read_nb, write_nb
    from nbdev.process import NBProcessor

    from selectormlp.book import page_name

    notebook = read_nb(notebook_path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^#\| *export\b", "#| exports", cell.source, flags=re.MULTILINE)
    NBProcessor(nb=notebook, procs=chapter_processors()).process()
    notebook.cells = arrange(notebook.cells)
    for cell in notebook.cells:
        cell.pop("has_sd", None)
        if cell.cell_type == "markdown":
            cell.source = link_names(cell.source, names, page_name(notebook_path.stem))
    write_nb(notebook, destination)


def document_chapters(chapters: list[Path], folder: Path) -> None:
    """Write every chapter, documented, into a folder, with the style sheet and pictures beside the chapters."""
    os.environ["IN_TEST"] = "1"
    names = library_names()
    for chapter in chapters:
        document(chapter, folder / chapter.name, names)
    for kind in ("*.css", "*.svg", "*.png"):
        for path in chapters[0].parent.glob(kind):
            shutil.copy(path, folder / path.name)


def build_site(chapters_folder: Path, site_folder: Path) -> int:
    """Build the site and return the number of broken links and outside requests, which are listed."""
    from selectormlp.book import check_links, render_site

    with tempfile.TemporaryDirectory() as folder:
        document_chapters(sorted(chapters_folder.glob("*.ipynb")), Path(folder))
        index = render_site(folder, site_folder, ROOT / "_quarto.yml")
    problems = check_links(site_folder)
    if len(problems):
        print(problems.to_string(index=False))
    print(f"{len(list(site_folder.glob('*.html')))} pages, {len(problems)} broken links or outside requests: {index}")
    return len(problems)


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapters", type=Path, default=ROOT / "nbs", help="the folder of the chapters")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="where the site goes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.chdir(ROOT)
    return int(build_site(arguments.chapters, arguments.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
