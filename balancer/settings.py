"""The balancer's settings: one frozen value, swapped whole on reload, with units in the names.

Only data and its defaults. `balancer.config_file` reads and checks what people write.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

KIB = 1024
MIB = 1024 * KIB

PolicyName = Literal["least_busy", "round_robin", "power_of_two", "latency", "prefix_aware"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]


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
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside loopback's and IP addresses, that a `Host` header may have."""

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

    log_level: LogLevel = "info"
    log_format: LogFormat = "console"
