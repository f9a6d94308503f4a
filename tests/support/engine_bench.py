"""An engine in this process, turned by hand: real llama.cpp, no sockets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from agent.engine.facts import facts_of
from agent.engine.frames import EngineFacts, EngineOptions, Submit
from agent.engine.llama.adapters import Adapters
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.engine.llama.projector import Projector
from agent.engine.media import Media
from agent.engine.serving import Serving
from agent.engine.text_thread import TextThread
from tests.support.engine_calls import Calls, Heard


class EngineBench:
    """A context and its calls; `close` it. `after_turn` is called after each turn."""

    def __init__(
        self,
        model: Model,
        log: LlamaLog,
        options: EngineOptions,
        projector: Projector | None = None,
        texts: TextThread | None = None,
    ) -> None:
        self.model = model
        self.context = Context(model, options, log)
        media = Media(projector, most_whole=self.context.batch_tokens) if projector else None
        adapters = Adapters(model, options.adapters, log) if options.adapters else None
        self.serving = Serving(model, self.context, options, adapters, media, texts=texts)
        self.serving.warm_up()
        self.facts: EngineFacts = facts_of(model, self.context, projector, adapters)
        self.heard = Calls()
        self.after_turn: Callable[[], None] = lambda: None
        self._numbers = count(1)

    def submit(self, submit: Submit) -> None:
        self.serving.submit(submit)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            step = self.serving.turn()
            if step is not None:
                self.heard.take(step)
            self.after_turn()

    def finish(self) -> None:
        """Turn until there is nothing left to do."""
        while self.serving.has_work:
            self.turn()
        self.turn()

    def call(self, prompt: str | tuple[int, ...] = "hello world", **fields: object) -> Heard:
        """One call alone, from beginning to end."""
        number = next(self._numbers) + 1000
        self.submit(Submit(call=number, prompt=prompt, **fields))  # type: ignore[arg-type]  # of any test
        self.finish()
        return self.heard[number]

    def close(self) -> None:
        self.context.close()
