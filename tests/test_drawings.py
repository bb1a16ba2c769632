"""Drawings: what a browser shows is what the tables say, at every state, and no name can break the page."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scripts import chromium

from selectormlp.data import InputError
from selectormlp.drawings import _sliding_bars, _svg_drawing
from selectormlp.inspection import slide_panel
from selectormlp.models import NetworkShape, SelectorNet, _network_layers, draw_network

WORDS = {"step": "number of genes", "name": "accuracy", "label": "recall", "words": "A line that rises, and bars."}
SIZES = pd.Index([1, 5, 50])


@pytest.fixture
def browser() -> Iterator[Any]:
    """A browser."""
    executable = chromium()
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])


@pytest.fixture
def tables() -> tuple[pd.Series, pd.DataFrame]:
    """Three states of a line and of two bars, one of them below zero and with an odd name."""
    bars = pd.DataFrame({"alpha": [0.25, 0.5, 1.0], '</script><b>"&': [-0.1, 0.0, 0.75]}, SIZES)
    return pd.Series([0.2, 0.6, 0.9], SIZES), bars


def test_a_browser_draws_each_state(tables, tmp_path, browser) -> None:
    page = tmp_path / "page.html"
    html = _sliding_bars(*tables, **WORDS).html
    page.write_text(f'<!doctype html><meta charset="utf-8">{html}{html}', encoding="utf-8")
    tab = browser.new_page()
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(page.as_uri())
    for place, says in [("0", "number of genes 1: accuracy 0.200"), ("2", "number of genes 50: accuracy 0.900")]:
        tab.locator("input").last.fill(place)
        assert tab.locator("output").last.inner_text() == says
    assert tab.locator("output").first.inner_text().endswith("0.900")  # a figure of its own, at its last state
    wide = [float(bar.get_attribute("width")) for bar in tab.locator("svg").last.locator("rect").all()]
    assert np.isclose(wide[1] / wide[0], 0.75) and not faults
    tab.locator("input").last.fill("0")
    texts = tab.locator("svg").last.locator("text").all_text_contents()
    assert texts[1:] == ["alpha", "0.25", '</script><b>"&', "-0.10"]
    tab.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line, bars: (line[:2], bars), "2 states, the bars have 3"),
        (lambda line, bars: (line[:0], bars[:0]), "at least one"),
        (lambda line, bars: (line, bars[[]]), "0 columns"),
        (lambda line, bars: (line[::-1], bars[::-1]), "do not increase"),
        (lambda line, bars: (line.where(line > 0.5), bars), "missing"),
        (lambda line, bars: (line, bars.where(bars > 0)), "missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tables, change, says) -> None:
    with pytest.raises(InputError, match=says):
        _sliding_bars(*change(*tables), **WORDS)


def test_a_drawing_needs_words() -> None:
    with pytest.raises(InputError, match="no words"):
        _svg_drawing("", width=1, height=1, words="")
    assert "&quot;" in _svg_drawing("", width=1, height=1, words='a "word"').html


@pytest.mark.parametrize("selector", ["free", "clamped", "none"])
def test_the_plan_counts_the_weights_of_the_network(selector) -> None:
    shape = NetworkShape(n_genes=50, n_types=3, selector=selector, hidden_sizes=(20, 10))
    layers, network = _network_layers(shape), SelectorNet(shape)
    own = 0 if network.selector is None else 50
    assert sum(layer[2] for layer in layers) == own + sum(p.numel() for p in network.parameters() if p.dim() == 2)
    words = draw_network(shape).words
    assert all(word in words for word in ("50 genes", "20 hidden 1", "3 cell types"))
    assert ("selector" in words) == bool(own)


def test_of_many_types_the_hardest_are_shown() -> None:
    rows = [(n, f"type {t:02}", min(1, n / (t + 1))) for n in (1, 2, 4) for t in range(40)]
    figure = slide_panel(pd.DataFrame(rows, columns=["n_genes", "type", "recall"]), n_types=3)
    assert '"columns": ["type 37", "type 38", "type 39"]' in figure.html
