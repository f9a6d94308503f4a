"""Arguments as the grammar of a form has them written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent.grammar.call_form import CallForm


def written(form: CallForm, arguments: Mapping[str, Any]) -> str:
    """As JSON, or between the form's tags."""
    if form.tags is None:
        return json.dumps(arguments)
    tags = form.tags
    return "".join(
        tags.before_key + key + tags.after_key + _value(value) + tags.after_value
        for key, value in arguments.items()
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
