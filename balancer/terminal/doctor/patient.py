"""What the checks look at: the balancer's own account of itself, asked for once."""

from __future__ import annotations

import time
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from balancer.terminal.doctor.client import PATIENCE_S, CannotReach, Client, Said

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")


class Wishes(Struct, frozen=True, kw_only=True):
    """What the operator gave."""

    inference: str = ""
    """The inference port's address; empty: where the settings say."""
    config: Path | None = None
    environment: str = ""
    tenant_keys: tuple[str, ...] = ()


class Patient(Struct, frozen=True, kw_only=True):
    """A balancer. What it did not tell is empty, and `refused` says why."""

    client: Client
    wishes: Wishes
    health: dict[str, Any]
    clock_ahead_s: float | None
    """Its clock less ours, to about a second; None: it does not tell."""
    is_open: bool = False
    """Nobody has to sign in."""
    refused: Said | None = None
    """Its answer to who may not ask."""
    config: dict[str, Any] = {}
    """As `GET /config` has it."""
    status: dict[str, Any] = {}
    """As `GET /config/status` has it."""
    agents: tuple[dict[str, Any], ...] = ()
    version: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """In force now, by name."""
        found = self.config.get("settings")
        return found if isinstance(found, dict) else {}

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host, so that its files can be looked at."""
        return is_loopback(urlsplit(self.client.base).hostname or "")

    @property
    def files(self) -> list[Path]:
        """Those of its configuration."""
        return [Path(name) for name in self.config.get("files") or () if isinstance(name, str)]

    @property
    def inference(self) -> Client:
        """Its inference port."""
        return self.client.at(self._inference_base(), self.client.key)

    def _inference_base(self) -> str:
        if self.wishes.inference:
            return self.wishes.inference
        given = urlsplit(self.client.base)
        listens = urlsplit(f"//{self.settings.get('inference', '')}")
        if self.settings.get("single_port") or not listens.port:
            return self.client.base
        host = listens.hostname or ""
        shown = host if _is_elsewhere(host) else given.hostname
        shown = f"[{shown}]" if shown and ":" in shown else shown
        return f"{self._inference_scheme(given.scheme)}://{shown}:{listens.port}"

    def _inference_scheme(self, given: str) -> str:
        """That of the management port, but where only one of them is encrypted."""
        if not self.settings.get("tls_certificate"):
            return given
        return "http" if self.settings.get("tls_ports") == "management" else "https"


def _is_elsewhere(host: str) -> bool:
    """Whether a port listens at an address of its own: else it is where the other one is."""
    try:
        return not (ip_address(host).is_unspecified or is_loopback(host))
    except ValueError:
        return bool(host) and not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES or host.endswith(".localhost")


async def examined(client: Client, session: aiohttp.ClientSession, wishes: Wishes) -> Patient:
    """Ask for everything. Raises `CannotReach` where there is no balancer."""
    asked_s = time.time()
    said = await client.get("/health")
    answered_s = time.time()
    if not isinstance(said.body, dict) or not {"status", "error"} & said.body.keys():
        raise CannotReach(f"what answers there is no balancer (HTTP status {said.status})")
    ahead_s = _ahead_s(said.body.get("timestamp"), (asked_s + answered_s) / 2)
    known: dict[str, Any] = {
        "client": client, "wishes": wishes, "health": _object(said), "clock_ahead_s": ahead_s,
    }  # fmt: skip
    config = await client.get("/config")
    if not config.is_well:
        return Patient(**known, refused=config)
    nobody = await client.at(client.base, "").get("/config")
    status, agents = await client.get("/config/status"), await client.get("/agents")
    return Patient(
        **known,
        is_open=nobody.is_well,
        config=_object(config),
        status=_object(status),
        agents=_rows(_object(agents).get("data")),
        version=await _version(client, session),
    )


def _object(said: Said) -> dict[str, Any]:
    return said.body if said.is_well and isinstance(said.body, dict) else {}


def _rows(found: Any) -> tuple[dict[str, Any], ...]:
    return tuple(row for row in found if isinstance(row, dict)) if isinstance(found, list) else ()


def _ahead_s(timestamp: Any, now_s: float) -> float | None:
    """Whole seconds are told: half of one is the likeliest rest."""
    try:
        return datetime.fromisoformat(timestamp).timestamp() + 0.5 - now_s
    except (TypeError, ValueError):
        return None


async def _version(client: Client, session: aiohttp.ClientSession) -> str:
    """Its own, from its live socket; empty where there is none."""
    headers = {"Authorization": f"Bearer {client.key}"} if client.key else {}
    try:
        async with session.ws_connect(
            f"{client.base}/ws/control",
            headers=headers,
            max_msg_size=_MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_receive=PATIENCE_S, ws_close=1.0),
        ) as socket:
            first: Any = msgspec.json.decode(await socket.receive_str())
            return str(first["data"]["balancer"]["version"])
    except (aiohttp.ClientError, TimeoutError, OSError, KeyError, TypeError, msgspec.DecodeError):
        return ""
