"""`auth.jwt`, `auth.basic` and `auth.introspection` of the file: what they mean, and what to do
where they cannot be used."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher, Type
from click.testing import CliRunner

from balancer.access import Auth, ClaimRules, Introspection, JwtIssuer
from balancer.config_command import config
from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.load import Sources, load
from balancer.config_file.rules import written
from balancer.policy.identity.jwt import JwtVerifier, Verified
from balancer.policy.identity.published import PublishedKeys
from balancer.secret import Secret
from tests.support.tokens import SECRET, ec_signer, rsa_signer

QUICK: dict[str, Any] = {"time_cost": 1, "memory_cost": 7 * 1024, "parallelism": 1}
HASH = PasswordHasher(**QUICK).hash("hunter2")


def loaded(tmp_path: Path, text: str, variables: dict[str, str] | None = None) -> Auth:
    file = tmp_path / "paddler.yaml"
    file.write_text(text)
    return load(Sources(config=file, variables=variables or {})).settings.auth


PUBLISHED = """auth:
  jwt:
    jwks_url: https://login.example/keys
    issuer: https://login.example
    audience: [paddler, paddler-py]
    algorithms: [RS256, ES256]
    leeway_s: 5
    refresh_s: 60
    keep_s: 3600
    claims: {subject: email, role: realm_access.roles, tier: plan, tenant: org, models: models}
    roles: {ops: admin, dev: user}
    tiers: {gold: enterprise}
    without_role: refuse
    tier: free
    tenant: guests
"""


def test_a_provider_that_publishes_its_keys(tmp_path: Path) -> None:
    found = loaded(tmp_path, PUBLISHED)
    assert not found.is_open
    assert found.jwt == (
        JwtIssuer(
            algorithms=("RS256", "ES256"),
            jwks_url="https://login.example/keys",
            issuer="https://login.example",
            audience=("paddler", "paddler-py"),
            leeway_s=5.0,
            refresh_s=60.0,
            keep_s=3600.0,
            claims=ClaimRules(
                subject="email",
                role="realm_access.roles",
                tier="plan",
                tenant="org",
                models="models",
                roles={"ops": "admin", "dev": "user"},
                tiers={"gold": "enterprise"},
                refuses_without_role=True,
                default_tier="free",
                default_tenant="guests",
            ),
        ),
    )
    shown = written(found)["jwt"][0]
    assert shown["without_role"] == "refuse"
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps({"auth": {"jwt": shown}}))
    assert load(Sources(config=again)).settings.auth.jwt == found.jwt


def test_a_secret_stands_in_the_file_or_a_variable_or_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    for source in (SECRET, "{env: BACKEND_SECRET}", f"{{file: {tmp_path / 'secret'}}}"):
        found = loaded(tmp_path, f"auth: {{jwt: {{secret: {source}}}}}", {"BACKEND_SECRET": SECRET})
        assert found.jwt == (JwtIssuer(algorithms=("HS256",), secret=Secret(SECRET)),)
        assert SECRET not in json.dumps(written(found))


@pytest.mark.parametrize("make", [ec_signer, rsa_signer])
def test_a_public_key_says_its_algorithm(tmp_path: Path, make: Any) -> None:
    (tmp_path / "key.pem").write_text(make().public_pem)
    found = loaded(tmp_path, f"auth: {{jwt: {{public_key: {{file: {tmp_path / 'key.pem'}}}}}}}")
    assert found.jwt[0].algorithms == (make().algorithm,)


def test_several_issuers_are_told_apart_by_their_names(tmp_path: Path) -> None:
    text = "auth:\n  jwt:\n" + "".join(
        f"    - {{issuer: {name}, secret: '{name}{SECRET}'}}\n" for name in ("a", "b")
    )
    assert [one.issuer for one in loaded(tmp_path, text).jwt] == ["a", "b"]


def test_who_is_asked_about_tokens(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "auth:\n  introspection:\n    url: http://127.0.0.1:9/introspect\n    client_id: us\n"
        "    client_secret: {env: S}\n    audience: paddler\n    timeout_s: 2\n    keep_s: 0\n",
        {"S": "hunter2"},
    )
    assert found.introspection == Introspection(
        url="http://127.0.0.1:9/introspect",
        client_id="us",
        client_secret=Secret("hunter2"),
        audience=("paddler",),
        timeout_s=2.0,
        keep_s=0.0,
    )
    assert not found.is_open
    assert "hunter2" not in json.dumps(written(found))


def test_names_and_passwords(tmp_path: Path) -> None:
    (tmp_path / "hash").write_text(HASH)
    found = loaded(
        tmp_path,
        f"auth:\n  basic:\n    - {{name: ci, password_hash: '{HASH}', role: admin}}\n"
        f"    - {{name: cd, env: H, tenant: team, networks: [10.0.0.0/8]}}\n"
        f"    - {{name: ce, file: {tmp_path / 'hash'}, expires: 2030-01-01T00:00:00Z}}\n",
        {"H": HASH},
    )
    assert not found.is_open
    assert [one.password_hash.reveal() for one in found.basic] == [HASH] * 3
    held = [one.credential for one in found.basic]
    assert [(one.id, one.tenant, one.role) for one in held] == [
        ("basic:ci", "basic:ci", "admin"),
        ("basic:cd", "team", "user"),
        ("basic:ce", "basic:ce", "user"),
    ]
    assert HASH not in json.dumps(written(found))


def test_a_hash_is_made_of_a_line_of_standard_input(tmp_path: Path) -> None:
    made = CliRunner().invoke(config, ["hash-password"], input="correct horse\n")
    assert made.exit_code == 0
    assert PasswordHasher().verify(made.output.strip(), "correct horse")
    text = f"auth: {{basic: [{{name: ci, password_hash: '{made.output.strip()}'}}]}}"
    assert loaded(tmp_path, text).basic
    assert CliRunner().invoke(config, ["hash-password"], input="\n").exit_code == 1


def test_a_file_is_checked_without_the_variables_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "paddler.yaml"
    file.write_text(
        "auth:\n  jwt:\n    - {issuer: a, secret: {env: A}}\n"
        "    - {issuer: b, public_key: {env: B}}\n"
        "  basic: [{name: ci, env: C}]\n"
        "  introspection: {url: https://x.example, client_id: c, client_secret: {env: D}}\n"
    )
    checked = CliRunner().invoke(config, ["check", str(file)])
    assert checked.exit_code == 0, checked.output


def guide(language: str) -> list[str]:
    """What stands in the guide in a language."""
    text = (Path(__file__).parents[2] / "docs/guides/identity-providers.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_examples_of_the_guide_can_be_used(tmp_path: Path) -> None:
    for name, text in (("paddler-jwt", SECRET + "\n"), ("operators", "sk-operators")):
        (tmp_path / name).write_text(text)
    by_provider, by_backend = (
        loaded(tmp_path, text.replace("/run/secrets", str(tmp_path))) for text in guide("yaml")
    )
    assert by_provider.jwt[0].claims.refuses_without_role
    (program,) = guide("python")
    made: dict[str, Any] = {}
    exec(program.replace("/run/secrets", str(tmp_path)), made)  # noqa: S102 (our own guide's)
    found = JwtVerifier(by_backend.jwt, PublishedKeys()).verify(made["token"], unix_s=time.time())
    assert isinstance(found, Verified)
    assert (found.principal.tenant, found.principal.models) == ("acme", ("qwen3",))


JWT = "auth:\n  jwt:\n    secret: " + SECRET + "\n"
KEYS = "auth:\n  jwt:\n    jwks_url: https://login.example\n    issuer: i\n    audience: a\n"
ASKED = "auth:\n  introspection:\n    client_id: us\n    client_secret: hunter2\n"
BASIC = "auth:\n  basic:\n    - name: ci\n"
PEM = "\n".join(f"      {line}" for line in ec_signer().public_pem.splitlines())
PRIVATE = "\n".join(f"      {line}" for line in ec_signer().private_pem.splitlines())

BROKEN: dict[str, tuple[str, int, str, str]] = {
    "an unknown name": (JWT + "    secrets: x\n", 2, "auth.jwt", "allowed: issuer"),
    "two sources": (JWT + "    public_key: x\n", 2, "auth.jwt", "write the one that"),
    "no source": ("auth:\n  jwt: {issuer: a}\n", 2, "auth.jwt", "write the one that"),
    "no section": ("auth:\n  jwt: hunter2\n", 2, "auth.jwt", "write a section, or a list"),
    "no issuers": ("auth:\n  jwt: []\n", 2, "auth.jwt", "write a section, or a list"),
    "a short secret": (
        "auth:\n  jwt:\n    secret: hunter2\n", 3, "auth.jwt.secret", "openssl rand",
    ),
    "a public key for a secret": (
        f"auth:\n  jwt:\n    secret: |\n{PEM}\n", 3, "auth.jwt.secret", "openssl rand",
    ),
    "a secret that is a list": (
        "auth:\n  jwt:\n    secret: [hunter2]\n", 3, "auth.jwt.secret", "{env: VARIABLE}",
    ),
    "a secret of two places": (
        "auth:\n  jwt:\n    secret: {env: A, file: B}\n", 3, "auth.jwt.secret", "{env: VARIABLE}",
    ),
    "a variable that is none": (
        "auth:\n  jwt:\n    secret: {env: [A]}\n", 3, "auth.jwt.secret.env", "in quotes",
    ),
    "a variable that is not there": (
        "auth:\n  jwt:\n    secret: {env: NO_SUCH_ONE}\n", 3, "auth.jwt.secret.env", "put it there",
    ),
    "a private key": (
        f"auth:\n  jwt:\n    public_key: |\n{PRIVATE}\n", 3, "auth.jwt.public_key", "-pubout",
    ),
    "no key": (
        "auth:\n  jwt:\n    public_key: hunter2\n", 3, "auth.jwt.public_key", "-pubout",
    ),
    "an algorithm for another key": (
        JWT + "    algorithms: [RS256]\n", 4, "auth.jwt.algorithms[0]", "allowed: HS256",
    ),
    "a secret's algorithm for published keys": (
        KEYS + "    algorithms: [ES256, HS256]\n", 6, "auth.jwt.algorithms[1]", "allowed: RS256",
    ),
    "no algorithm at all": (
        JWT + "    algorithms: [none]\n", 4, "auth.jwt.algorithms[0]", "HS256, RS256",
    ),
    "published keys for everybody": (
        "auth:\n  jwt:\n    jwks_url: https://login.example\n", 2, "auth.jwt",
        "issuer and audience",
    ),
    "keys over an open network": (
        KEYS.replace("https", "http"), 3, "auth.jwt.jwks_url", "allowed: https://",
    ),
    "keys by a password in a URL": (
        KEYS.replace("//", "//me:hunter2@"), 3, "auth.jwt.jwks_url", "without a name",
    ),
    "keys of a file": (
        KEYS.replace("https://login.example", "file:///etc/keys"), 3, "auth.jwt.jwks_url",
        "allowed: https://",
    ),
    "keys of no URL": (
        KEYS.replace("https://login.example", "'https://[x'"), 3, "auth.jwt.jwks_url",
        "allowed: https://",
    ),
    "keys of a long URL": (
        KEYS.replace("login.example", "login.example/" + "x" * 2048), 3, "auth.jwt.jwks_url",
        "allowed: https://",
    ),
    "an empty audience": (JWT + "    audience: ['']\n", 4, "auth.jwt.audience", "name who"),
    "a long audience": (JWT + f"    audience: {'a' * 256}\n", 2, "auth.jwt", "255 characters"),
    "too much leeway": (JWT + "    leeway_s: 3600\n", 4, "auth.jwt.leeway_s", "allowed: 0..600"),
    "fetched too often": (KEYS + "    refresh_s: 1\n", 6, "auth.jwt.refresh_s", "allowed: 10.."),
    "kept for too short": (KEYS + "    keep_s: 60\n", 6, "auth.jwt.keep_s", "allowed: 600.."),
    "a role that is none": (
        JWT + "    claims: {role: r}\n    roles: {a: boss}\n", 5, "auth.jwt.roles",
        "roles are user, admin, system",
    ),
    "roles of no claim": (JWT + "    roles: {a: admin}\n", 4, "auth.jwt.roles", "role: CLAIM"),
    "tiers of no claim": (JWT + "    tiers: {a: pro}\n", 4, "auth.jwt.tiers", "tier: CLAIM"),
    "nobody": (JWT + "    without_role: refuse\n", 4, "auth.jwt.without_role", "role: CLAIM"),
    "an unknown claim": (JWT + "    claims: {rule: x}\n", 4, "auth.jwt.claims", "claims are"),
    "a claim of words": (JWT + "    claims: {role: a b}\n", 4, "auth.jwt.claims.role", "name"),
    "no subject": (JWT + "    claims: {subject: ''}\n", 4, "auth.jwt.claims.subject", "for sub"),
    "a tenant of a key": (JWT + "    tenant: key:a\n", 4, "auth.jwt.tenant", "not beginning"),
    "two issuers, one without a name": (
        f"auth:\n  jwt:\n    - {{issuer: a, secret: {SECRET}}}\n    - secret: {SECRET}\n",
        4, "auth.jwt[1].issuer", "write what iss is",
    ),
    "two issuers of a name": (
        f"auth:\n  jwt:\n    - {{issuer: a, secret: {SECRET}}}\n"
        f"    - {{issuer: a, secret: {SECRET}}}\n",
        4, "auth.jwt[1].issuer", "write what iss is",
    ),
    "asked over an open network": (
        ASKED + "    url: http://login.example\n", 5, "auth.introspection.url", "allowed: https",
    ),
    "nobody to ask": (ASKED, 2, "auth.introspection", "allowed: issuer"),
    "asked by nobody": (
        ASKED.replace("us", "''") + "    url: https://login.example\n", 3,
        "auth.introspection.client_id", "calls you",
    ),
    "asked without a secret": (
        ASKED.replace("hunter2", "''") + "    url: https://login.example\n", 4,
        "auth.introspection.client_secret", "write what the provider",
    ),
    "asked for too long": (
        ASKED + "    url: https://login.example\n    timeout_s: 100\n", 6,
        "auth.introspection.timeout_s", "allowed: 0.1..60",
    ),
    "no list of names": ("auth:\n  basic: hunter2\n", 2, "auth.basic", "write a list"),
    "no name": (f"auth:\n  basic:\n    - password_hash: '{HASH}'\n", 3, "auth.basic[0].name", "57"),
    "a name with a colon": (
        f"auth:\n  basic:\n    - name: 'a:b'\n      password_hash: '{HASH}'\n", 3,
        "auth.basic[0].name", "allowed: up to 57",
    ),
    "a name of nobody": ("auth:\n  basic:\n    - hunter2\n", 2, "auth.basic[0]", "name: NAME"),
    "no hash": (BASIC, 3, "auth.basic[0]", "hash-password"),
    "a password": (
        BASIC + "      password_hash: hunter2\n", 4, "auth.basic[0].password_hash", "hash-password",
    ),
    "a hash that is a list": (
        BASIC + "      password_hash: [hunter2]\n", 4, "auth.basic[0].password_hash", "in quotes",
    ),
    "a hash of another kind": (
        BASIC + f"      password_hash: '{PasswordHasher(**QUICK, type=Type.I).hash('hunter2')}'\n",
        4, "auth.basic[0].password_hash", "hash-password",
    ),
    "a weak hash": (
        BASIC + "      password_hash: '"
        + PasswordHasher(**{**QUICK, "memory_cost": 64}).hash("hunter2") + "'\n",
        4, "auth.basic[0].password_hash", "allowed: 7168..262144 KiB",
    ),
    "a hash that takes for ever": (
        BASIC + f"      password_hash: '{HASH.replace('t=1', 't=999')}'\n",
        4, "auth.basic[0].password_hash", "up to 16 passes",
    ),
    "a name twice": (
        f"auth:\n  basic:\n    - {{name: a, password_hash: '{HASH}'}}\n"
        f"    - {{name: a, password_hash: '{HASH}'}}\n",
        4, "auth.basic[1].name", "give each name once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_told_with_its_line_and_what_to_do(
    tmp_path: Path, name: str
) -> None:
    text, line, field, remedy = BROKEN[name]
    with pytest.raises(FaultyConfiguration) as caught:
        loaded(tmp_path, text)
    ((fault),) = caught.value.faults
    assert (fault.field, fault.origin.line) == (field, line)
    assert remedy in fault.remedy
    told = str(caught.value)
    assert "hunter2" not in told
    assert SECRET not in told
    assert not any(row.strip() in told for row in PRIVATE.splitlines()[1:-1])
