"""The doctor's canary test and its report, without a balancer."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from balancer.terminal.doctor.canary import MOST_ROUNDS, CannotAsk, canary_test
from balancer.terminal.doctor.checks.files import files
from balancer.terminal.doctor.checks.isolation import isolation
from balancer.terminal.doctor.client import Said
from balancer.terminal.doctor.findings import Finding, not_checked, ok, problem, warning
from balancer.terminal.doctor.patient import Patient, Wishes
from balancer.terminal.doctor.report import Section, as_json, is_well, lines, summary


class Cache:
    """Agents that cache whole prompts, a token a character; tenants ask in turns."""

    def __init__(self, *, shared: bool = False, agents: int = 1, caches: bool = True) -> None:
        self.seen: set[tuple[str, str, str]] = set()
        self.shared = shared
        self.caches = caches
        self.turns = count()
        self.agents = agents

    def tenant(self, name: str, **more: Any) -> Tenant:
        return Tenant(self, name, **more)


class Tenant:
    """One that asks."""

    def __init__(self, cache: Cache, name: str, *, says: str = "", limited: int = 0) -> None:
        self._cache = cache
        self._name = name
        self._says = says
        self._limited = limited
        self.prompts: list[str] = []

    async def post(self, path: str, body: dict[str, Any]) -> Said:
        assert path == "/v1/completions"
        if self._limited:
            self._limited -= 1
            return Said(429, {"error": {"message": "too many"}}, 0.001)
        cache, prompt = self._cache, body["prompt"]
        self.prompts.append(prompt)
        agent = f"agent-{next(cache.turns) % cache.agents}"
        key = (agent, "" if cache.shared else self._name, prompt)
        cached = len(prompt) if cache.caches and key in cache.seen else 2
        cache.seen.add(key)
        answer = {
            "usage": {
                "prompt_tokens": len(prompt) + 2,
                "prompt_tokens_details": {"cached_tokens": cached},
            },
            "performance": {"time_to_first_token_ms": 1.0},
            "choices": [{"text": self._says}],
            "_proxy_info": {"provider": agent},
        }
        return Said(200, answer)


async def test_what_a_tenant_sent_is_cached_for_itself_alone() -> None:
    cache = Cache()
    canary = await canary_test(cache.tenant("a"), cache.tenant("b"))
    assert (canary.outcome, canary.rounds) == ("apart", 1)
    assert canary.own_again is not None
    assert canary.others_text is not None
    assert canary.own_again.cached_tokens > 100 > canary.others_text.cached_tokens


async def test_a_shared_cache_is_found() -> None:
    cache = Cache(shared=True)
    canary = await canary_test(cache.tenant("a"), cache.tenant("b"))
    assert canary.outcome == "shared"
    assert "cached for the other" in canary.why


async def test_another_tenant_s_words_in_an_answer_are_found() -> None:
    cache = Cache()
    first = cache.tenant("a")

    class Parrot(Tenant):
        async def post(self, path: str, body: dict[str, Any]) -> Said:
            self._says = first.prompts[-1][:20]
            return await super().post(path, body)

    canary = await canary_test(first, Parrot(cache, "b"))
    assert canary.outcome == "shared"
    assert "words" in canary.why


async def test_where_nothing_is_cached_nothing_is_claimed() -> None:
    cache = Cache(caches=False)
    canary = await canary_test(cache.tenant("a"), cache.tenant("b"))
    assert (canary.outcome, canary.rounds) == ("unknown", MOST_ROUNDS)
    assert "not cached for itself" in canary.why


async def test_a_round_that_went_to_another_agent_says_nothing() -> None:
    cache = Cache(agents=3)  # the fourth request of a round goes where the first one went
    first, other = cache.tenant("a"), cache.tenant("b")
    canary = await canary_test(first, other)
    assert canary.outcome == "unknown"
    assert len(first.prompts) == 2 * MOST_ROUNDS


async def test_a_limit_is_waited_for_and_a_refusal_is_told() -> None:
    cache = Cache()
    canary = await canary_test(cache.tenant("a", limited=2), cache.tenant("b"))
    assert canary.outcome == "apart"
    with pytest.raises(CannotAsk, match="too many"):
        await canary_test(cache.tenant("a", limited=1000), cache.tenant("b"))


class Balancer:
    """A client of one that makes keys, whose tenants ask a cache."""

    def __init__(self, cache: Cache, keys: dict[str, str], key: str = "", *, refuses: int = 0):
        self.base = "http://127.0.0.1:1"
        self._cache = cache
        self.key = key
        self._refuses = refuses
        self.keys = keys
        """Tenants by the keys in force."""

    def at(self, base: str, key: str) -> Any:
        other = Balancer(self._cache, self.keys, key)
        other.base = base
        return other

    async def get(self, path: str) -> Said:
        assert path == "/v1/models"
        return Said(200, {"data": [{"id": "embedder", "embedding_dimensions": 9}, {"id": "demo"}]})

    async def post(self, path: str, body: dict[str, Any]) -> Said:
        if path != "/keys":
            assert body["model"] == "demo"
            return await self._cache.tenant(self.keys[self.key]).post(path, body)
        if len(self.keys) >= self._refuses > 0:
            return Said(403, {"error": {"message": "no more keys"}})
        assert body["role"] == "user"
        assert 0 < body["expires_in_days"] < 0.01
        key = f"pk_{len(self.keys)}"
        self.keys[key] = body["tenant"]
        return Said(201, {"id": f"id of {key}", "key": key})

    async def delete(self, path: str) -> Said:
        del self.keys[path.removeprefix("/keys/id of ")]
        return Said(200, {})


def patient(balancer: Balancer, **facts: Any) -> Patient:
    client: Any = balancer
    return Patient(client=client, wishes=Wishes(), health={}, clock_ahead_s=0.0, **facts)


@pytest.mark.parametrize("shared", [False, True])
async def test_two_keys_are_made_for_the_canary_test_and_taken_away(shared: bool) -> None:
    balancer = Balancer(Cache(shared=shared), {})
    [finding] = await isolation(patient(balancer, status={"cache_isolated": True}))
    assert finding.verdict == ("problem" if shared else "ok")
    assert not balancer.keys


async def test_where_a_second_key_cannot_be_made_the_first_one_is_taken_away() -> None:
    balancer = Balancer(Cache(), {}, refuses=1)
    [finding] = await isolation(patient(balancer))
    assert finding.verdict == "not_checked"
    assert "no more keys" in finding.what
    assert "--tenant-key" in finding.remedy
    assert not balancer.keys


async def test_a_key_of_tls_that_others_may_read_is_a_problem(tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    key.write_text("secret")
    config = {"settings": {"tls_certificate": str(tmp_path / "server.pem"), "tls_key": str(key)}}
    for mode, verdict in ((0o640, "problem"), (0o600, "ok")):
        key.chmod(mode)
        found = await files(patient(Balancer(Cache(), {}), config=config))
        assert [one.verdict for one in found] == [verdict]
        assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("management", "settings", "inference"),
    [
        ("http://127.0.0.1:8081", {"inference": "127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ("http://far:8081", {"inference": "0.0.0.0:8080"}, "http://far:8080"),
        ("http://far:8081", {"inference": "127.0.0.1:8080"}, "http://far:8080"),
        ("http://far:8081", {"inference": "10.0.0.1:8080"}, "http://10.0.0.1:8080"),
        ("https://far:8081", {"inference": "[::]:8080"}, "https://far:8080"),
        ("http://[::1]:8081", {"inference": "[::1]:8080"}, "http://[::1]:8080"),
        ("http://far:8081", {"inference": "0.0.0.0:8080", "single_port": True}, "http://far:8081"),
        (
            "https://far:8081",
            {"inference": "far:8080", "tls_certificate": "a.pem", "tls_ports": "management"},
            "http://far:8080",
        ),
        (
            "http://far:8081",
            {"inference": "far:8080", "tls_certificate": "a.pem", "tls_ports": "inference"},
            "https://far:8080",
        ),
    ],
)
def test_the_inference_port_is_where_settings_and_the_other_one_say(
    management: str, settings: dict[str, Any], inference: str
) -> None:
    balancer = Balancer(Cache(), {})
    balancer.base = management
    assert patient(balancer, config={"settings": settings}).inference.base == inference


SECTIONS = [
    Section("ports", (ok("it answers"), not_checked("the other one", "look for it"))),
    Section("files", (problem("words " * 30, "chmod 600 file"), warning("half", "mend it"))),
]


def test_a_report_fits_its_width_and_says_everything() -> None:
    shown = [line.mark + line.text for line in lines(SECTIONS, width=60)]
    assert max(map(len, shown)) <= 60
    text = "\n".join(shown)
    for word in ("ports", "ok", "not checked", "problem", "warning", "-> chmod 600 file"):
        assert word in text
    assert shown[-1] == "it is not well: 1 ok, 1 warning, 1 problem, 1 not checked"
    assert text.count("words") == 30


def test_a_report_is_well_without_problems() -> None:
    assert not is_well(SECTIONS)
    assert is_well(SECTIONS[:1])
    assert summary(SECTIONS[:1]) == "nothing wrong was found: 1 ok, 1 not checked"
    assert summary([Section("files", (warning("a", "b"),))]) == "it works: 1 warning"


def test_what_others_wrote_cannot_steer_a_terminal() -> None:
    evil = Finding(verdict="warning", what="an\x1b[2Jissue\r\n", remedy="a\x07b")
    shown = "".join(line.text for line in lines([Section("agents", (evil,))], width=80))
    assert shown.isprintable()


def test_programs_get_every_finding() -> None:
    told = as_json("http://x", SECTIONS)
    assert told["well"] is False
    assert told["checks"][0]["findings"][1] == {
        "verdict": "not_checked",
        "what": "the other one",
        "remedy": "look for it",
    }
