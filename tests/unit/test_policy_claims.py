"""Whom claims stand for."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.access import ClaimRules
from balancer.policy.identity.claims import (
    MAX_MODELS,
    ClaimFault,
    claim_at,
    id_of,
    is_for,
    moment_of,
    principal_of_claims,
)
from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.principal import Principal

ALICE = {"iss": "https://login.example", "sub": "alice"}


def principal(rules: ClaimRules, **claims: Any) -> Principal:
    found = principal_of_claims({**ALICE, **claims}, rules, "jwt")
    assert isinstance(found, Principal)
    return found


def fault(rules: ClaimRules, **claims: Any) -> str:
    """The claim that is at fault."""
    found = principal_of_claims({**ALICE, **claims}, rules, "token")
    assert isinstance(found, Denied)
    assert (found.fault, found.kind) == ("claim", "token")
    return found.claim


def test_a_subject_is_a_user_of_its_own() -> None:
    found = principal(ClaimRules())
    assert found.id.startswith("jwt:alice:")
    assert (found.role, found.tenant, found.tier, found.models) == ("user", found.id, None, ())


def test_an_id_is_short_readable_and_of_one_issuer_s_subject_alone() -> None:
    ids = {
        id_of(kind, issuer, subject)
        for kind in ("jwt", "token")
        for issuer, subject in (("a", "b"), ("a b", ""), ("", "a b"), ("a", "c"), ("aa", "b"))
    }
    assert len(ids) == 10
    for subject in ("x" * 255, "a\nb", "名前", "a b:c"):
        assert len(id_of("jwt", "i", subject)) <= 80
        assert id_of("jwt", "i", subject).isascii()
        assert id_of("jwt", "i", subject).isprintable()


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ("admin", "admin"),
        (["user", "admin"], "admin"),
        (["system", "admin"], "system"),
        (["public"], "user"),
        (["root", "not admin"], "user"),
        ([], "user"),
        (None, "user"),
    ],
)
def test_roles_are_known_by_their_names_and_the_highest_counts(value: Any, role: str) -> None:
    assert principal(ClaimRules(role="role"), role=value).role == role


def test_a_table_says_what_roles_mean_and_nothing_else_does() -> None:
    rules = ClaimRules(role="groups", roles={"ops": "admin", "dev": "user"})
    assert principal(rules, groups=["dev", "ops"]).role == "admin"
    assert principal(rules, groups=["admin"]).role == "user"


def test_a_scope_is_names_between_blanks_and_another_claim_is_not() -> None:
    table: Any = {"paddler:admin": "admin"}
    text = "openid paddler:admin"
    assert principal(ClaimRules(role="scope", roles=table), scope=text).role == "admin"
    assert principal(ClaimRules(role="role", roles=table), role=text).role == "user"


def test_who_has_no_role_may_be_refused() -> None:
    rules = ClaimRules(role="role", refuses_without_role=True)
    assert principal_of_claims(ALICE, rules, "jwt") == Denied("role", kind="token")
    assert principal(rules, role="user").role == "user"


def test_a_claim_may_stand_within_others_or_have_dots_in_its_name() -> None:
    claims = {"a": {"b": {"c": 1}}, "a.b": {"c": 2}, "https://x.example/role": 3}
    assert claim_at(claims, "a.b.c") == 1
    assert claim_at(claims, "a.b") == {"c": 2}
    assert claim_at(claims, "https://x.example/role") == 3
    assert claim_at(claims, "a.x.c") is None
    assert claim_at(claims, "a.b.c.d") is None


@pytest.mark.parametrize(
    ("tiers", "value", "tier"),
    [
        ({}, "pro", "pro"),
        ({}, "gold", "free"),
        ({}, None, "free"),
        ({"gold": "enterprise"}, "gold", "enterprise"),
        ({"gold": "enterprise"}, "pro", "free"),
    ],
)
def test_a_tier_is_known_by_its_name_or_a_table(tiers: Any, value: Any, tier: str) -> None:
    rules = ClaimRules(tier="plan", tiers=tiers, default_tier="free")
    assert principal(rules, plan=value).tier == tier


def test_a_tenant_is_what_the_claim_says_else_what_is_set_else_its_own() -> None:
    assert principal(ClaimRules(tenant="team"), team="blue").tenant == "blue"
    assert principal(ClaimRules(tenant="team", default_tenant="all")).tenant == "all"
    alone = principal(ClaimRules(tenant="team"))
    assert alone.tenant == alone.id


def test_models_are_one_or_several() -> None:
    rules = ClaimRules(models="models")
    assert principal(rules, models="qwen3").models == ("qwen3",)
    assert principal(rules, models=["a", "b"]).models == ("a", "b")
    assert principal(rules).models == ()


@pytest.mark.parametrize("value", ["", " \n", "x" * 256, 1, True, {}, ["a", 1], [["a"]]])
@pytest.mark.parametrize("name", ["sub", "role", "tier", "tenant", "models"])
def test_a_claim_that_cannot_be_read_is_not_passed_over(name: str, value: Any) -> None:
    rules = ClaimRules(role="role", tier="tier", tenant="tenant", models="models")
    assert fault(rules, **{name: value}) == name


@pytest.mark.parametrize("tenant", ["key:a", "jwt:a", "token:a", "basic:a", "127.0.0.1", "::1"])
def test_no_claim_makes_a_tenant_that_somebody_has_for_itself(tenant: str) -> None:
    assert fault(ClaimRules(tenant="team"), team=tenant) == "team"


def test_too_many_models_or_none_are_refused_as_none_would_mean_all() -> None:
    rules = ClaimRules(models="models")
    assert fault(rules, models=[]) == "models"
    assert fault(rules, models=["m"] * (MAX_MODELS + 1)) == "models"


def test_an_issuer_that_cannot_be_read_is_refused() -> None:
    assert fault(ClaimRules(), iss=["a\n"]) == "iss"
    assert principal(ClaimRules(), iss=None).role == "user"


def test_the_subject_may_be_another_claim() -> None:
    assert principal(ClaimRules(subject="client_id"), client_id="bot").id.startswith("jwt:bot:")
    assert fault(ClaimRules(subject="client_id")) == "client_id"


@pytest.mark.parametrize("value", [None, True, "1", [1], -1, 2**53, 1e300, float("inf")])
def test_a_moment_is_a_number_that_can_be_one(value: Any) -> None:
    with pytest.raises(ClaimFault, match="exp"):
        moment_of({"exp": value}, "exp")


def test_a_moment_may_be_absent_or_have_fractions() -> None:
    assert moment_of({}, "exp") is None
    assert moment_of({"exp": 1}, "exp") == 1.0
    assert moment_of({"exp": 1.5}, "exp") == 1.5


def test_a_token_is_for_whom_its_audience_names() -> None:
    assert is_for({"aud": "a"}, ["a", "b"])
    assert is_for({"aud": ["x", "b"]}, ["a", "b"])
    others: list[dict[str, Any]] = [{}, {"aud": None}, {"aud": []}, {"aud": "c"}]
    for claims in others:
        assert not is_for(claims, ["a", "b"])
    with pytest.raises(ClaimFault):
        is_for({"aud": {"a": 1}}, ["a"])
