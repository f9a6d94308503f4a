"""The model that ships: a tiny llama GGUF, its corpus and the script that trained it."""

from pathlib import Path

DEMO_MODEL_PATH: Path = Path(__file__).with_name("paddler-demo.gguf")
