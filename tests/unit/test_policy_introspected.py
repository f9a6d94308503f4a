"""What a provider's word about a token is worth."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.access import ClaimRules, Introspection
from balancer.policy.identity.introspected import Said, judge
from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.principal import Principal
from balancer.secret import Secret
from tests.support.any_json import ANY_JSON

NOW = 1000.0


def said(provider_facts: dict[str, Any] | None = None, **claims: Any) -> Said:
    provider = Introspection(
        url="https://x", client_id="c", client_secret=Secret("s"), **(provider_facts or {})
    )
    answer = {"active": True, "sub": "alice", **claims}
    return judge(answer, provider, unix_s=NOW, denial_s=5.0)


def test_an_active_token_is_known_for_a_while_and_no_longer_than_it_lasts() -> None:
    found = said()
    assert isinstance(found.found, Principal)
    assert found.found.id.startswith("token:alice:")
    assert (found.until_s, found.ends_s) == (NOW + 30, inf)
    short = said(exp=NOW + 10)
    assert (short.until_s, short.ends_s) == (NOW + 10, NOW + 10)
    assert said(exp=NOW + 100).until_s == NOW + 30


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        ({"active": False}, "inactive"),
        ({"exp": NOW}, "expired"),
        ({"iss": "https://other"}, "issuer"),
        ({"iss": "https://x", "aud": "billing"}, "audience"),
        ({"iss": "https://x", "aud": {}}, "audience"),
        ({"iss": "https://x", "aud": ["paddler"], "sub": 1}, "claim"),
        ({"exp": "soon"}, "claim"),
        ({"iss": "https://x", "aud": [1]}, "claim"),
    ],
)
def test_anything_else_is_refused_and_known_for_less(claims: dict[str, Any], fault: str) -> None:
    found = said({"issuer": "https://x", "audience": ("paddler",)}, **claims)
    assert isinstance(found.found, Denied)
    assert (found.found.fault, found.found.kind) == (fault, "token")
    assert found.until_s == NOW + 5


_MEMBERS = ["active", "sub", "exp", "iss", "aud", "role", "team"]


@given(st.dictionaries(st.sampled_from(_MEMBERS), ANY_JSON, max_size=4))
@settings(max_examples=30, deadline=None)
def test_members_may_be_of_any_type(members: dict[str, Any]) -> None:
    facts = {"audience": ("paddler",), "claims": ClaimRules(role="role", tenant="team")}
    found = said(facts, **members)
    assert found.until_s <= NOW + 30
    assert isinstance(found.found, Denied) or members.get("active", True) is True
