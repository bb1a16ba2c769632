"""Small gene panels from labelled single-cell data. Everything here is imported from its module when first used."""

__version__ = "0.1.0"

_MODULE_OF = {
    name: module
    for module, names in {
        "data": "InputError check_cells choose_variable_genes load_pancreas normalise prepare_cells",
        "identity": "match_genes",
        "readers": "fetch_brain load_cells load_pbmc68k read_cells",
        "simulation": "simulate_cells simulate_to_file",
        "split": "CellSplit read_split split_batches split_cells",
        "classifiers": "LinearSVMClassifier SelectorMLPClassifier make_classifier",
        "saving": "align_genes annotate_cells load_model save_model",
        "collection": "ModelCollection open_model",
        "masking": "masking_curve random_masking_curve rank_genes",
        "panels": "GenePanel panel_from_ranking panel_overlap read_panel",
        "evaluation": "compare_panels confusion_table plot_embedding score_panel score_predictions",
        "generalisation": "ablation_curve group_transfer hold_out_types top_types unknown_detection",
        "study": "StudyConfig open_study run_study",
        "book": "run_book",
        "selection": "DesignedPanel PanelDesign describe_panel extend_panel remake_panel select_genes",
        "lists": "ListComparison compare_lists write_comparison",
        "pipeline": "GeneSelector",
        "orders": "order_table write_order",
        "desk": "OpenDesk design_panel",
        "tabnet": "TabNetClassifier PretrainedEncoder explain_cells explain_types pretrain_tabnet",
        "bulk": "cross_validated_scores load_nci60 read_samples score_interval",
        "sources": "open_cells read_usable",
        "peers": "LabelledCells PEERS Peer available_peers choose_with",
    }.items()
    for name in names.split()
}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Import a public name from its module (PEP 562), so that `import selectormlp` stays quick."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'selectormlp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"selectormlp.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
