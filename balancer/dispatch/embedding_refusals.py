"""What a client is told whose inputs are not embedded."""

from __future__ import annotations

from balancer.dispatch.admission import only_generates
from balancer.errors import BalancerError, GenerationTimeout, InvalidRequest
from protocol.embeddings import FLOAT_BYTES, MAX_VECTOR_BYTES, EmbeddingRequest
from protocol.models import ServedModel


def beyond_the_model(request: EmbeddingRequest, model: ServedModel) -> BalancerError | None:
    """Why this model cannot do it; None: it can, as far as it says."""
    if request.model in model.adapter_names():
        return only_generates(request.model, model.name)
    if model.embedding_dimensions == 0:
        return InvalidRequest(
            f"the model {model.name!r} makes no embeddings; ask one that does", param="model"
        )
    dimensions = request.dimensions or model.embedding_dimensions
    if dimensions > model.embedding_dimensions:
        return InvalidRequest(
            f"`dimensions` must be 1 to {model.embedding_dimensions}, the size of this model's "
            "vectors",
            param="dimensions",
            details={"parameter": "dimensions", "received_value": dimensions},
        )
    most = MAX_VECTOR_BYTES // (FLOAT_BYTES * dimensions)
    if len(request.inputs) > most:
        return InvalidRequest(
            f"the vectors would be more than {MAX_VECTOR_BYTES} bytes; send at most {most} inputs "
            "at a time, or ask for fewer `dimensions`",
            param="input",
        )
    return None


def without_pooling() -> BalancerError:
    """The model's file says that it is not to be pooled."""
    return InvalidRequest(
        "the model gives a vector for each token and none for a whole input (its file says pooling "
        "`none`); ask one that was made for embeddings",
        param="model",
    )


def timed_out(timeout_s: float | None, *, retry_after_s: int) -> BalancerError:
    """The request's own `timeout` is over."""
    return GenerationTimeout(
        f"the inputs were not embedded after the request's `timeout` of {timeout_s} s; allow more "
        "time or send fewer inputs",
        param="timeout",
        retry_after_s=retry_after_s,
    )
