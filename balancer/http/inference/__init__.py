"""POST /inference: one text in, one text out, by model and version."""
