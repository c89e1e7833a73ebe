"""notebook.ipynb from top to bottom, on a tiny random model and reviews of our own."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from sentiment_core.artifacts.store import list_artifacts
from tests.own_reviews import write_dataset

ROOT = Path(__file__).resolve().parents[1]
ASK_THE_PAGE = """
from gradio_client import Client
client = Client(address, verbose=False, analytics_enabled=False)
print([one["run_id"] for one in client.predict(api_name="/runs")])
"""


@pytest.mark.slow
def test_the_notebook_runs_to_a_dashboard_on_its_own_run(tmp_path: Path, tiny_model: Path) -> None:
    book = nbformat.read(ROOT / "notebook.ipynb", as_version=4)
    [place] = [i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ())]
    settings = {"limit": 96, "validation": 40, "epochs": 1, "batch_size": 16, "learning_rate": 4e-3}
    settings |= {"micro_batch_size": 16, "lora_rank": 4}
    given = f"""
INSTALL, BASELINE, TEST, PRESET, SETTINGS = False, 20, 40, "laptop", {settings}
DATASET, BASE_MODEL = {str(write_dataset(tmp_path / "data"))!r}, {str(tiny_model)!r}
FOLDER = Path({str(tmp_path / "notebook")!r})
"""
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    book.cells.append(nbformat.v4.new_code_cell(ASK_THE_PAGE))
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()

    made = list_artifacts(tmp_path / "notebook" / "assets")
    assert [(run.run_id, run.record.data.train) for run in made.runs] == [("notebook", 96)]
    assert sorted((one.record.system, one.record.dataset.n) for one in made.evals) == [
        ("baseline-scored", 20), ("baseline-scored", 40), ("fine-tuned", 40),
    ]  # fmt: skip
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    pictures = [one for one in outputs if "application/vnd.plotly.v1+json" in one.get("data", {})]
    assert len(pictures) == 4
    assert "['notebook']" in outputs[-1].text, "the page shows the run"
    assert made.runs[0].record.config["max_length_tokens"] == 256, "the preset's"


def test_committed_outputs_are_small_and_hold_no_machines_paths() -> None:
    content = (ROOT / "notebook.ipynb").read_text(encoding="utf-8")
    assert len(content) < 1_500_000
    outputs = json.dumps([cell.get("outputs", ()) for cell in json.loads(content)["cells"]])
    assert not re.search(r"(?<![\w:/.])/(?:tmp|home|root|work|usr|content|mnt)/", outputs)
    assert '"stderr"' not in outputs, "progress bars and warnings"
