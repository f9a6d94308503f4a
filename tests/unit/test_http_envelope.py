"""Who gets an envelope around an answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from balancer.http.envelope import ENVELOPE, is_wanted


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([ENVELOPE], True),
        (["text/html", ENVELOPE], True),
        ([f"{ENVELOPE};q=0.5", "application/json"], False),
        (["application/json;q=0.5", f"text/html, {ENVELOPE}"], True),
        ([f"{ENVELOPE};q=0"], False),
        (["application/json"], False),
        ([], False),
    ],
)
def test_accept_may_stand_on_several_lines(lines: list[str], wanted: bool) -> None:
    headers = CIMultiDict([("Accept", line) for line in lines])
    exchange: Any = SimpleNamespace(request=SimpleNamespace(headers=headers))
    assert is_wanted(exchange) is wanted
