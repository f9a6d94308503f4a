"""The typed schema: for every setting what it does, what is allowed, its flag, and whether a reload
can change it while the balancer runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from balancer.access import Auth, CacheIsolation, LimitTable
from balancer.config_file.auth_section import auth, shown_auth
from balancer.config_file.limits_section import limit_table, shown_table
from balancer.config_file.parsing import (
    ADDRESS,
    HOSTS,
    HOSTS_AND_PORTS,
    NETWORKS,
    ORIGINS,
    SECRET,
    SWITCH,
    Kind,
    choice,
    count,
    parse_nothing,
    path,
    seconds,
    section,
)
from balancer.config_file.sanitise_section import shown_rule, text_rules
from balancer.config_file.secret_texts import SecretReader
from balancer.settings import (
    KIB,
    MIB,
    Address,
    LogFormat,
    LogLevel,
    PolicyName,
    Secret,
    TlsPorts,
)
from balancer.text_rules import TextRule

ENVIRONMENT_PREFIX = "PADDLER_"
_DAY_S = 86_400


class Rule(Struct, frozen=True, kw_only=True):
    """One setting."""

    kind: Kind
    what: str
    flag: str | None = None
    is_live: bool = True
    """Whether a reload may change it; else the balancer has to be started anew."""
    section: Callable[[Any, SecretReader], Any] | None = None
    """Reads a section with lines in it; raises `SectionFault`."""

    @property
    def allowed(self) -> str:
        """In words."""
        return self.kind.allowed

    def parse(self, raw: Any) -> Any:
        """The value; raises ValueError, TypeError, KeyError or OverflowError, and for a section
        `SectionFault`."""
        if self.section is not None:
            return self.section(raw, _no_secret)
        return self.kind.parse(raw)


def _no_secret(kind: str, name: str) -> str:
    raise ValueError(f"the {kind} {name} cannot be looked at here")


def variable_of(name: str) -> str:
    """A setting's environment variable."""
    return ENVIRONMENT_PREFIX + name.upper()


def written(value: Any) -> Any:
    """A setting's value as it is written in a file or shown to people; of a secret only whether
    there is one."""
    if isinstance(value, tuple):
        return [shown_rule(one) if isinstance(one, TextRule) else one for one in value]
    if isinstance(value, Auth):
        return shown_auth(value)
    if isinstance(value, LimitTable):
        return shown_table(value)
    return str(value) if isinstance(value, Address | Secret) else value


def _seconds(least: float, most: float, what: str, flag: str | None = None) -> Rule:
    return Rule(kind=seconds(least, most), what=what, flag=flag)


def _count(least: int, most: int, what: str, flag: str | None = None) -> Rule:
    return Rule(kind=count(least, most), what=what, flag=flag)


RULES: dict[str, Rule] = {
    "inference": Rule(kind=ADDRESS, what="where clients go", flag="--inference", is_live=False),
    "management": Rule(
        kind=ADDRESS, what="where operators and agents go", flag="--management", is_live=False
    ),
    "single_port": Rule(
        kind=SWITCH,
        what="the inference address serves the management API and agents, too",
        flag="--single-port",
        is_live=False,
    ),
    "insecure": Rule(
        kind=SWITCH,
        what="allow listening beyond loopback although nobody has to sign in",
        flag="--insecure",
        is_live=False,
    ),
    "auth": Rule(
        kind=section(
            "who has to sign in: api_keys, api_key_header, metrics_token, jwt, basic, introspection"
        ),
        what="who has to sign in, and how",
        section=auth,
    ),
    "limits": Rule(
        kind=section("limits by roles, tiers, routes, and of an address"),
        what="how much everybody may have: roles, tiers, routes, address",
        section=lambda raw, _: limit_table(raw),
    ),
    "cache_isolation": Rule(
        kind=choice(CacheIsolation),
        what="whether tenants are kept from what agents have cached of others' prompts",
    ),
    "allowed_hosts": Rule(
        kind=HOSTS, what="names, beside loopback's and IP addresses, that a Host header may have"
    ),
    "trusted_proxies": Rule(
        kind=NETWORKS, what="whose X-Forwarded-For and X-Forwarded-Proto are believed"
    ),
    "strict_transport_security": Rule(
        kind=SWITCH, what="browsers that came by TLS are told never to come without it"
    ),
    "cors_origins": Rule(
        kind=ORIGINS, what="of pages that may use the inference API from their visitors' browsers"
    ),
    "tls_certificate": Rule(
        kind=path("PEM file"),
        what="the ports' certificate, then those between it and its CA; empty: no TLS",
        flag="--tls-certificate",
    ),
    "tls_key": Rule(
        kind=path("PEM file"),
        what="the certificate's key; empty: it is in the certificate's file",
        flag="--tls-key",
    ),
    "tls_key_password": Rule(kind=SECRET, what="what an encrypted key is decrypted with"),
    "tls_key_password_file": Rule(kind=path("file"), what="a file that holds this password"),
    "tls_ports": Rule(kind=choice(TlsPorts), what="which ports speak TLS"),
    "tls_client_ca": Rule(
        kind=path("PEM file"),
        what="agents need a client certificate that one of these has signed; empty: none",
    ),
    "tls_agents_by_name": Rule(
        kind=SWITCH, what="an agent's name must be one of its client certificate's"
    ),
    "tls_handshake_timeout_s": _seconds(
        0.1, 300, "a connection that is not encrypted after this is closed"
    ),
    "image_hosts": Rule(
        kind=HOSTS_AND_PORTS,
        what="from where images are fetched that requests name by their URLs",
        flag="--image-host",
    ),
    "image_timeout_s": _seconds(0.1, 300, "all images of a request together may take so long"),
    "heartbeat_interval_s": _seconds(
        0.05,
        300,
        "how often agents report; agents that are connected keep what they were told",
        "--heartbeat-interval",
    ),
    "heartbeat_misses": _count(
        1, 100, "missed reports until an agent is taken for dead", "--heartbeat-misses"
    ),
    "progress_timeout_s": _seconds(
        0.1, 3600, "a call that makes no progress for so long goes on elsewhere"
    ),
    "query_timeout_s": _seconds(
        0.1, 3600, "an agent that has not answered a question for so long is not waited for"
    ),
    "policy": Rule(kind=choice(PolicyName), what="how an agent is chosen", flag="--policy"),
    "record_routes": Rule(
        kind=path("file"),
        what="every request's route goes there, as a line of JSON",
        flag="--record-routes",
        is_live=False,
    ),
    "queue_timeout_s": _seconds(
        0, _DAY_S, "longest wait for a slot; 0: none, 503 at once", "--queue-timeout"
    ),
    "max_waiting": _count(0, 1_000_000, "requests that may wait", "--max-waiting"),
    "max_waiting_of_tenant": _count(
        0, 1_000_000, "requests that may wait of one API key, without keys of one client address"
    ),
    "max_waiting_bytes": _count(0, 64 * KIB * MIB, "bytes of the bodies of those that wait"),
    "model_memory_s": _seconds(
        0, _DAY_S, "how long a model's name stays known after its last agent left"
    ),
    "drain_timeout_s": _seconds(
        0, _DAY_S, "time to finish in when the balancer is stopped", "--drain-timeout"
    ),
    "stream_replay_s": _seconds(
        0, _DAY_S, "a resumable stream can be taken up for so long after its end"
    ),
    "stream_unread_s": _seconds(
        0, _DAY_S, "without a client a resumable stream is generated on for so long"
    ),
    "stream_replay_bytes": _count(0, 64 * KIB * MIB, "events kept of all resumable streams"),
    "data_dir": Rule(
        kind=path("directory"),
        what="where responses are kept in a file; empty: in memory",
        flag="--data-dir",
        is_live=False,
    ),
    "max_stored_responses": _count(0, 10_000_000, "responses that are kept"),
    "max_stored_response_bytes": _count(
        0, KIB * KIB * MIB, "bytes of the requests and answers of all stored responses"
    ),
    "max_body_bytes": _count(KIB, KIB * MIB, "largest request body"),
    "max_header_bytes": _count(KIB, MIB, "largest request head"),
    "max_json_depth": _count(4, 512, "deepest nesting of a body"),
    "max_connections": _count(1, 1_000_000, "connections of each port"),
    "max_connections_of_address": _count(
        1, 1_000_000, "connections of one client address to each port"
    ),
    "slow_header_timeout_s": _seconds(
        0.1, 3600, "a connection that owes the head of a request for so long is closed"
    ),
    "slow_body_timeout_s": _seconds(0.1, 3600, "longest time a body may take to arrive"),
    "idle_timeout_s": _seconds(1, 3600, "idle keep-alive connections are closed after this"),
    "max_unsent_bytes": _count(
        4 * KIB, KIB * MIB, "unread bytes of one stream; past it the generation pauses"
    ),
    "slow_client_timeout_s": _seconds(0.1, 3600, "a stream paused for this long is dropped"),
    "first_token_header_delay_s": _seconds(
        0, 3600, "a stream's headers wait this long for its first token"
    ),
    "comment_interval_s": _seconds(0.1, 3600, "a silent stream carries an SSE comment this often"),
    "sanitise": Rule(
        kind=Kind(
            parse_nothing,
            "a list of rules: name, pattern, replace, where (prompt, answer or both)",
            {"type": "array", "items": {"type": "object"}},
        ),
        what="what is replaced in prompts and in answers",
        section=lambda raw, _: text_rules(raw),
    ),
    "log_content": Rule(
        kind=SWITCH,
        what="log what models are asked and answer; else nothing of it is ever logged",
        flag="--log-content",
    ),
    "audit_log": Rule(
        kind=path("file"),
        what="where it is written who changed something; `-`: in the log; empty: audit.jsonl in "
        "data_dir, without one the log",
        is_live=False,
    ),
    "audit_log_bytes": _count(
        KIB, KIB * MIB, "bytes of one file of the audit log; then another begins"
    ),
    "audit_log_files": _count(1, 1000, "files of the audit log that are kept"),
    "log_level": Rule(
        kind=choice(LogLevel, any_case=True), what="the least level shown", flag="--log-level"
    ),
    "log_format": Rule(
        kind=choice(LogFormat),
        what="console for people, json for machines",
        flag="--log-format",
        is_live=False,
    ),
}
"""A rule for every field of Settings, in the same order."""
