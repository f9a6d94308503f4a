"""The balancer's settings: one frozen value, swapped whole on reload, with units in the names.

Data and its defaults, and who holds the value in force. `balancer.config_file` reads and checks
what people write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from msgspec import Struct

from balancer.access import Auth, CacheIsolation, LimitTable
from balancer.secret import Secret as Secret
from balancer.text_rules import TextRule

KIB = 1024
MIB = 1024 * KIB

PolicyName = Literal["least_busy", "round_robin", "power_of_two", "latency", "prefix_aware"]
PortName = Literal["inference", "management"]
TlsPorts = Literal["both", "inference", "management"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
_REMEMBERED = 1024
"""Addresses that are not looked at twice: every request is asked for its client's."""


@lru_cache(_REMEMBERED)
def is_loopback(host: str) -> bool:
    """Whether an IP address or a name means this machine."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return is_loopback_name(host)


def is_loopback_name(name: str) -> bool:
    """Whether a name means this machine, wherever it is looked up."""
    return name in _LOOPBACK_NAMES or name.endswith(".localhost")


class Address(Struct, frozen=True):
    """Where a port listens; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set.

    A field's name is its key in `paddler.yaml` and, in upper case after `PADDLER_`, its
    environment variable.
    """

    inference: Address = Address("127.0.0.1", 8080)
    management: Address = Address("127.0.0.1", 8081)

    single_port: bool = False
    """Whether the inference address serves the management API and agents, too."""

    insecure: bool = False
    """Whether a port may listen elsewhere than on loopback although nobody has to sign in."""
    auth: Auth = Auth()
    """Who has to sign in, and how."""
    limits: LimitTable = LimitTable()
    """Off for callers on this host while nobody has to sign in."""
    cache_isolation: CacheIsolation = "auto"
    """auto: tenants share nothing that agents have cached as soon as anybody has to sign in."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside loopback's and IP addresses, that a `Host` header may have."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks, as CIDR, whose word about their clients' addresses and TLS counts."""

    strict_transport_security: bool = True
    """Whether browsers that came by TLS are told never to come without it."""
    cors_origins: tuple[str, ...] = ()
    """Of pages that may use the inference API from their visitors' browsers; `*` means all of them,
    where somebody has to sign in."""

    tls_certificate: str = ""
    """A PEM file: the ports' certificate, then those between it and its CA; empty: no TLS."""
    tls_key: str = ""
    """A PEM file with the certificate's key; empty: it is in the certificate's file."""
    tls_key_password: Secret = Secret("")
    tls_key_password_file: str = ""
    """What an encrypted key is decrypted with, or a file that holds it."""
    tls_ports: TlsPorts = "both"
    tls_client_ca: str = ""
    """A PEM file: agents need a client certificate that one of these has signed; empty: none."""
    tls_agents_by_name: bool = False
    """Whether an agent's name must be one of its client certificate's."""
    tls_handshake_timeout_s: float = 10.0

    image_hosts: tuple[str, ...] = ()
    """From where images are fetched that requests name by their URLs; empty: from nowhere."""
    image_timeout_s: float = 10.0
    """All images of a request together may take so long."""

    heartbeat_interval_s: float = 5.0
    heartbeat_misses: int = 3

    progress_timeout_s: float = 30.0
    """A call that makes no progress for so long goes on elsewhere."""

    query_timeout_s: float = 120.0
    """An agent that has not answered for so long what takes no slot, as a part of an embedding
    request, is not waited for: another is asked."""

    policy: PolicyName = "prefix_aware"
    record_routes: str = ""
    """A file for every request's route, to be replayed by a simulation; empty: none."""
    queue_timeout_s: float = 60.0
    """0 switches waiting off: 503 at once."""
    max_waiting: int = 1024
    max_waiting_of_tenant: int = 256
    max_waiting_bytes: int = 64 * MIB
    model_memory_s: float = 600.0
    """How long a model's name stays known after its last agent left; requests for it wait."""
    drain_timeout_s: float = 30.0

    stream_replay_s: float = 60.0
    """A resumable stream can be taken up for so long after its end."""
    stream_unread_s: float = 30.0
    """Without a client it is generated on for so long."""
    stream_replay_bytes: int = 64 * MIB
    """Events kept of all resumable streams."""

    data_dir: str = ""
    """Where responses are kept in a file; empty: in memory."""
    max_stored_responses: int = 10_000
    max_stored_response_bytes: int = 128 * MIB
    """Requests and answers of all stored responses."""

    max_body_bytes: int = 20 * MIB
    max_header_bytes: int = 16 * KIB
    max_json_depth: int = 64
    max_connections: int = 16_384
    """Of each port."""
    max_connections_of_address: int = 2048
    """Of each port; of loopback and of trusted proxies as many as there may be in all."""
    slow_header_timeout_s: float = 20.0
    """A connection that owes the head of a request for so long is closed."""
    slow_body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    """An idle keep-alive connection is closed after this."""

    max_unsent_bytes: int = 256 * KIB
    """Of one stream; past it the generation pauses."""
    slow_client_timeout_s: float = 30.0
    """A stream paused for this long is dropped."""
    first_token_header_delay_s: float = 15.0
    """A stream's headers wait this long for its first token; later failures are SSE errors."""
    comment_interval_s: float = 15.0
    """A silent stream carries an SSE comment this often."""

    sanitise: tuple[TextRule, ...] = ()
    """What is replaced in prompts and answers."""
    log_content: bool = False
    """Whether prompts and answers are logged."""
    audit_log: str = ""
    """A file; `-`: the log. Empty: a file in `data_dir`, without one the log."""
    audit_log_bytes: int = 64 * MIB
    """Of one file; then the next one begins."""
    audit_log_files: int = 8

    log_level: LogLevel = "info"
    log_format: LogFormat = "console"

    @property
    def agents_port(self) -> PortName:
        """Where agents connect."""
        return "inference" if self.single_port else "management"

    @property
    def encrypted_ports(self) -> tuple[PortName, ...]:
        """Which sockets speak TLS."""
        if not self.tls_certificate:
            return ()
        if self.single_port:
            return ("inference",)
        return ("inference", "management") if self.tls_ports == "both" else (self.tls_ports,)


class LiveSettings:
    """Holds the settings in force. Whoever lives longer than a request reads `current` when it
    needs a value; what is derived from one is made anew by a listener."""

    __slots__ = ("_listeners", "current")

    def __init__(self, current: Settings) -> None:
        self.current = current
        self._listeners: list[Callable[[Settings], None]] = []

    def listen(self, listener: Callable[[Settings], None]) -> None:
        """Have `listener(settings)` called after each change, for as long as this lives. It must
        not fail, as nothing is half changed."""
        self._listeners.append(listener)

    def replace(self, settings: Settings) -> None:
        """From now on these are in force."""
        self.current = settings
        for listener in self._listeners:
            listener(settings)
