"""Random churn on an engine in this process, everything held against llama.cpp's view each turn.

Arrivals of every kind (short and long prompts that share beginnings, several choices of one prompt,
grammars, embeddings, hopeless ones), cancels and pauses at random moments. Checked: the sequences,
tree, cells and host memory after each turn; answers that are known must be exact; nobody's text
holds a word that was put into another call's prompt (a canary).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import psutil

from agent.engine.frames import (
    CancelCall,
    ContinueCall,
    EngineOptions,
    PauseCall,
    Sampling,
    Submit,
)
from agent.engine.llama.log import start_backend
from agent.engine.llama.model import Model
from agent.engine.queries import Queries
from agent.engine.query_frames import EmbedCall, TokenizeCall
from protocol.grammar import Grammar
from tests.support.cluster import DEMO_MODEL
from tests.support.engine_bench import EngineBench
from tests.support.engine_invariants import check_idle, checked
from tests.support.sure_prompts import sure_prompts

SLOTS = 6
CONTEXT = 1024
SYSTEMS = tuple(
    f"You are assistant number {number}, and you answer briefly and in plain words. " * repeats
    for number, repeats in enumerate((1, 3, 6, 12))
)
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
GREEDY = Sampling(temperature=0.0)
LONGEST_ANSWER = 80
LONGER = 6
"""Times that it may take on a busy machine."""
CACHES: dict[str, dict[str, object]] = {
    "streams": {},
    "unified": {"unified_kv": "on", "context_tokens": 2 * CONTEXT},
}


def options(**fields: object) -> EngineOptions:
    """Options under which answers are exact, with everything on that may change them."""
    settings: dict[str, object] = {
        "slots": SLOTS,
        "context_tokens": SLOTS * CONTEXT,
        "threads": 1,
        "cache_type": "f32",
        "flash_attention": "off",
        "micro_batch_tokens": 128,
        "host_cache_bytes": 1 << 24,
    }
    return EngineOptions(model_path=str(DEMO_MODEL), **(settings | fields))  # type: ignore[arg-type]  # of any test


def chat(user: str, system: str = "") -> str:
    """A chat as the shipped model's template writes it."""
    turns = (("system", system), ("user", user)) if system else (("user", user),)
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return f"{said}<|im_start|>assistant\n"


@dataclass
class Tally:
    """What happened."""

    turns: int = 0
    finished: int = 0
    cancelled: int = 0
    refused: int = 0
    exact: int = 0
    own_canaries: int = 0
    queries: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    rss_mib: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        """Whether something of every kind was seen."""
        kinds = (self.exact, self.own_canaries, self.cancelled, self.cached_tokens, self.queries)
        return self.finished > 10 and all(kinds)

    def slope_mib_a_minute(self) -> float:
        """Of memory, by least squares, without the first fifth of the time, in which it fills."""
        points = self.rss_mib[len(self.rss_mib) // 5 :]
        if len(points) < 2:
            return 0.0
        mean_t = sum(t for t, _ in points) / len(points)
        mean_m = sum(m for _, m in points) / len(points)
        spread = sum((t - mean_t) ** 2 for t, _ in points)
        return 60 * sum((t - mean_t) * (m - mean_m) for t, m in points) / spread


class Churn:
    """One engine under random load."""

    def __init__(self, bench: EngineBench, queries: Queries, dice: Random) -> None:
        self._bench, self._queries, self._dice = bench, queries, dice
        self._known = sure_prompts()
        self._next = 1
        self._running: dict[int, tuple[str, str]] = {}
        self._paused: set[int] = set()
        self.tally = Tally()

    def turn(self) -> None:
        """Something may come, something may leave; then one step of the engine."""
        dice = self._dice
        if len(self._running) < SLOTS + 2 and dice.random() < 0.3:
            dice.choice(self._arrivals())()
        if self._running and dice.random() < 0.02:
            self._bench.serving.cancel(CancelCall(call=dice.choice(list(self._running))))
        if self._running and dice.random() < 0.02:
            self._pause(dice.choice(list(self._running)))
        if self._paused and dice.random() < 0.1:
            self._go_on(dice.choice(list(self._paused)))
        self._queries.texts.collect()
        self._bench.turn()
        self.tally.queries += len(self._queries.turn(self._bench.serving.prompt_budget))
        self.tally.turns += 1
        self._look()

    def finish(self) -> None:
        """No arrivals any more, until all is over."""
        for call in list(self._paused):
            self._go_on(call)
        while self._running or self._queries.has_work:
            self._queries.texts.collect()
            self._bench.turn()
            self.tally.queries += len(self._queries.turn())
            self._look()

    def _arrivals(self) -> list[Callable[[], None]]:
        often = [self._known_answer, self._known_answer, self._canary, self._canary, self._long]
        return [*often, self._choices, self._grammar, self._query, self._hopeless, self._warm]

    def _submit(self, prompt: str, answer: str = "", canary: str = "", **fields: object) -> None:
        settings = {"sampling": GREEDY, "max_tokens": LONGEST_ANSWER}
        self._bench.submit(
            Submit(call=self._next, prompt=prompt, **(settings | fields))  # type: ignore[arg-type]  # of any kind
        )
        self._running[self._next] = (answer, canary)
        self._next += 1

    def _known_answer(self) -> None:
        prompt, answer = self._dice.choice(self._known)
        self._submit(chat(prompt), answer, max_tokens=600)

    def _canary(self) -> None:
        canary = str(self._dice.randrange(100_000, 1_000_000))
        system = self._dice.choice(("", *SYSTEMS))
        seed = self._dice.randrange(1000)
        self._submit(
            chat(f"Repeat exactly: {canary}", system),
            canary=canary,
            sampling=Sampling(temperature=0.5, seed=seed),
            scope=self._dice.choice(("", "a", "b")),
        )

    def _long(self) -> None:
        system = " ".join(self._dice.choices(SYSTEMS, k=3))[: self._dice.randrange(200, 2500)]
        priority = self._dice.randrange(3)
        self._submit(chat("Count from 1 to 20.", system), priority=priority)

    def _choices(self) -> None:
        prompt = chat("Roll a die 20 times.", self._dice.choice(SYSTEMS))
        for seed in range(self._dice.randrange(2, 5)):
            self._submit(prompt, sampling=Sampling(seed=seed))

    def _grammar(self) -> None:
        grammar = Grammar(kind="json_schema", text=SCHEMA)
        self._submit(chat("Say a number."), grammar=grammar, sampling=Sampling(seed=self._next))

    def _query(self) -> None:
        if self._dice.random() < 0.5:
            inputs = tuple(tuple(range(10, 10 + n)) for n in range(1, self._dice.randrange(2, 20)))
            self._queries.submit(EmbedCall(call=self._next, inputs=inputs, pooling="mean"))
        else:
            self._queries.submit(TokenizeCall(call=self._next, text=self._dice.choice(SYSTEMS)))
        self._next += 1

    def _hopeless(self) -> None:
        self._submit(chat("word " * self._dice.choice((900, 1_500, 20_000))))
        self._submit("", sampling=Sampling(temperature=-1.0))

    def _warm(self) -> None:
        self._submit(chat("", self._dice.choice(SYSTEMS)), warm=True)

    def _pause(self, call: int) -> None:
        self._paused.add(call)
        self._bench.serving.pause(PauseCall(call=call))

    def _go_on(self, call: int) -> None:
        self._paused.discard(call)
        self._bench.serving.go_on(ContinueCall(call=call))

    def _look(self) -> None:
        """Take note of what ended."""
        heard = self._bench.heard
        for call in [call for call in self._running if heard[call].is_over]:
            answer, canary = self._running.pop(call)
            self._paused.discard(call)
            self._judge(call, answer, canary)
            heard.forget(call)

    def _judge(self, call: int, answer: str, canary: str) -> None:
        heard, tally = self._bench.heard[call], self.tally
        assert heard.failed is None, heard.failed
        if heard.refused is not None:
            tally.refused += 1
            return
        assert heard.ended is not None
        tally.tokens += len(heard.token_ids)
        tally.cached_tokens += heard.ended.usage.cached_tokens
        others = [word for _, word in self._running.values() if word]
        assert not any(word in heard.text for word in others), "a call saw another one's prompt"
        if heard.ended.finish_reason == "cancelled":
            tally.cancelled += 1
            return
        tally.finished += 1
        tally.own_canaries += bool(canary) and canary in heard.text
        if answer:
            assert heard.text == answer
            tally.exact += 1


def goes_on(passed_s: float, seconds: float, *, is_enough: bool) -> bool:
    """For so long, and on a busy machine until it shows something, but not for ever."""
    return passed_s < seconds or (not is_enough and passed_s < LONGER * seconds)


def churn(seconds: float, seed: int, **fields: object) -> Tally:
    """Churn for a while; raises `AssertionError` at the first thing that is wrong."""
    log = start_backend()
    settings = options(**fields)
    model = Model(settings, log)
    queries = Queries(model, settings, log)
    bench = checked(EngineBench(model, log, settings, texts=queries.texts))
    run = Churn(bench, queries, Random(seed))
    process = psutil.Process(os.getpid())
    started = sampled = time.monotonic()
    while goes_on((now := time.monotonic()) - started, seconds, is_enough=run.tally.is_enough):
        run.turn()
        if now - sampled > 1:
            sampled = now
            run.tally.rss_mib.append((now - started, process.memory_info().rss / 2**20))
    run.finish()
    check_idle(bench)
    queries.close()
    bench.close()
    model.close()
    return run.tally
