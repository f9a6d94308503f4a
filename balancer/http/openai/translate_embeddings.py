"""OpenAI's embedding requests as canonical ones. Pure: raises `InvalidRequest`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from balancer.errors import InvalidRequest
from balancer.http.faults import missing, refuse_value
from balancer.http.openai.schema import EXPECTED, EmbeddingsRequest
from protocol.embeddings import MAX_INPUTS, EmbeddingInput, EmbeddingRequest
from protocol.generation import TokenId

MAX_INPUT_TOKENS = 2**20
"""Token ids of all inputs together."""

_Text = Annotated[str, Meta(min_length=1)]
_Ids = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
_PLACE = re.compile(r"\$\[(\d+)\]")


def embedding_request(body: EmbeddingsRequest) -> EmbeddingRequest:
    """The canonical form: a list of one or more inputs."""
    return EmbeddingRequest(
        model=body.model or "", inputs=_inputs(body.input), dimensions=body.dimensions
    )


def _inputs(given: str | list[Any] | None) -> tuple[EmbeddingInput, ...]:
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return (_converted(given, _Text),)
    kind = type(given[0]) if given else None
    if kind is int:
        _check_tokens(len(given))
        return (_converted(given, _Ids),)
    if kind not in (str, list):
        raise refuse_value("input", given, EXPECTED["input"], code="invalid_type")
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(
            f"`input` has {len(given)} inputs, at most {MAX_INPUTS} can be sent at once; send them "
            "in several requests.",
            param="input",
            details={"parameter": "input", "expected": EXPECTED["input"]},
        )
    if kind is str:
        return tuple(_converted(given, tuple[_Text, ...]))
    _check_tokens(sum(len(one) for one in given if isinstance(one, list)))
    return tuple(_converted(given, tuple[_Ids, ...]))


def _check_tokens(count: int) -> None:
    if count > MAX_INPUT_TOKENS:
        raise InvalidRequest(
            f"`input` has {count} token ids, at most {MAX_INPUT_TOKENS} can be sent at once; send "
            "fewer inputs at a time.",
            param="input",
            details={"parameter": "input"},
        )


def _converted(given: Any, kind: Any) -> Any:
    """The same, checked; the error names the input at fault."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        is_one = isinstance(given, str) or not place or isinstance(given[0], int)
        at = None if is_one or place is None else int(place[1])
        param = "input" if at is None else f"input[{at}]"
        value = given if at is None else given[at]
        raise refuse_value(param, value, "text that is not empty, or token ids") from error
