"""Make the slides from the chapters, as pages that need no network: reveal.js by nbconvert.

Each file slides_*.toml in nbs, or in a folder there, is a deck. A slide has a title, the minute of the class plan,
notes for the speaker, and `show`: what to pick out of an executed chapter. So slides say what the chapters say; what
cannot be found is an error.

    text     the sentence (or item of a list) that holds these words; `more` adds so many of those that follow
    item     the same, as an item of a list
    formula  the formula that holds these signs
    table    the table of the text that holds these words
    code     the cell of code that holds these words; `lines = [2, 9]` cuts it
    output   what that cell shows
    figure   the figure with this label
"""

import argparse
import base64
import html
import json
import re
import shutil
import struct
import sys
import tomllib
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
REVEAL = {  # what is copied from the package that carries reveal.js, and where it goes
    "dist/reveal.js": "reveal.js",
    "dist/reveal.css": "reveal.css",
    "dist/plugin/notes.js": "notes.js",
    "LICENSE": "LICENSE_reveal.js",
}
REFERENCES = {"eq": "formula", "fig": "figure", "tbl": "table"}
TEMPLATE = """
{%- extends 'reveal/index.html.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ nb.metadata.title }}</title>
<link rel="icon" href="../icon.svg">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="reveal/slides.css">
</head>
{%- endblock header -%}
{%- block body_header -%}
<body>
<main class="reveal">
<div class="slides">
{%- endblock body_header -%}
{%- block markdowncell -%}
{{ cell.source | markdown2html | strip_files_prefix }}
{%- endblock markdowncell -%}
{%- block body_footer -%}
</div>
</main>
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script>
Reveal.initialize({ width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t",
  transition: "none", pdfSeparateFragments: false, plugins: [RevealNotes] });
</script>
</body>
{%- endblock body_footer -%}
{%- block footer -%}
</html>
{%- endblock footer -%}
"""


class SlideError(Exception):
    """A slide asks for something that its chapter does not hold, or holds more than once."""


@cache
def chapter_cells(path: Path) -> list[dict[str, Any]]:
    """Read the cells of a chapter, each source as one text."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def only(found: list[Any], what: str) -> Any:
    """Return the one thing that was found."""
    if len(found) != 1:
        raise SlideError(f"{what} is in the chapter {len(found)} times, and must be there once; see the deck's table")
    return found[0]


def sentences(text: str) -> list[str]:
    """Divide Markdown into sentences; the items of a list, and what stands before it, are sentences too."""
    pieces = re.split(r"\n\s*\n|\n(?=(?:- |\d+\. ))", text)
    flat = [re.sub(r"\s+", " ", re.sub(r"^(?:- |\d+\. )", "", piece)).strip() for piece in pieces]
    ends = r"(?<=[.?!])\s+(?=[A-Z*`$\"])|(?<=[.?!]\*\*)\s+"
    return [sentence for piece in flat for sentence in re.split(ends, piece) if sentence]


def pick_text(cells: list[dict[str, Any]], words: str, more: int = 0) -> str:
    """Pick the sentence that holds these words, as a paragraph, without links."""
    lists = [sentences(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    places = [(found, i) for found in lists for i, sentence in enumerate(found) if words in sentence]
    found, first = only(places, f"the text {words!r}")
    text = " ".join(found[first : first + 1 + more])
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"@(eq|fig|tbl)-[\w-]+", lambda label: f"the {REFERENCES[label[1]]} above", text)


def pick_formula(cells: list[dict[str, Any]], words: str) -> str:
    """Pick the displayed formula that holds these signs."""
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    formulas = [found for found in re.findall(r"\$\$.+?\$\$", text, re.DOTALL) if words in found]
    return only(formulas, f"the formula {words!r}")


def pick_table(cells: list[dict[str, Any]], words: str) -> str:
    """Pick the Markdown table that holds these words."""
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    return only([found for found in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE) if words in found], repr(words))


def code_cell(cells: list[dict[str, Any]], words: str) -> dict[str, Any]:
    """Find the cell of code that holds these words."""
    return only([cell for cell in cells if cell["cell_type"] == "code" and words in cell["source"]], repr(words))


def pick_code(cells: list[dict[str, Any]], words: str, lines: tuple[int, int] | None = None) -> str:
    """Pick a cell of code, or some of its lines (the first is 1), without directives."""
    source = re.sub(r"^#\|.*\n", "", code_cell(cells, words)["source"], flags=re.MULTILINE).split("\n")
    shown = source if lines is None else source[lines[0] - 1 : lines[1]]
    return "\n".join(["```python", *shown, "```"])


def pick_output(cells: list[dict[str, Any]], words: str) -> str:
    """Pick what a cell shows: a table, or text."""
    parts = []
    for output in code_cell(cells, words)["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            table = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
            parts.append(re.sub(r"\n\s*\n", "\n", table))
        elif text := "".join(output.get("text", data.get("text/plain", ""))).strip():
            parts.append(f"```text\n{text}\n```")
    if not parts:
        raise SlideError(f"the cell with {words!r} shows nothing; run its chapter")
    return "\n\n".join(parts)


def pick_figure(cells: list[dict[str, Any]], label: str) -> str:
    """Pick the figure with this label; one that is not wide gets the class "tall"."""
    cell = code_cell(cells, f"#| label: {label}\n")
    images = [output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
    image = "".join(only(images, f"a picture of {label}").split())
    width, height = struct.unpack(">II", base64.b64decode(image[:64])[16:24])
    found = re.search(r'^#\| *fig-alt: *"?(.*?)"? *$', cell["source"], re.MULTILINE)
    alt = html.escape(found[1] if found else label)
    kind = "tall" if width < 1.7 * height else "wide"
    return f'<figure class="{kind}"><img src="data:image/png;base64,{image}" alt="{alt}"></figure>'


PICKS = {
    "text": pick_text,
    "item": lambda cells, words: f"- {pick_text(cells, words)}",
    "formula": pick_formula,
    "table": pick_table,
    "code": pick_code,
    "output": pick_output,
    "figure": pick_figure,
}


def pick(folder: Path, chapter: str, wanted: dict[str, Any]) -> str:
    """Pick one thing out of a chapter, as Markdown."""
    wanted = dict(wanted)
    cells = chapter_cells(folder / f"{wanted.pop('chapter', chapter)}.ipynb")
    kind = only([kind for kind in PICKS if kind in wanted], f"the kind of {wanted}")
    return PICKS[kind](cells, wanted.pop(kind), **wanted)  # type: ignore[operator]


def slide_text(folder: Path, slide: dict[str, Any]) -> str:
    """Write a slide as Markdown: its title, what it shows, and where that comes from."""
    from selectormlp.site import _page_name, _title_and_line

    chapter = slide["chapter"]
    try:
        pieces = [pick(folder, chapter, wanted) for wanted in slide["show"]]
    except SlideError as error:
        raise SlideError(f"slide {slide['title']!r}, chapter {chapter}: {error}") from None
    figures = [piece for piece in pieces if piece.startswith('<figure class="tall"')]
    if figures:
        others = [piece for piece in pieces if piece not in figures]
        pieces = ['<div class="beside"><div>', *others, "</div>", *figures, "</div>"]
    known = _title_and_line(chapter_cells(folder / f"{chapter}.ipynb")[0]["source"])
    name = known["title"] if known else chapter
    kind = "source exercise" if chapter == "teaching/exercises" else "source"
    page = _page_name(Path(chapter).name)
    source = f'<p class="{kind}">From the chapter <a href="../{page}.html">{html.escape(name)}</a></p>'
    return "\n\n".join([f"## {slide['title']}", *pieces, source])


def set_formulas_aside(text: str, kept: list[str]) -> str:
    """Exchange the formulas of a text for marks, and keep them as MathML; code is left alone."""
    from selectormlp.site import _formulas_to_mathml

    def aside(found: re.Match[str]) -> str:
        kind, left, right = ("display", "[", "]") if found[1] else ("inline", "(", ")")
        tex = html.escape(found[1] or found[2])
        kept.append(_formulas_to_mathml(f'<span class="math {kind}">\\{left}{tex}\\{right}</span>'))
        return f"formula{len(kept) - 1:03d}end"

    parts = re.split(r"(^```.*?^```|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    formula = r"\$\$(.+?)\$\$(?:\s*\{[^}]*\})?|\$([^$\n]+)\$"
    changed = [part if i % 2 else re.sub(formula, aside, part, flags=re.DOTALL) for i, part in enumerate(parts)]
    return "".join(changed)


def deck_page(folder: Path, deck: dict[str, Any]) -> str:
    """Write a deck as an HTML page."""
    from jinja2 import DictLoader
    from nbconvert.exporters import SlidesExporter
    from nbformat.v4 import new_markdown_cell, new_notebook

    formulas: list[str] = []
    cells = []
    for slide in deck["slides"]:
        text = set_formulas_aside(slide_text(folder, slide), formulas)
        notes = f"**Minute {slide['minute']}.** {slide['notes']}"
        cells.append(new_markdown_cell(text, metadata={"slideshow": {"slide_type": "slide"}}))
        cells.append(new_markdown_cell(notes, metadata={"slideshow": {"slide_type": "notes"}}))
    notebook = new_notebook(cells=cells, metadata={"title": deck["title"]})
    exporter = SlidesExporter(extra_loaders=[DictLoader({"deck.html.j2": TEMPLATE})], template_file="deck.html.j2")
    exporter.exclude_anchor_links = True
    page, _ = exporter.from_notebook_node(notebook)
    return re.sub(r"formula(\d{3})end", lambda found: formulas[int(found[1])], page)


def reveal_folder() -> Path:
    """Find reveal.js, which the package pyreveal carries."""
    return Path(str(distribution("pyreveal").locate_file("pyreveal"))) / "revealjs"


def code_colours() -> str:
    """Write the colours of code."""
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style="default").get_style_defs(".highlight")


def make_slides(folder: Path, destination: Path) -> list[Path]:
    """Write every deck of a folder of executed chapters, with what the decks need beside them."""
    tables = sorted([*folder.glob("slides_*.toml"), *folder.glob("*/slides_*.toml")])
    beside = destination / "reveal"
    beside.mkdir(parents=True, exist_ok=True)
    for source, name in REVEAL.items():
        shutil.copy(reveal_folder() / source, beside / name)
    style = (ROOT / "tools" / "slides.css").read_text(encoding="utf-8")
    (beside / "slides.css").write_text(f"{style}\n{code_colours()}\n", encoding="utf-8")
    decks = []
    for table in tables:
        deck = tomllib.loads(table.read_text(encoding="utf-8"))
        decks.append(destination / f"{table.stem.removeprefix('slides_')}.html")
        decks[-1].write_text(deck_page(folder, deck), encoding="utf-8")
    return decks


def main() -> int:
    """Read the arguments and make the slides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapters", type=Path, default=ROOT / "nbs", help="the folder of the executed chapters")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs" / "slides", help="where the slides go")
    arguments = parser.parse_args()
    try:
        for deck in make_slides(arguments.chapters, arguments.out):
            print(deck)
    except SlideError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
