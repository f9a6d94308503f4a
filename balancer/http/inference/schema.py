"""What clients of /inference send, as they send it: types and ranges only, no meaning."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from balancer.http.openai.schema import SamplingFields
from protocol.models import MODEL_NAME_PATTERN

ModelName = Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)]
ModelVersion = Annotated[str, Meta(min_length=1, max_length=64)]


class Inputs(Struct):
    """What the model is given."""

    text: str


class Parameters(SamplingFields, kw_only=True):
    """Those of a text completion, by the same names, but what has no place in the answer."""

    # Known, and refused: see translate.
    echo: Any = None
    suffix: Any = None
    best_of: Any = None
    logprobs: Any = None


class InferenceBody(Struct, kw_only=True):
    """The body of POST /inference."""

    model_id: ModelName
    model_version: ModelVersion | None = None
    inputs: Inputs
    parameters: Parameters | None = None


EXPECTED = {
    "model_id": "1 to 200 characters of A-Z a-z 0-9 . _ : / @ -",
    "model_version": "1 to 64 characters",
    "inputs": "an object with a `text`",
    "parameters": "an object",
}
"""What an error says was expected, by parameter."""
