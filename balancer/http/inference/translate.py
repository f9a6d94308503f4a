"""Requests of /inference as canonical ones. Pure: raises `InvalidRequest`.

It names parameters as a text completion has them; `place_of` says where they are in the body.
"""

from __future__ import annotations

from msgspec import structs

from balancer.http.faults import refuse_value, unsupported
from balancer.http.inference.schema import InferenceBody, Parameters
from balancer.http.openai.schema import CompletionRequest, SamplingFields
from balancer.http.openai.translate import completion_request
from protocol.generation import GenerationRequest

_UNSUPPORTED = ("echo", "suffix", "best_of", "logprobs")
"""The answer is one text."""


def inference_request(body: InferenceBody, *, drawn_seed: int) -> GenerationRequest:
    """The text goes on as a text completion's prompt does. `drawn_seed` serves if the client gave
    none."""
    parameters = body.parameters or Parameters()
    _check(parameters)
    fields = {name: getattr(parameters, name) for name in SamplingFields.__struct_fields__}
    completion = CompletionRequest(**{**fields, "prompt": body.inputs.text})
    request = completion_request(completion, (body.inputs.text,), drawn_seed=drawn_seed)
    return structs.replace(request, model=model_name(body))


def model_name(body: InferenceBody) -> str:
    """The model as every other route calls it."""
    version = body.model_version
    return body.model_id if version is None else f"{body.model_id}@{version}"


def place_of(param: str | None) -> str | None:
    """Where a parameter of a text completion is in the body."""
    match param:
        case None:
            return None
        case "model":
            return "model_id"
        case "prompt" | "messages":
            return "inputs.text"
        case _:
            return param if param.startswith("parameters.") else f"parameters.{param}"


def _check(parameters: Parameters) -> None:
    for param in _UNSUPPORTED:
        if (value := getattr(parameters, param)) is not None:
            raise unsupported(param, value, "null")
    if parameters.model is not None:
        raise refuse_value("parameters.model", parameters.model, "absent: `model_id` names it")
    if parameters.n not in (None, 1):
        raise unsupported("n", parameters.n, "1: the answer is one text")
    if parameters.stream:
        raise unsupported("stream", True, "false: the answer comes in one piece")
