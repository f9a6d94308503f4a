"""Reads settings: `paddler.yaml`, its overlay, `.env`, the environment and flags."""
