"""The routes of API keys."""

from __future__ import annotations

from balancer.http.document.operation import (
    FINDING,
    READING,
    Answer,
    Example,
    Operation,
    Parameter,
    place,
)
from balancer.http.document.shapes import access
from balancer.http.management.key_rows import KeyRow
from balancer.http.management.keys import MOST_SHOWN
from balancer.storage.keys import LONGEST_OVERLAP_S

_KEY = place("id", "Of the key, or its name.", "key_0123456789ab")
_STORING = (409, 415, 503)

KEYS = (
    Operation(
        ports=("management",),
        method="GET",
        path="/keys",
        tag="Keys",
        summary="The keys that were made here",
        description="Those of the configuration are not among them.",
        parameters=(
            Parameter(
                name="limit",
                where="query",
                description=f"How many, at most; {MOST_SHOWN} without it.",
                schema={"type": "integer", "minimum": 1, "maximum": MOST_SHOWN},
            ),
            Parameter(name="after", where="query", description="The id that a page ended with."),
        ),
        answers=(Answer(description="Oldest first.", shapes=(access.KeyList,)),),
        errors=(*FINDING, 503),
        examples=(Example(name="all"), Example(name="some", query={"limit": "10"})),
    ),
    Operation(
        ports=("management",),
        method="POST",
        path="/keys",
        tag="Keys",
        summary="Make a key",
        description="It is shown this once. The first has to be of role admin, and from then on "
        "everybody needs one.",
        bodies=(access.NewKey,),
        answers=(Answer(status=201, description="The key.", shapes=(access.MadeKey,)),),
        errors=(*READING, *_STORING),
        examples=(
            Example(
                name="for an application, before there is an operator's",
                body={"name": "app", "role": "user", "models": ["qwen3"], "expires_in_days": 90},
                status=400,
            ),
        ),
    ),
    Operation(
        ports=("management",),
        method="DELETE",
        path="/keys/{id}",
        tag="Keys",
        summary="Revoke a key",
        description="Within a second it opens nothing any more, and sockets that it opened are "
        "closed.",
        parameters=(_KEY,),
        answers=(Answer(description="It is revoked.", shapes=(KeyRow,)),),
        errors=(*FINDING, 503),
        examples=(Example(name="of nobody", status=404),),
    ),
    Operation(
        ports=("management",),
        method="POST",
        path="/keys/{id}/rotate",
        tag="Keys",
        summary="Give a key another text",
        description=f"The one before goes on for `overlap_s`, 0 to {LONGEST_OVERLAP_S:.0f}.",
        parameters=(_KEY,),
        bodies=(access.Overlap,),
        answers=(Answer(description="The key.", shapes=(access.MadeKey,)),),
        errors=(*FINDING, *_STORING),
        examples=(Example(name="of nobody", body={"overlap_s": 600}, status=404),),
    ),
)
