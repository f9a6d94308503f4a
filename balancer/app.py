"""The composition root: builds the balancer, opens both ports, ends everything in order.

Nothing else constructs collaborators. `App.run` owns every task; a first signal drains, a second
one stops at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from aiohttp.web import ServerRunner, SockSite

from balancer.dispatch.asking import Asker
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.embedding import EmbeddingDispatcher
from balancer.dispatch.query_turns import QueryTurns
from balancer.errors import SettingError
from balancer.fleet.roster import Roster
from balancer.http.connection import ClientServer
from balancer.http.document.build import document_bytes
from balancer.http.exchange import Port, Wiring
from balancer.http.middleware import Pipeline
from balancer.http.origin import is_loopback
from balancer.http.replay import Replays
from balancer.http.router import Router
from balancer.http.routes import ROUTES
from balancer.http.traffic import Traffic
from balancer.observability.metrics import Metrics
from balancer.observability.route_file import RouteFile
from balancer.services.liveness import Liveness
from balancer.settings import Address, Settings
from balancer.storage.memory_responses import MemoryResponses
from balancer.storage.responses import Bounds, ResponseStore
from balancer.storage.sql_responses import SqlResponses
from balancer.upstreams.image_source import ImageSource

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_LAST_ANSWERS_S = 1.0
"""How long the answers that ended with the drain may take to reach their clients."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def build(settings: Settings) -> App:
    """The whole balancer, not yet listening. Raises `SettingError`."""
    listeners = _listeners(settings)
    for what, *_ in listeners:
        _check_reach(what, _address(settings, what), settings)
    metrics = Metrics()
    roster = Roster(settings=settings, metrics=metrics, now=time.monotonic)
    routes = _route_file(settings)
    dispatcher = Dispatcher(
        roster=roster,
        settings=settings,
        metrics=metrics,
        record_route=routes.write if routes is not None else None,
    )
    turns = QueryTurns(roster)
    wiring = Wiring(
        settings=settings,
        dispatcher=dispatcher,
        embedding=EmbeddingDispatcher(
            roster=roster, settings=settings, metrics=metrics, turns=turns
        ),
        asker=Asker(roster=roster, settings=settings, metrics=metrics, turns=turns),
        roster=roster,
        metrics=metrics,
        traffic=Traffic(),
        replays=Replays(settings),
        responses=_response_store(settings),
        images=ImageSource(settings),
        is_draining=lambda: dispatcher.is_draining,
        started=int(time.time()),
        documents={port: document_bytes(ROUTES, ports) for ports in listeners for port in ports},
    )
    return App(wiring, routes)


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


def _response_store(settings: Settings) -> ResponseStore:
    bounds = Bounds(
        max_responses=settings.max_stored_responses,
        max_bytes=settings.max_stored_response_bytes,
    )
    if not settings.data_dir:
        return MemoryResponses(bounds, now=time.time)
    return SqlResponses(Path(settings.data_dir), bounds, now=time.time)


class App:
    """One balancer. `run` once; addresses are known when `ready` is called."""

    def __init__(self, wiring: Wiring, routes: RouteFile | None = None) -> None:
        self.wiring = wiring
        self._routes = routes
        self._settings = wiring.settings
        self._sockets: dict[Port, socket.socket] = {}
        self._stop_asked = asyncio.Event()
        self._stop_now = asyncio.Event()

    def bind(self) -> None:
        """Take the ports. Raises `SettingError` where one is taken; `run` does it if need be."""
        settings = self._settings
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
        """Serve until asked to stop, then drain. Raises `SettingError` where a port is taken."""
        if not self._sockets:
            self.bind()
        with _signals_call(self.stop):
            runners = [await self._serve(ports) for ports in _listeners(self._settings)]
            try:
                async with asyncio.TaskGroup() as tasks:
                    liveness = Liveness(
                        self.wiring.roster,
                        self._settings,
                        also=self.wiring.dispatcher.evacuation.move_stalled,
                    )
                    watching = tasks.create_task(liveness.run(), name="liveness")
                    self._announce(ready)
                    await self._stop_asked.wait()
                    await self._drain(tasks)
                    watching.cancel()
            finally:
                for runner in runners:
                    await runner.cleanup()
                self._close_sockets()
                if self._routes is not None:
                    self._routes.close()
                await self.wiring.images.close()
                await self.wiring.responses.close()
        log.info("balancer stopped")

    async def _serve(self, ports: tuple[Port, ...]) -> ServerRunner:
        pipeline = Pipeline(Router(ROUTES, ports=ports), self.wiring)
        server = ClientServer(
            pipeline,
            settings=self._settings,
            metrics=self.wiring.metrics,
            refuse=pipeline.refuse,
        )
        runner = ServerRunner(server, shutdown_timeout=_LAST_ANSWERS_S)
        await runner.setup()
        await SockSite(runner, self._sockets[ports[0]], backlog=_BACKLOG).start()
        return runner

    def _announce(self, ready: Callable[[App], None] | None) -> None:
        log.info(
            "balancer listens",
            inference=str(self.address_of("inference")),
            management=str(self.address_of("management")),
        )
        if ready is not None:
            ready(self)

    async def _drain(self, tasks: asyncio.TaskGroup) -> None:
        """Let what runs end within the deadline; a second signal or the deadline ends it."""
        dispatcher = self.wiring.dispatcher
        embedding, asker = self.wiring.embedding, self.wiring.asker
        dispatcher.begin_draining()
        embedding.begin_draining()
        asker.begin_draining()
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

    async def _drained(self) -> bool:
        """Whether everything ended within the deadline."""
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self.wiring.embedding.drained()
                await self.wiring.asker.drained()
                return await self.wiring.dispatcher.drained(self._settings.drain_timeout_s)
        except TimeoutError:
            return False

    def _close_sockets(self) -> None:
        for listener in self._sockets.values():
            listener.close()


def _check_reach(what: str, address: Address, settings: Settings) -> None:
    """Without credentials everybody who reaches a port may use it, so only this host may."""
    if settings.insecure or is_loopback(address.host):
        return
    raise SettingError(
        f"{what}: {address} can be reached by others and nobody has to sign in; "
        "listen on 127.0.0.1, or add --insecure if that is what you want"
    )


def _bound(address: Address, what: str) -> socket.socket:
    """A listening socket that streams: small writes go out at once (accepted ones inherit it)."""
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.create_server(
            (address.host, address.port), family=family, backlog=_BACKLOG
        )
    except OSError as error:
        raise SettingError(
            f"{what}: {address} cannot be used ({error.strerror or error}); is another balancer "
            f"running? Choose another address with --{what} HOST:PORT"
        ) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


@contextmanager
def _signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Signals ask to stop while this is open; outside the main thread they are left alone."""
    loop = asyncio.get_running_loop()
    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
    except (ValueError, RuntimeError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
