"""The agent's settings: one frozen value, units in the names, and the one builder that makes it.

A flag wins over its environment variable, that over the default. The variable of `--gpu-layers`
is `PADDLER_AGENT_GPU_LAYERS`; a list is written with commas there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from agent.errors import ConfigError
from agent.link_tls import LinkTls
from agent.variables import PREFIX
from protocol.models import MODEL_NAME_PATTERN
from protocol.to_balancer import AGENT_NAME_PATTERN, RESERVED_AGENT_NAMES

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]
CacheType = Literal["f16", "f32", "q8_0"]
Switch = Literal["auto", "on", "off"]
ToolFormatName = Literal[
    "auto",
    "none",
    "harmony",
    "qwen-coder",
    "glm",
    "minimax",
    "kimi",
    "deepseek-fenced",
    "deepseek",
    "mistral-named",
    "mistral",
    "granite",
    "hermes",
    "llama",
    "generic",
]
ReasoningFormatName = Literal[
    "auto", "none", "harmony", "granite", "granite-tags", "mistral", "think"
]

GGUF_MAGIC = b"GGUF"
MAX_CHAT_TEMPLATE_BYTES = 256 * 1024
MAX_SLOTS = 256
"""As many sequences as llama.cpp serves at once (LLAMA_MAX_SEQ)."""
THREADS_PER_CPU = 2
"""More threads than that compute nothing, they only wait for each other."""
MAX_FILES = 64
MAX_WARM_FILE_BYTES = 1024 * 1024
MAX_TOKEN_CHARS = 4096
_INT32_MAX = 2**31 - 1
_HOST = r"[A-Za-z0-9._:%-]{1,253}"


class BalancerAddress(Struct, frozen=True):
    """Where the balancer's management port listens."""

    host: str
    port: int
    tls: LinkTls | None = None
    """None: it speaks no TLS."""

    @property
    def url(self) -> str:
        """The WebSocket that agents dial."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}/agents/connect"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. Zero, where it is a default, means: chosen at the start."""

    balancer: BalancerAddress
    model_path: Path
    token: str = ""
    """What the balancer asks agents for; empty: it asks for nothing."""
    name: str = ""
    """Empty: host, model and the first ordinal that is free on this host."""
    aliases: tuple[str, ...] = ()
    """The names the model is served under, the first is the primary; none: the file's stem."""
    labels: dict[str, str] = {}
    slots: int = 0
    context_tokens: int = 0
    """Of all slots together."""
    threads: int = 0
    gpu_layers: int = -1
    """-1: as many as fit."""
    batch_tokens: int = 0
    micro_batch_tokens: int = 0
    cache_type: CacheType = "f16"
    flash_attention: Switch = "auto"
    unified_kv: Switch = "auto"
    fit: Switch = "auto"
    """Off: the model is loaded without a look at what memory there is."""
    prefix_cache: Switch = "auto"
    host_cache_mib: int = -1
    """Memory for prefixes that gave way in the KV cache; -1: a quarter of what is free, 8 GiB at
    most."""
    target_gap_ms: float = 0.0
    """Time from token to token that running streams shall see while prompts come in."""
    speculation: Switch = "auto"
    backend_sampling: Switch = "auto"
    """Of a row of logits only the likeliest tokens leave the GPU, where that is enough."""
    draft_model: Path | None = None
    """A small model of the same vocabulary that guesses the next tokens."""
    lora: tuple[tuple[str, Path], ...] = ()
    """Adapters that a request may ask for: names and files."""
    mmproj: Path | None = None
    """The projector of a model that sees or hears."""
    keep_warm: tuple[Path, ...] = ()
    """Chats whose prompts are kept in memory: JSON with `messages`, or the text of a system
    message."""
    chat_template: str = ""
    """The text of the template; empty: the one in the model file."""
    tool_format: ToolFormatName = "auto"
    """How the model writes tool calls; auto: as its template shows, none: it is all text."""
    reasoning_format: ReasoningFormatName = "auto"
    """Likewise, its reasoning."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "console"
    drain_timeout_s: float = 30.0
    """How long running calls may go on after SIGTERM."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names the model is served under, the primary first."""
        return self.aliases or (_as_model_name(self.model_path.stem),)


class _Rule(Struct, frozen=True):
    """How one setting is read. `read` raises `ValueError` for what is not `allowed`."""

    field: str
    read: Callable[[Any], Any]
    allowed: str
    is_secret: bool = False
    """Whether what was given is shown to nobody."""
    is_of_link: bool = False
    """Whether it belongs to the balancer's address."""


def build(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    model_aliases: Mapping[str, Path] | None = None,
) -> Settings:
    """The settings from flags (by their names without dashes; None or () is absent) and variables.

    Raises `ConfigError`, one line: what is wrong, where it came from, what is allowed.
    """
    values: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for flag, rule in _RULES.items():
        source, raw = _look_up(flag, flags, environment)
        if raw is None:
            continue
        if flag == "model":
            raw = (model_aliases or {}).get(raw, raw)
        try:
            (files if rule.is_of_link else values)[rule.field] = rule.read(raw)
        except (ValueError, OSError, RuntimeError) as error:  # no such home: RuntimeError
            reason = f" ({error})" if str(error) else ""
            shown = "not usable" if rule.is_secret else _shown(raw)
            raise ConfigError(f"{source} is {shown}{reason}; allowed: {rule.allowed}") from error
    for field in ("balancer", "model"):
        if _RULES[field].field not in values:
            raise ConfigError(
                f"--{field} is missing (or {_variable_of(field)}); allowed: {_RULES[field].allowed}"
            )
    values["balancer"] = _with_files(values["balancer"], files)
    settings = Settings(**values)
    if settings.keep_warm and settings.prefix_cache == "off":
        raise ConfigError(
            "--keep-warm keeps prompts in the prefix cache, and --prefix-cache is off; "
            "allowed: one of the two"
        )
    drafts = settings.speculation == "on" or settings.draft_model is not None
    if drafts and settings.backend_sampling == "on":
        raise ConfigError(
            "--backend-sampling on does not go with --speculation on or --draft-model; "
            "allowed: one of the two"
        )
    return settings


def _with_files(address: BalancerAddress, files: Mapping[str, Path]) -> BalancerAddress:
    """The address with what TLS needs. Raises `ConfigError` where that cannot be used."""
    if "client_key" in files and "client_certificate" not in files:
        raise ConfigError("--client-key belongs to a --client-certificate; allowed: both, or none")
    if address.tls is None:
        if files:
            flag = next(iter(files)).replace("_", "-")
            raise ConfigError(
                f"--{flag} is for a balancer that speaks TLS; write --balancer "
                f"wss://{address.host}:{address.port}, or leave it out"
            )
        return address
    tls = LinkTls(**files)
    tls.context()
    return BalancerAddress(address.host, address.port, tls)


def _look_up(
    flag: str, flags: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[str, Any]:
    given = flags.get(flag.replace("-", "_"))
    if given is not None and given != ():
        return f"--{flag}", given
    variable = _variable_of(flag)
    return f"environment variable {variable}", environment.get(variable) or None


def _variable_of(flag: str) -> str:
    return PREFIX + flag.replace("-", "_").upper()


def _shown(raw: Any) -> str:
    text = ",".join(raw) if isinstance(raw, tuple) else str(raw)
    return repr(text if len(text) <= 100 else text[:97] + "...")


def _as_model_name(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._:/@-]", "-", stem)[:200] or "model"


def _address(raw: str) -> BalancerAddress:
    scheme, has_scheme, rest = raw.partition("://")
    if has_scheme and scheme not in ("ws", "wss"):
        raise ValueError
    host, colon, port = (rest.rstrip("/") if has_scheme else raw).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not re.fullmatch(_HOST, host):
        raise ValueError
    if not port.isdecimal() or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError
    is_encrypted = bool(has_scheme) and scheme == "wss"
    return BalancerAddress(host, int(port), LinkTls() if is_encrypted else None)


def _model_file(raw: str | Path) -> Path:
    path = Path(raw).expanduser()
    if not path.is_file():
        raise ValueError("no such file")
    with path.open("rb") as file:
        if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise ValueError("not a GGUF file")
    return path.resolve()


def _pem_file(raw: str) -> Path:
    path = Path(raw).expanduser()
    if not path.is_file():
        raise ValueError("no such file")
    return path.resolve()


def _template_file(raw: str) -> str:
    path = Path(raw).expanduser()
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size > MAX_CHAT_TEMPLATE_BYTES:
        raise ValueError("too large")
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("empty")
    return text


def _int(low: int, high: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError as error:
            raise ValueError from error
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _most_threads() -> int:
    return THREADS_PER_CPU * (os.cpu_count() or 1)


def _threads(raw: str) -> int:
    try:
        return _int(0, _most_threads())(raw)
    except ValueError as error:
        raise ValueError(
            f"this machine has {os.cpu_count() or 1} logical CPUs, at most {_most_threads()} "
            "threads make sense"
        ) from error


def _seconds(raw: str) -> float:
    try:
        value = float(raw)
    except ValueError as error:
        raise ValueError from error
    if not 0 <= value <= 86400:
        raise ValueError
    return value


def _milliseconds(raw: str) -> float:
    value = 1000 * _seconds(str(float(raw) / 1000))
    if value > 60_000:
        raise ValueError
    return value


def _matching(pattern: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError
        return raw

    return read


def _agent_name(raw: str) -> str:
    name = _matching(AGENT_NAME_PATTERN)(raw)
    if name in RESERVED_AGENT_NAMES:
        raise ValueError
    return name


def _items(raw: str | Sequence[str]) -> list[str]:
    return [item.strip() for item in (raw.split(",") if isinstance(raw, str) else raw)]


def _aliases(raw: str | Sequence[str]) -> tuple[str, ...]:
    read = _matching(MODEL_NAME_PATTERN)
    names = tuple(dict.fromkeys(read(item) for item in _items(raw)))
    if len(names) > 33:
        raise ValueError("too many")
    return names


def _labels(raw: str | Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for item in _items(raw):
        key, equals, value = item.partition("=")
        if not equals or not key or len(key) > 128 or len(value) > 128:
            raise ValueError(item[:100])
        labels[key] = value
    if len(labels) > 64:
        raise ValueError("too many")
    return labels


def _adapters(raw: str | Sequence[str]) -> tuple[tuple[str, Path], ...]:
    adapters: dict[str, Path] = {}
    for item in _items(raw):
        name, equals, path = item.partition("=")
        if not equals or not re.fullmatch(MODEL_NAME_PATTERN, name) or name in adapters:
            raise ValueError(item[:100])
        adapters[name] = _model_file(path)
    if len(adapters) > MAX_FILES:
        raise ValueError("too many")
    return tuple(adapters.items())


def _warm_files(raw: str | Sequence[str]) -> tuple[Path, ...]:
    files = tuple(Path(item).expanduser().resolve() for item in _items(raw))
    for file in files:
        if not file.is_file():
            raise ValueError(f"no such file: {file}")
        if file.stat().st_size > MAX_WARM_FILE_BYTES:
            raise ValueError(f"too large: {file}")
    if len(files) > MAX_FILES:
        raise ValueError("too many")
    return files


def _one_of(choices: Any) -> tuple[Callable[[str], str], str]:
    allowed = get_args(choices)

    def read(raw: str) -> str:
        if raw not in allowed:
            raise ValueError
        return raw

    return read, ", ".join(allowed)


def _token(raw: str) -> str:
    if not _TOKEN.fullmatch(raw):
        raise ValueError
    return raw


def _token_file(raw: str) -> str:
    file = Path(raw).expanduser()
    with file.open("rb") as content:
        held = content.read(MAX_TOKEN_CHARS + 2).decode("ascii", errors="replace")
    if not _TOKEN.fullmatch(held.rstrip("\r\n")):
        raise ValueError("it holds something else")
    return held.rstrip("\r\n")


_TOKEN = re.compile(rf"[!-~]{{1,{MAX_TOKEN_CHARS}}}")
_TOKENS = f"1 to {MAX_TOKEN_CHARS} printable ASCII characters without spaces"
_AGENT_NAMES = "1 to 128 of A-Z a-z 0-9 . _ : -, but not " + ", ".join(sorted(RESERVED_AGENT_NAMES))

_RULES: dict[str, _Rule] = {
    "balancer": _Rule(
        "balancer", _address, "HOST:PORT or wss://HOST:PORT, the balancer's management port"
    ),
    "ca-file": _Rule("ca_file", _pem_file, "the path of a PEM file", is_of_link=True),
    "client-certificate": _Rule(
        "client_certificate", _pem_file, "the path of a PEM file", is_of_link=True
    ),
    "client-key": _Rule("client_key", _pem_file, "the path of a PEM file", is_of_link=True),
    "model": _Rule("model_path", _model_file, "the path of a GGUF file, or demo"),
    "token": _Rule("token", _token, _TOKENS, is_secret=True),
    "token-file": _Rule("token", _token_file, f"a file that holds {_TOKENS}"),
    "name": _Rule("name", _agent_name, _AGENT_NAMES),
    "alias": _Rule("aliases", _aliases, "at most 33 names of 1 to 200 of A-Z a-z 0-9 . _ : / @ -"),
    "label": _Rule("labels", _labels, "at most 64 of KEY=VALUE, 128 characters each side"),
    "slots": _Rule("slots", _int(1, MAX_SLOTS), f"1 to {MAX_SLOTS}"),
    "context": _Rule("context_tokens", _int(0, _INT32_MAX), "tokens over all slots, 0: as it fits"),
    "threads": _Rule("threads", _threads, "0 to twice the logical CPUs, 0: by the machine"),
    "gpu-layers": _Rule("gpu_layers", _int(-1, 10_000), "-1 to 10000, -1: as many as fit"),
    "batch": _Rule("batch_tokens", _int(0, 1_000_000), "tokens, 0: by the machine"),
    "micro-batch": _Rule("micro_batch_tokens", _int(0, 1_000_000), "tokens, 0: by the machine"),
    "cache-type": _Rule("cache_type", *_one_of(CacheType)),
    "flash-attention": _Rule("flash_attention", *_one_of(Switch)),
    "unified-kv": _Rule("unified_kv", *_one_of(Switch)),
    "fit": _Rule("fit", *_one_of(Switch)),
    "prefix-cache": _Rule("prefix_cache", *_one_of(Switch)),
    "host-cache": _Rule("host_cache_mib", _int(-1, 1 << 24), "MiB, 0: none, -1: by the machine"),
    "target-gap-ms": _Rule("target_gap_ms", _milliseconds, "0 to 60000, 0: 128 tokens a step"),
    "draft-model": _Rule("draft_model", _model_file, "the path of a GGUF file"),
    "speculation": _Rule("speculation", *_one_of(Switch)),
    "backend-sampling": _Rule("backend_sampling", *_one_of(Switch)),
    "mmproj": _Rule("mmproj", _model_file, "the path of the GGUF file that belongs to the model"),
    "lora": _Rule("lora", _adapters, "at most 64 of NAME=FILE.gguf"),
    "keep-warm": _Rule("keep_warm", _warm_files, "at most 64 files of at most 1 MiB"),
    "chat-template": _Rule("chat_template", _template_file, "a Jinja file of at most 256 KiB"),
    "tool-format": _Rule("tool_format", *_one_of(ToolFormatName)),
    "reasoning-format": _Rule("reasoning_format", *_one_of(ReasoningFormatName)),
    "log-level": _Rule("log_level", *_one_of(LogLevel)),
    "log-format": _Rule("log_format", *_one_of(LogFormat)),
    "drain-timeout": _Rule("drain_timeout_s", _seconds, "seconds, 0 to 86400"),
}

VARIABLES = frozenset(_variable_of(flag) for flag in _RULES)
"""Those of the settings."""
