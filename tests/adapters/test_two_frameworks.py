"""TensorFlow and PyTorch in one process, where Triton, which crashes on TensorFlow's libraries, is installed."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("torch")

OPEN = """
import sys
from pathlib import Path
import numpy as np
import deepjudge_core as dj
{first}
import torch
model = dj.open_model(torch.nn.Linear(2, 3), input_shape=(2,))
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
"""
FILE = "import keras; keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save('model.keras')"


@pytest.mark.parametrize(
    "first",
    ["dj.open_model(Path('model.keras'))", "import tensorflow"],
    ids=["a-model-of-keras", "tensorflow-of-the-user"],
)
def test_pytorch_loads_no_triton_after_tensorflow(tmp_path, first):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("import os\nos._exit(7)\n")  # as the crash: nobody can catch it
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": "tensorflow"}
    for code in (FILE, OPEN.format(first=first)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
