"""`paddler-py chat` in a real terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster import PROJECT, Cluster, wait_until


class Terminal:
    """A program on a pseudo-terminal: what it showed so far, and keys for it."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        os.set_blocking(leader, False)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def shows(self, text: str, *, after: int = 0) -> bool:
        try:
            while data := os.read(self._leader, 65536):
                self.shown += data.decode("utf-8", "replace")
        except (BlockingIOError, OSError):
            pass
        return text in self.shown[after:]

    def ask(self, question: str, answer: str) -> None:
        """Type a question and wait for its answer and the next prompt."""
        before = len(self.shown)
        self.type(question + "\r")
        wait_until(lambda: self.shows(answer, after=before), what=f"the answer to {question}")
        begun = self.shown.index(answer, before)
        wait_until(lambda: self.shows("> ", after=begun), what="the next prompt")


@contextmanager
def chatting(cluster: Cluster) -> Iterator[Terminal]:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "paddler_py", "chat", "--url", cluster.inference_url]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        terminal = Terminal(leader)
        try:
            wait_until(lambda: terminal.shows("> "), what="the first prompt")
            yield terminal
            terminal.type("\x04")
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(leader)


def test_a_conversation_goes_on_when_it_is_longer_than_the_context(cluster: Cluster) -> None:
    cluster.start_balancer()
    cluster.start_agent("one", "--slots", "1", "--context", "140")
    with chatting(cluster) as terminal:
        terminal.ask("Count from 1 to 30.", "28 29 30")
        terminal.ask("Count from 1 to 20.", "18 19 20")
        terminal.ask("Which port do agents dial?", "Agents dial port 8081.")
        assert "its oldest turn is left out" in terminal.shown


def test_an_answer_that_a_limit_ended_is_marked(cluster: Cluster) -> None:
    cluster.start_balancer()
    cluster.start_agent("one", "--slots", "1", "--context", "60")
    with chatting(cluster) as terminal:
        terminal.ask("Count from 1 to 100.", "[cut off: the answer reached its limit]")
