"""The composition root: builds the balancer, opens both ports, ends everything in order.

Nothing else constructs collaborators. `App.run` owns every task; a first signal drains, a second
one stops at once.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog
from aiohttp.web import ServerRunner, SockSite

from balancer.cluster.local import LocalBus
from balancer.config_file.configuration import Configuration
from balancer.dispatch.asking import Asker
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.embedding import EmbeddingDispatcher
from balancer.dispatch.isolation import Isolation
from balancer.dispatch.query_turns import QueryTurns
from balancer.errors import AddressNotFree, SettingError
from balancer.fleet.roster import Roster
from balancer.http.client_address import ClientAddresses
from balancer.http.client_server import ClientServer
from balancer.http.connection_count import ConnectionCount
from balancer.http.document.build import document_bytes
from balancer.http.exchange import Port, Wiring
from balancer.http.gate import Gate
from balancer.http.management.live.control import ControlFeed
from balancer.http.management.live.live import Live
from balancer.http.methods import Methods
from balancer.http.middleware import Pipeline
from balancer.http.prompt_counter import PromptCounter
from balancer.http.replay import Replays
from balancer.http.router import Router
from balancer.http.routes import ROUTES
from balancer.observability.audit import Audit
from balancer.observability.log_ring import LogRing
from balancer.observability.logging import level_now, set_level, tell_that_content_is_logged
from balancer.observability.metrics import Metrics
from balancer.observability.route_file import RouteFile
from balancer.observability.samples import Samples
from balancer.services.config_reload import ConfigReload
from balancer.services.day_keeping import DayKeeping
from balancer.services.key_refresh import KeyRefresh
from balancer.services.key_watch import KeyWatch
from balancer.services.liveness import Liveness
from balancer.services.sampling import Gatherer, Sampling
from balancer.services.watchdog import Watchdog
from balancer.settings import Address, LiveSettings, Settings
from balancer.storage.kept_secret import kept_secret
from balancer.storage.keys_in_force import KeysInForce
from balancer.storage.memory_responses import MemoryResponses
from balancer.storage.responses import Bounds, ResponseStore
from balancer.storage.sql_days import SqlDays
from balancer.storage.sql_responses import SqlResponses
from balancer.upstreams.image_source import ImageSource
from protocol.hangup import hangup_came_before
from protocol.service_manager import ServiceManager

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_LAST_ANSWERS_S = 1.0
"""How long the answers that ended with the drain may take to reach their clients."""
_STOPS = (signal.SIGTERM, signal.SIGINT)


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
    listeners = _listeners(settings)
    metrics = Metrics()
    roster = Roster(settings=live, metrics=metrics, now=time.monotonic)
    routes = _route_file(settings)
    secret, bus = kept_secret(settings.data_dir, "cache_isolation.key"), LocalBus()
    gate = Gate(live, secret=secret, bus=bus, methods=Methods(secret=secrets.token_bytes(32)))
    isolation = Isolation(live, secret=secret, is_open=lambda: gate.is_open)
    dispatcher = Dispatcher(
        roster=roster,
        settings=live,
        metrics=metrics,
        record_route=routes.write if routes is not None else None,
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
        documents={port: document_bytes(ROUTES, ports) for ports in listeners for port in ports},
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
        routes,
        manager or ServiceManager(),
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


def _listeners(settings: Settings) -> tuple[tuple[Port, ...], ...]:
    """Which routes each socket serves; its address is that of the first."""
    if settings.single_port:
        return (("inference", "management"),)
    return (("inference",), ("management",))


def _address(settings: Settings, port: Port) -> Address:
    return settings.inference if port == "inference" else settings.management


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


class App:
    """One balancer. `run` once; addresses are known when `ready` is called."""

    def __init__(
        self,
        wiring: Wiring,
        sampling: Sampling,
        routes: RouteFile | None,
        manager: ServiceManager,
        *,
        days: DayKeeping | None,
    ) -> None:
        self.wiring = wiring
        self._days = days
        self._sampling = sampling
        self._routes = routes
        self._live = wiring.configuration.live
        self._reloading = ConfigReload(wiring.configuration, wiring.audit)
        methods = wiring.gate.methods
        self._fetching = KeyRefresh(
            self._live, fetch=methods.fetch_keys, take=wiring.gate.take_keys
        )
        methods.want_keys = self._fetching.ask
        self._watchdog = Watchdog(
            manager,
            roster=wiring.roster,
            dispatcher=wiring.dispatcher,
            configuration=wiring.configuration,
        )
        self._key_watch = KeyWatch(
            wiring.keys,
            end_what_is_over=wiring.gate.lasting.end_what_is_over,
            take_used=wiring.gate.keys.take_used,
        )
        self._sockets: dict[Port, socket.socket] = {}
        self._stop_asked = asyncio.Event()
        self._stop_now = asyncio.Event()

    def bind(self) -> None:
        """Take the ports. Raises `SettingError` where one is taken; `run` does it if need be."""
        settings = self._live.current
        try:
            for ports in _listeners(settings):
                bound = _bound(_address(settings, ports[0]), ports[0])
                self._sockets |= dict.fromkeys(ports, bound)
        except SettingError:
            self._close_sockets()
            raise

    def address_of(self, port: Port) -> Address:
        """Where a port really listens, once bound."""
        host, number = self._sockets[port].getsockname()[:2]
        return Address(host, number)

    def socket_of(self, port: Port) -> socket.socket:
        """A port's listening socket; accepted ones inherit its options."""
        return self._sockets[port]

    def stop(self) -> None:
        """Begin to drain; asked a second time, stop at once."""
        if self._stop_asked.is_set():
            self._stop_now.set()
        self._stop_asked.set()

    async def run(self, ready: Callable[[App], None] | None = None) -> None:
        """Serve until asked to stop, then drain. Raises `SettingError` where a port is taken, or
        what was kept cannot be read."""
        if not self._sockets:
            self.bind()
        if self._days is not None:
            await self._days.begin()
        calls = {
            **dict.fromkeys(_STOPS, self.stop),
            signal.SIGHUP: self._hang_up,
            signal.SIGUSR1: self._turn_log_level,
        }
        with _signals_call(calls):
            runners = [await self._serve(ports) for ports in _listeners(self._live.current)]
            try:
                async with asyncio.TaskGroup() as tasks:
                    loops = [
                        tasks.create_task(run(), name=name) for name, run in self._loops().items()
                    ]
                    self._announce(ready)
                    await self._stop_asked.wait()
                    await self._drain(tasks)
                    for loop in loops:
                        loop.cancel()
            finally:
                for runner in runners:
                    await runner.cleanup()
                await self._close()
        log.info("balancer stopped")

    def _loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The services, by names for their tasks; each runs until it is cancelled."""
        liveness = Liveness(self.wiring.roster, also=self.wiring.dispatcher.evacuation.move_stalled)
        return {
            "liveness": liveness.run,
            "config reload": self._reloading.run,
            "key refresh": self._fetching.run,
            "watchdog": self._watchdog.run,
            "sampling": self._sampling.run,
            "key watch": self._key_watch.run,
            **({} if self._days is None else {"day keeping": self._days.run}),
        }

    async def _close(self) -> None:
        """Nobody is served any more: write what is to be kept, let go of the rest."""
        self._close_sockets()
        if self._routes is not None:
            self._routes.close()
        await self.wiring.images.close()
        await self.wiring.gate.methods.close()
        await self.wiring.responses.close()
        await self._key_watch.note_uses()
        await self.wiring.keys.close()
        if self._days is not None:
            await self._days.end()
        await asyncio.to_thread(self.wiring.audit.close)

    def _hang_up(self) -> None:
        """Read the files again; one that was moved away may be compressed."""
        self.wiring.audit.reopen()
        self._reloading.ask()

    def _turn_log_level(self) -> None:
        """Log everything; the next time, what is set."""
        level = self._live.current.log_level if level_now() == "debug" else "debug"
        set_level(level)
        log.warning("log level changed", after=level)
        self.wiring.audit.note("log_level.set", None, target=level, trigger="signal")

    async def _serve(self, ports: tuple[Port, ...]) -> ServerRunner:
        pipeline = Pipeline(
            Router(ROUTES, ports=ports), self.wiring, has_inference="inference" in ports
        )
        count = ConnectionCount(self._live, self.wiring.clients)
        self.wiring.metrics.watch_connections(ports[0], lambda: count.open)
        configuration = self.wiring.configuration
        server = ClientServer(
            pipeline,
            settings=self._live,
            metrics=self.wiring.metrics,
            count=count,
            refuse=pipeline.refuse,
            in_short=pipeline.in_short,
            tls=lambda: configuration.loaded.encryption.contexts.get(ports[0]),
        )
        runner = ServerRunner(server, shutdown_timeout=_LAST_ANSWERS_S)
        await runner.setup()
        await SockSite(runner, self._sockets[ports[0]], backlog=_BACKLOG).start()
        return runner

    def _announce(self, ready: Callable[[App], None] | None) -> None:
        if self._live.current.log_content:
            tell_that_content_is_logged()
        log.info(
            "balancer listens",
            inference=str(self.address_of("inference")),
            management=str(self.address_of("management")),
        )
        encryption = self.wiring.configuration.loaded.encryption
        if encryption.contexts:
            log.info("TLS is on", **encryption.facts)
        if ready is not None:
            ready(self)

    async def _drain(self, tasks: asyncio.TaskGroup) -> None:
        """Let what runs end within the deadline; a second signal or the deadline ends it."""
        dispatcher = self.wiring.dispatcher
        embedding, asker = self.wiring.embedding, self.wiring.asker
        dispatcher.begin_draining()
        embedding.begin_draining()
        asker.begin_draining()
        self._watchdog.stopping()
        log.info("draining", in_flight=dispatcher.in_flight, waiting=dispatcher.waiting)
        drained = tasks.create_task(self._drained(), name="drain")
        stopped = tasks.create_task(self._stop_now.wait(), name="second signal")
        await asyncio.wait((drained, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not (drained.done() and drained.result()):
            log.warning("stopping with generations unfinished", in_flight=dispatcher.in_flight)
        drained.cancel()
        stopped.cancel()
        dispatcher.end_all()
        embedding.end_all()
        asker.end_all()
        await self.wiring.replays.settled()
        self.wiring.replays.close()
        for agent in tuple(self.wiring.roster.agents()):
            agent.link.close("the balancer stops")
        self.wiring.live.close()

    async def _drained(self) -> bool:
        """Whether everything ended within the deadline."""
        deadline_s = self._live.current.drain_timeout_s
        try:
            async with asyncio.timeout(deadline_s):
                await self.wiring.embedding.drained()
                await self.wiring.asker.drained()
                return await self.wiring.dispatcher.drained(deadline_s)
        except TimeoutError:
            return False

    def _close_sockets(self) -> None:
        for listener in self._sockets.values():
            listener.close()


def _bound(address: Address, what: str) -> socket.socket:
    """A listening socket that streams: small writes go out at once (accepted ones inherit it)."""
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.create_server(
            (address.host, address.port), family=family, backlog=_BACKLOG
        )
    except OSError as error:
        raise _not_bound(address, what, error) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _not_bound(address: Address, what: str, error: OSError) -> SettingError:
    """What to say and whether another try may help, as where a tunnel comes up late."""
    said = f"{what}: {address} cannot be used ({error.strerror or error}); "
    other = f"choose another address with --{what} HOST:PORT"
    if error.errno == errno.EADDRINUSE:
        return AddressNotFree(f"{said}is another balancer running? Else {other}")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return AddressNotFree(f"{said}no interface of this machine has it now. Wait, or {other}")
    if error.errno == errno.EACCES:
        return SettingError(f"{said}ports below 1024 need CAP_NET_BIND_SERVICE. Else {other}")
    return SettingError(f"{said}{other}")


@contextmanager
def _signals_call(calls: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Signals have these called while this is open, also a hangup that came before; outside the
    main thread they are left alone."""
    loop = asyncio.get_running_loop()
    earlier = signal.getsignal(signal.SIGHUP)
    try:
        for number, call in calls.items():
            loop.add_signal_handler(number, call)
    except (ValueError, RuntimeError, NotImplementedError):
        yield
        return
    if hangup_came_before(earlier):
        calls[signal.SIGHUP]()
    try:
        yield
    finally:
        for number in calls:
            loop.remove_signal_handler(number)
