"""A tool that the shipped model calls and whose result it tells, for loops through clients."""

from __future__ import annotations

import json
from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Its name"}},
    "required": ["city"],
    "additionalProperties": False,
}
NAME = "get_weather"
DESCRIPTION = "Get the weather of a city"
QUESTION = "Call get_weather with city set to Oslo."
ANSWER = "The city is Oslo and the temperature is 21."


def weather(city: str) -> str:
    """What the tool says."""
    return json.dumps({"city": city, "temperature": 21})
