"""A short form of `make schemas`: whole answers are instances of their random schemas."""

from __future__ import annotations

import jsonschema

from tests.schemas.campaign import DOORS, TOOL_DOORS, campaign
from tests.schemas.random_schemas import CENTRES, random_schema
from tests.schemas.yardstick import misfit
from tests.support.cluster import Cluster

NUMBERS = range(0, 60, 3)


async def test_whole_answers_fit_random_schemas_or_a_refusal_names_why(serving: Cluster) -> None:
    url = serving.inference_url
    asked = await campaign(url, NUMBERS, seed=1, doors=DOORS, max_tokens=120)
    called = await campaign(url, NUMBERS[:4], seed=1, doors=TOOL_DOORS, max_tokens=120)
    assert [one for one in (*asked, *called) if one.end == "wrong"] == []
    assert sum(one.end == "fits" for one in asked) >= len(asked) // 3
    assert {one.end for one in asked} >= {"fits", "refused"}


def test_a_schema_can_be_made_again_by_its_number() -> None:
    made = [random_schema(5, number) for number in range(2 * len(CENTRES))]
    assert made == [random_schema(5, number) for number in range(2 * len(CENTRES))]
    assert {centre for centre, _ in made} == set(CENTRES)
    for _, schema in made:
        jsonschema.Draft202012Validator.check_schema(schema)


def test_what_does_not_fit_is_seen() -> None:
    schema = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}
    assert misfit('{"day": "2024-02-29"}', schema) == ""
    assert "2023-02-29" in misfit('{"day": "2023-02-29"}', schema)
    assert misfit("0.3", {"multipleOf": 0.1}) == ""
    assert "multiple" in misfit("0.35", {"multipleOf": 0.1})
    assert misfit('{"day"', schema).startswith("no JSON")
    assert misfit("1e999", {"type": "number"}) == ""
