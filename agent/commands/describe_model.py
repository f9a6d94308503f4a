"""`describe_model`: the template and formats of the model, as this agent serves it."""

from __future__ import annotations

from agent.commands.asking import open_query
from agent.commands.desk import Desk
from agent.commands.served import Served
from protocol.codec import encode_result
from protocol.descriptions import MAX_TEMPLATE_CHARS, ModelDescription
from protocol.invariants import instance_of, present
from protocol.jsonrpc import Request
from protocol.to_agent import DescribeModel

_MAX_TOKEN_CHARS = 200


def describe_model(desk: Desk, request: Request) -> None:
    """Answer at once: the engine is not asked."""
    params = instance_of(request.params, DescribeModel)
    query = open_query(desk, request, params.model)
    if query is None:
        return
    desk.queries.close(query.number)
    desk.send(encode_result(query.id, _description(present(desk.served))))


def _description(served: Served) -> ModelDescription:
    return ModelDescription(
        chat_template=served.template[:MAX_TEMPLATE_CHARS],
        template_chars=len(served.template),
        bos_token=served.bos_token[:_MAX_TOKEN_CHARS],
        eos_token=served.eos_token[:_MAX_TOKEN_CHARS],
        reasoning_format=served.output_format.reasoning,
        tool_format=served.output_format.tool_calls,
    )
