#!/bin/bash
# The original's workflow, by its own settings: bash workflow.sh, with raw_data/adata.h5ad.gz beside it.
set -euo pipefail
selectormlp split_data --config split_data.json
selectormlp train --config train.json --model_type selector_mlp
selectormlp train --config train.json --model_type svm
selectormlp feature_selection --config feature_selection.json \
    --model_path trained_models/SelectorMLP_best_model.pkl --model_type selector_mlp
selectormlp feature_selection --config feature_selection.json \
    --model_path trained_models/SVM_best_model.pkl --model_type svm
