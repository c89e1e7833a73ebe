"""The dashboard: what QLoRA does to a small language model, drawn from the artifacts, with the live model.

    python app.py
    SENTIMENT_ASSETS=assets SENTIMENT_DATASET=reviews/ python app.py

The page opens before the model is loaded; importing this module loads no torch.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from sentiment_core.dashboard.app import build, launch  # after the settings that Gradio reads

demo = build()


def main() -> None:
    launch(demo)


if __name__ == "__main__":
    main()
