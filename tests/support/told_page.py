"""A page that is told of a simulated cluster, as quickly as it can take it, and what it weighs."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from msgspec import Struct
from playwright.sync_api import CDPSession, Page, WebSocketRoute

from balancer.observability.samples import SERIES
from balancer.observability.tree import Tree, difference
from tests.support.simulated_cluster import BEGAN_S, SimulatedCluster

TELLINGS_A_SECOND = 4
KEPT_S = 600


class Weight(Struct, frozen=True, kw_only=True):
    """What a page holds once everything is collected that can be."""

    heap_bytes: int
    nodes: int
    listeners: int


class ToldPage:
    """Takes the sockets of a page for itself, and moves its clock. `told_s` are the seconds that
    were told."""

    def __init__(self, page: Page, session: CDPSession, cluster: SimulatedCluster) -> None:
        self._page = page
        self._session = session
        self._cluster = cluster
        self._sockets: dict[str, WebSocketRoute] = {}
        self._seqs: dict[str, int] = {}
        self._control: Tree = {}
        self._figures: Tree = {}
        self.told_s = 0
        page.clock.install(time=BEGAN_S)
        for kind in ("control", "metrics", "logs"):
            page.route_web_socket(f"**/ws/{kind}*", partial(self._open, kind))

    def tell(self, seconds: int) -> None:
        """The next seconds, each drawn before the next is told."""
        for _ in range(seconds):
            for quarter in range(TELLINGS_A_SECOND):
                self._tell_control(self.told_s + quarter / TELLINGS_A_SECOND)
            self._tell_figures()
            if lines := self._cluster.lines(self.told_s):
                self._send("logs", type="lines", lines=lines)
            self.told_s += 1
            self._page.clock.run_for(1000)

    def weight(self) -> Weight:
        """After a collection."""
        self._session.send("HeapProfiler.collectGarbage")
        counted = self._session.send("Memory.getDOMCounters")
        return Weight(
            heap_bytes=int(self._session.send("Runtime.getHeapUsage")["usedSize"]),
            nodes=counted["nodes"],
            listeners=counted["jsEventListeners"],
        )

    def _open(self, kind: str, socket: WebSocketRoute) -> None:
        self._sockets[kind] = socket
        at_s = self.told_s
        if kind == "control":
            self._control = data = self._cluster.control(at_s)
        elif kind == "metrics":
            self._figures = self._cluster.figures(at_s)
            past: dict[str, Any] = {path: [1.5] * KEPT_S for path in SERIES}
            series = {"interval_s": 1, "end": BEGAN_S + at_s, "paths": past}
            data = {"now": self._figures, "series": series}
        else:
            data = {"lines": self._cluster.lines(at_s)}
        self._send(kind, type="snapshot", data=data)

    def _tell_control(self, at_s: float) -> None:
        before, self._control = self._control, self._cluster.control(at_s)
        found = difference(before, self._control)
        self._send("control", type="delta", set=found.set, gone=found.gone)

    def _tell_figures(self) -> None:
        before, self._figures = self._figures, self._cluster.figures(self.told_s)
        found = difference({"now": before}, {"now": self._figures})
        point = {"at": BEGAN_S + self.told_s, "values": self._cluster.values(self.told_s)}
        self._send("metrics", type="delta", set=found.set, gone=found.gone, point=point)

    def _send(self, kind: str, **message: Any) -> None:
        self._seqs[kind] = seq = self._seqs.get(kind, 0) + 1
        if socket := self._sockets.get(kind):
            socket.send(json.dumps({"seq": seq, **message}))
