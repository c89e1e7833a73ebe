"""Runs and the dashboard out to the Hugging Face Hub: model card, push, Space. Read `card` first."""
