"""What opens doors is cut from texts that are written down; anything else stays."""

from __future__ import annotations

import pytest

from protocol.redaction import redacted, redacted_within, without_quotes

CUT = "[not logged]"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("store at redis://me:hunter2@host/0", f"store at redis://{CUT}@host/0"),
        ("postgresql://:hunter2@host:5/db?x=a@b", f"postgresql://{CUT}@host:5/db?x=a@b"),
        ("Authorization: Bearer abc.def", f"Authorization: {CUT}"),
        ('{"authorization": "Basic bWU6aHVudGVyMg=="}', f'{{"authorization": "{CUT}"}}'),
        ("'Proxy-Authorization': 'hunter2'", f"'Proxy-Authorization': '{CUT}'"),
        ("AUTHORIZATION=Digest hunter2, x", f"AUTHORIZATION={CUT}, x"),
        ("it sent bearer hunter2 twice", f"it sent bearer {CUT} twice"),
        ("Basic bWU6aHVudGVyMg==", f"Basic {CUT}"),
        (f"the token {JWT} is over", f"the token {CUT} is over"),
        ("key pk_0123456789abcdef is new", f"key pk_{CUT} is new"),
        ("sk-proj-0123456789abcdef", f"sk-{CUT}"),
        ("GET /x?api_key=hunter2&page=2", f"GET /x?api_key={CUT}&page=2"),
        ("/x?a=1&access_token=hunter2#top", f"/x?a=1&access_token={CUT}#top"),
        ("two: pk_aaaaaaaaaa, pk_bbbbbbbbbb", f"two: pk_{CUT}, pk_{CUT}"),
        ("redis://me:hunter@2@host/0", f"redis://{CUT}@host/0"),
        ("X-API-Key: hunter2", f"X-API-Key: {CUT}"),
        ("API_KEY: hunter2", f"API_KEY: {CUT}"),
        ('{"api_key": "hunter2", "n": 1}', f'{{"api_key": "{CUT}", "n": 1}}'),
        ("{'refresh_token': 'hunter2'}", f"{{'refresh_token': '{CUT}'}}"),
        ("HF_TOKEN=hf_hunter2hunter2", f"HF_TOKEN={CUT}"),
        ("it took hf_hunter2hunter2", f"it took hf_{CUT}"),
        ("/x?client_secret=hunter2&sig=hunter2", f"/x?client_secret={CUT}&sig={CUT}"),
        ("Set-Cookie: paddler_session=hunter2; Path=/", f"Set-Cookie: {CUT}"),
        ("'COOKIE': 'a=hunter2; b=hunter2', 1", f"'COOKIE': '{CUT}', 1"),
        ("is $argon2id$v=19$m=8,t=1,p=1$c2E$aGFz it", f"is $argon2id{CUT} it"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----",
            f"-----BEGIN EC PRIVATE KEY-----{CUT}-----END EC PRIVATE KEY-----",
        ),
    ],
)
def test_credentials_are_cut(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


def test_credentials_are_cut_wherever_they_stand_in_a_value() -> None:
    value = {"urls": ("://me:hunter2@host", {"n": 1, "keys": ["pk_0123456789", None]})}
    expected = {"urls": [f"://{CUT}@host", {"n": 1, "keys": [f"pk_{CUT}", None]}]}
    assert redacted_within(value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "agent registered",
        "req_28d1a43a5c2aee04cd7bbf2ed5eaf882",
        "http://127.0.0.1:8080/v1/models?limit=2",
        "the agent bears a token, and basic things work: key=value",
        "task-0123456789",
        "policy: prefix_aware",
        "auth.jwt.secret: it is too short; metrics_token: it cannot be read",
        "prompt_tokens=12 max_tokens: 5",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "could not convert string to float: 'what I wrote'",
            "could not convert string to float: '...'",
        ),
        ('KeyError: "it\'s mine"', "KeyError: '...'"),
        (r"b'\'quoted\' \x00' is wrong, 'and' this", "'...' is wrong, '...' this"),
        ("two\nlines 'of\ntext'", "two\nlines '...'"),
        ("the engine's end isn't 'mine", "the engine's end isn't '...'"),
        ("nothing is quoted", "nothing is quoted"),
    ],
)
def test_what_an_error_quotes_is_cut(text: str, expected: str) -> None:
    assert without_quotes(text) == expected


@pytest.mark.parametrize(
    "unit",
    [
        "'\\",
        "'",
        "b'",
        "://",
        "eyJa.",
        "Bearer ",
        "&key=",
        "Basic ",
        "cookie:",
        "$argon2$",
        "token'",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(unit: str) -> None:
    text = unit * (400_000 // len(unit))  # what takes its square ends in the time limit of a test
    assert len(redacted(text)) <= 4 * len(text)
    assert len(without_quotes(text)) <= 3 * len(text)
