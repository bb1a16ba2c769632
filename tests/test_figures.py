"""The figures: no legend lies on a curve, no title on a label, no interval leaves the axes that it is drawn in."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from selectormlp import study as study_module
from selectormlp.classifiers import plot_histories
from selectormlp.generalisation import plot_ablation


def drawn(figure: Figure) -> Any:
    """Draw a figure and give the renderer that knows where everything lies."""
    figure.canvas.draw()
    return figure.canvas.get_renderer()


def curves_under_legends(figure: Figure) -> list[str]:
    """Name the curves that run through a legend of the figure."""
    renderer, faults = drawn(figure), []
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    for legend in legends:
        box = legend.get_window_extent(renderer)
        for ax in figure.axes:
            for line in ax.get_lines():
                at = line.get_path().interpolated(50).vertices
                if any(box.contains(*point) for point in line.get_transform().transform(at)):
                    faults.append(str(line.get_label()))
    return faults


def texts_on_texts(figure: Figure) -> list[tuple[str, str]]:
    """Name each pair of titles and labels of axes that lie on each other, or closer than a point."""
    renderer = drawn(figure)
    texts = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label) if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(figure.dpi / 72)) for text in texts]
    return [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if a.overlaps(b)]


@pytest.fixture
def study() -> Any:
    """A study whose curves fill the axes, as on cells that are easy to tell apart."""
    epochs = np.arange(1, 31)
    waves = {f"{part}_{measure}": 0.95 + 0.05 * np.sin(epochs) for part in ("train", "validation")
             for measure in ("loss", "accuracy")}  # fmt: skip
    curve = pd.DataFrame({"model": "mlp", "order": -1, "n_genes": [0, 10, 20], "accuracy": [0.1, 0.9, 0.95]})
    return SimpleNamespace(
        history=lambda name: pd.DataFrame({"epoch": epochs, **waves}),
        masking=lambda: curve,
        panel_masking=lambda: curve,
        panel_sizes=lambda: [200],
    )


def test_the_legend_of_the_learning_curves_lies_on_none_of_them(study: Any) -> None:
    names = ("mlp", "selector_none", "selector_l1", "selector_l2", "selector_clamped_l1")
    figure = study_module._figure_curves(study, names).figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] and len(figure.axes) == 2
    assert curves_under_legends(figure) == [] and texts_on_texts(figure) == []
    plt.close(figure)
    _, ax = plt.subplots()
    plot_histories({name: study.history(name) for name in names}, measure="accuracy", ax=ax)
    assert curves_under_legends(ax.figure), "the test does not see a legend over curves"
    plt.close(ax.figure)


def test_the_titles_of_the_masking_figure_touch_no_label(study: Any) -> None:
    figure = study_module._figure_masking(study).figure
    assert texts_on_texts(figure) == []
    figure.get_layout_engine().set(hspace=0, h_pad=0)
    assert texts_on_texts(figure), "the test does not see a title on a label"
    plt.close(figure)


def test_the_intervals_of_shares_end_within_their_axes() -> None:
    values = {10: [0.02, 0.3, 0.7], 20: [0.9, 0.99, 1.0]}
    rows = [("a", n, seed, value) for n, found in values.items() for seed, value in enumerate(found)]
    ax = plot_ablation(pd.DataFrame(rows, columns=["classifier", "n_cells", "seed", "balanced_accuracy"]))
    ends = np.concatenate([segment[:, 1] for segment in ax.containers[0][2][0].get_segments()])
    low, high = ax.get_ylim()
    assert low < ends.min() == 0 and 0.999 < ends.max() <= 1 < high
    plt.close(ax.figure)
