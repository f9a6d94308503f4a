"""A balancer that runs: opens its ports, owns its loops, ends everything in order.

`App.run` owns every task; a first signal drains, a second one stops at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from aiohttp.web import ServerRunner, SockSite

from balancer.errors import SettingError
from balancer.http.client_server import ClientServer
from balancer.http.connection_count import ConnectionCount
from balancer.http.exchange import Port, Wiring
from balancer.http.middleware import Pipeline
from balancer.http.router import Route, Router
from balancer.listening import BACKLOG, address_of_port, bound, listeners
from balancer.observability.logging import level_now, set_level, tell_that_content_is_logged
from balancer.observability.route_file import RouteFile
from balancer.services.config_reload import ConfigReload
from balancer.services.day_keeping import DayKeeping
from balancer.services.key_refresh import KeyRefresh
from balancer.services.key_watch import KeyWatch
from balancer.services.liveness import Liveness
from balancer.services.sampling import Sampling
from balancer.services.watchdog import Watchdog
from balancer.settings import Address
from protocol.hangup import hangup_came_before
from protocol.service_manager import ServiceManager

log = structlog.get_logger(__name__)

_LAST_ANSWERS_S = 1.0
"""How long the answers that ended with the drain may take to reach their clients."""
_STOPS = (signal.SIGTERM, signal.SIGINT)


class App:
    """One balancer. `run` once; addresses are known when `ready` is called."""

    def __init__(
        self,
        wiring: Wiring,
        sampling: Sampling,
        route_file: RouteFile | None,
        manager: ServiceManager,
        *,
        routes: Sequence[Route],
        days: DayKeeping | None,
    ) -> None:
        """`routes`: those of all ports."""
        self.wiring = wiring
        self._routes = routes
        self._days = days
        self._sampling = sampling
        self._route_file = route_file
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
            for ports in listeners(settings):
                listener = bound(address_of_port(settings, ports[0]), ports[0])
                self._sockets |= dict.fromkeys(ports, listener)
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
            runners = [await self._serve(ports) for ports in listeners(self._live.current)]
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
        if self._route_file is not None:
            self._route_file.close()
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
            Router(self._routes, ports=ports), self.wiring, has_inference="inference" in ports
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
        await SockSite(runner, self._sockets[ports[0]], backlog=BACKLOG).start()
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
