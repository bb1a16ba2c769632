"""Training in two processes: Lightning's arguments pass through, and the result is that of one process."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
import numpy as np
from selectormlp.classifiers import SelectorMLPClassifier

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 60)
    x = rng.normal(size=(120, 20)).astype(np.float32)
    x[:60, 0] += 3
    settings = dict(hidden_sizes=(8,), max_epochs=2, batch_norm=False, dropout=0.0, noise=0.0)
    one = SelectorMLPClassifier(**settings, trainer_arguments={"accelerator": "cpu"}).fit(x, y)
    two = SelectorMLPClassifier(
        **settings, trainer_arguments={"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    ).fit(x, y)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        np.testing.assert_allclose(two.feature_importances_, one.feature_importances_, rtol=0.02, atol=0.02)
        np.testing.assert_allclose(two.history_["validation_loss"], one.history_["validation_loss"], rtol=0.01)
        print("the same")
"""


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "the same" in done.stdout, done.stderr[-2000:]
