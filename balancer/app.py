"""The composition root: builds the balancer. What runs it, and its loops, is `serving`."""

from __future__ import annotations

import secrets
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from balancer.cluster.local import LocalBus
from balancer.config_file.configuration import Configuration
from balancer.dispatch.asking import Asker
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.embedding import EmbeddingDispatcher
from balancer.dispatch.isolation import Isolation
from balancer.dispatch.query_turns import QueryTurns
from balancer.errors import SettingError
from balancer.fleet.roster import Roster
from balancer.http.client_address import ClientAddresses
from balancer.http.document.build import document_bytes
from balancer.http.exchange import Wiring
from balancer.http.gate import Gate
from balancer.http.management.live.control import ControlFeed
from balancer.http.management.live.live import Live
from balancer.http.methods import Methods
from balancer.http.prompt_counter import PromptCounter
from balancer.http.replay import Replays
from balancer.http.routes import ROUTES
from balancer.listening import listeners
from balancer.observability.audit import Audit
from balancer.observability.log_ring import LogRing
from balancer.observability.logging import set_level, tell_that_content_is_logged
from balancer.observability.metrics import Metrics
from balancer.observability.route_file import RouteFile
from balancer.observability.samples import Samples
from balancer.services.day_keeping import DayKeeping
from balancer.services.sampling import Gatherer, Sampling
from balancer.serving import App
from balancer.settings import LiveSettings, Settings
from balancer.storage.kept_secret import kept_secret
from balancer.storage.keys_in_force import KeysInForce
from balancer.storage.memory_responses import MemoryResponses
from balancer.storage.responses import Bounds, ResponseStore
from balancer.storage.sql_days import SqlDays
from balancer.storage.sql_responses import SqlResponses
from balancer.upstreams.image_source import ImageSource
from protocol.service_manager import ServiceManager

__all__ = ["App", "build"]


def build(
    given: Settings | Configuration,
    manager: ServiceManager | None = None,
    *,
    log_ring: LogRing | None = None,
) -> App:
    """The whole balancer, not yet listening. Settings alone stay as they are; `manager`: who
    started it and wants to know how it is; `log_ring`: the lines that operators may read. Raises
    `SettingError`."""
    configuration = Configuration.fixed(given) if isinstance(given, Settings) else given
    live, settings = configuration.live, configuration.live.current
    sockets = listeners(settings)
    metrics = Metrics()
    roster = Roster(settings=live, metrics=metrics, now=time.monotonic)
    route_file = _route_file(settings)
    secret, bus = kept_secret(settings.data_dir, "cache_isolation.key"), LocalBus()
    gate = Gate(live, secret=secret, bus=bus, methods=Methods(secret=secrets.token_bytes(32)))
    isolation = Isolation(live, secret=secret, is_open=lambda: gate.is_open)
    dispatcher = Dispatcher(
        roster=roster,
        settings=live,
        metrics=metrics,
        record_route=route_file.write if route_file is not None else None,
        scope_of=isolation.scope_of,
    )
    turns = QueryTurns(roster)
    gatherer = Gatherer(roster=roster, dispatcher=dispatcher, metrics=metrics, now=time.monotonic)
    samples = Samples(gatherer.read)
    embedding = EmbeddingDispatcher(roster=roster, settings=live, metrics=metrics, turns=turns)
    asker = Asker(roster=roster, settings=live, metrics=metrics, turns=turns)
    started = int(time.time())
    keys = KeysInForce(settings.data_dir, secret=secret, now=time.time)
    keys.listen(gate.take_stored)
    metrics.watch_limits(gate.figures)
    wiring = Wiring(
        configuration=configuration,
        gate=gate,
        clients=ClientAddresses(live),
        keys=keys,
        isolation=isolation,
        dispatcher=dispatcher,
        embedding=embedding,
        asker=asker,
        prompt_counter=PromptCounter(asker),
        roster=roster,
        metrics=metrics,
        samples=samples,
        replays=Replays(live),
        responses=_response_store(live),
        audit=Audit.of(live, on_lost=metrics.audit_lines_lost.inc),
        images=ImageSource(live),
        is_draining=lambda: dispatcher.is_draining,
        started=started,
        documents={port: document_bytes(ROUTES, ports) for ports in sockets for port in ports},
        live=Live(
            control=ControlFeed(
                roster=roster,
                listers=(dispatcher, embedding, asker),
                finished=dispatcher.finished,
                is_draining=lambda: dispatcher.is_draining,
                version=_own_version(),
                started=started,
            ),
            samples=samples,
            logs=log_ring or LogRing(),
        ),
        calls={route.call: route for route in ROUTES if route.call},
    )
    keys.on_elsewhere = lambda action, key_id: wiring.audit.note(
        action, None, target=key_id, by="another process"
    )
    _follow_log_level(live)
    _follow_log_content(live)
    metrics.watch_certificate(lambda: configuration.loaded.encryption.ends_s)
    return App(
        wiring,
        Sampling(gatherer, samples, time.time),
        route_file,
        manager or ServiceManager(),
        routes=ROUTES,
        days=_day_keeping(settings, bus),
    )


def _follow_log_level(live: LiveSettings) -> None:
    """A reload that leaves the setting as it was leaves a level that was changed otherwise, too."""
    level = live.current.log_level

    def changed(settings: Settings) -> None:
        nonlocal level
        if settings.log_level != level:
            level = settings.log_level
            set_level(level)

    live.listen(changed)


def _follow_log_content(live: LiveSettings) -> None:
    was_logged = live.current.log_content

    def changed(settings: Settings) -> None:
        nonlocal was_logged
        if settings.log_content and not was_logged:
            tell_that_content_is_logged()
        was_logged = settings.log_content

    live.listen(changed)


def _own_version() -> str:
    """Of the installed package; empty where it is none."""
    try:
        return version("paddler-py")
    except PackageNotFoundError:
        return ""


def _route_file(settings: Settings) -> RouteFile | None:
    if not settings.record_routes:
        return None
    try:
        return RouteFile(Path(settings.record_routes))
    except OSError as error:
        raise SettingError(
            f"record_routes: {settings.record_routes} cannot be written ({error.strerror})"
        ) from error


def _day_keeping(settings: Settings, bus: LocalBus) -> DayKeeping | None:
    if not settings.data_dir:
        return None
    return DayKeeping(bus.ledger, SqlDays(Path(settings.data_dir)))


def _response_store(live: LiveSettings) -> ResponseStore:
    bounds, data_dir = _bounds(live.current), live.current.data_dir
    store: ResponseStore = (
        SqlResponses(Path(data_dir), bounds, now=time.time)
        if data_dir
        else MemoryResponses(bounds, now=time.time)
    )
    live.listen(lambda changed: store.resize(_bounds(changed)))
    return store


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        max_responses=settings.max_stored_responses,
        max_bytes=settings.max_stored_response_bytes,
    )
