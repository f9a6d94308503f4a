"""What must be true of several settings at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from balancer.config_file.faults import DEFAULT, Fault, Origin
from balancer.config_file.stored_keys import has_stored_keys
from balancer.settings import Address, Settings, is_loopback

_DEFAULTS = Settings()
_NEED_CERTIFICATE = (
    "tls_key",
    "tls_key_password",
    "tls_key_password_file",
    "tls_client_ca",
    "tls_agents_by_name",
)


def faults_together(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Fault]:
    """Settings that are right alone and wrong together."""
    yield from _of_tls(settings, origins)
    used = {"inference": settings.inference}
    if settings.single_port:
        yield from _of_one_port(settings, origins)
    else:
        used["management"] = settings.management
        yield from _of_two_ports(settings, origins)
    for field, address in used.items():
        if _can_be_reached_by_anyone(settings, address):
            yield Fault(
                field=field,
                problem=f"{address} can be reached by others and nobody has to sign in",
                origin=origins.get(field, DEFAULT),
                remedy="listen on 127.0.0.1, make a key with `paddler-py keys create` (it needs "
                "data_dir) or set auth.api_keys, or add --insecure if that is what you want",
            )


def _can_be_reached_by_anyone(settings: Settings, address: Address) -> bool:
    return (
        settings.auth.is_open
        and not settings.insecure
        and not is_loopback(address.host)
        and not has_stored_keys(settings.data_dir)
    )


def _of_tls(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Fault]:
    """What is said of TLS must have an effect: an operator who relies on it must not be wrong."""
    if not settings.tls_certificate:
        for field in _NEED_CERTIFICATE:
            if getattr(settings, field) != getattr(_DEFAULTS, field):
                yield Fault(
                    field=field,
                    problem="there is no TLS without a certificate",
                    origin=origins.get(field, DEFAULT),
                    remedy="set tls_certificate, too",
                )
        return
    if settings.single_port and settings.tls_ports != "both":
        yield Fault(
            field="tls_ports",
            problem="with single_port there is one port for everything",
            origin=origins.get("tls_ports", DEFAULT),
            remedy="leave it out",
        )
    elif settings.tls_client_ca and settings.agents_port not in settings.encrypted_ports:
        yield Fault(
            field="tls_client_ca",
            problem="agents connect to the management port, which does not speak TLS",
            origin=origins.get("tls_client_ca", DEFAULT),
            remedy="set tls_ports to both or management",
        )
    if settings.tls_agents_by_name and not settings.tls_client_ca:
        yield Fault(
            field="tls_agents_by_name",
            problem="agents are asked for no certificate",
            origin=origins.get("tls_agents_by_name", DEFAULT),
            remedy="set tls_client_ca, too",
        )


def _of_one_port(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Fault]:
    """An address that nobody listens at must not be silently left out."""
    if "management" in origins and settings.management != settings.inference:
        yield Fault(
            field="management",
            problem=f"{settings.management} is not used with single_port, where everything is at "
            f"{settings.inference}",
            origin=origins["management"],
            remedy="leave one of them out",
        )


def _of_two_ports(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Fault]:
    one, other = settings.inference, settings.management
    if one == other and one.port != 0:
        field = "management" if "management" in origins else "inference"
        yield Fault(
            field=field,
            problem=f"inference and management are both {one}",
            origin=origins.get(field, DEFAULT),
            remedy="allowed: two different addresses, or one with single_port",
        )
