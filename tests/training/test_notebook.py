"""A class that is defined in a notebook, run by a real kernel, with an unpicklable dataset and a collate of its own."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DEFINE = """
import torch
from torch import nn
from smlt.frameworks.torch import TorchTask

CLASSES = 3

class Stripes:
    def __init__(self):
        self.unpicklable = lambda index: index % CLASSES
    def __len__(self):
        return 60
    def __getitem__(self, index):
        label = self.unpicklable(index)
        return {"x": torch.eye(CLASSES)[label] + 0.1 * torch.randn(CLASSES), "y": label}

class FromNotebook(TorchTask):
    def build_model(self):
        return nn.Linear(CLASSES, CLASSES)
    def build_optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=1.0)
    def train_data(self):
        return Stripes()
    def collate(self, items):
        return torch.stack([item["x"] for item in items]), torch.tensor([item["y"] for item in items])
    def training_step(self, model, batch):
        x, y = batch
        return nn.functional.cross_entropy(model(x), y)
    def eval_data(self):
        return Stripes()
    def eval_step(self, model, batch):
        x, y = batch
        return {"accuracy": (model(x).argmax(1) == y).float().mean()}
"""

TRAIN = """
import json, smlt
result = smlt.train(FromNotebook, workers=2, epochs=5, global_batch=20)
print(json.dumps({"status": result.status, "metrics": result.metrics, "model": str(result.model_path)}))
"""


def test_a_class_defined_in_a_notebook_trains(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(DEFINE), nbformat.v4.new_code_cell(TRAIN)])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "".join(output["text"] for output in notebook.cells[1].outputs if output.output_type == "stream")
    result = json.loads(printed)
    assert result["status"] == "succeeded"
    assert result["metrics"]["accuracy"] == 1.0
    assert Path(result["model"]).is_relative_to(tmp_path)
    assert Path(result["model"]).is_file()
