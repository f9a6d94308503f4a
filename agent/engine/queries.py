"""Calls that take no slot and have one answer: embed, rerank, tokenise, detokenise.

The worker's loop takes a turn here between two of generation. What a running stream feels of it is
at most one micro-batch of embeddings (one whole input, where the model cannot split them) and a few
milliseconds of tokenising; contexts are made on first use, which holds the loop once. Long texts
that are only tokenised are for the thread beside the loop, which works on long prompts, too.
"""

from __future__ import annotations

from agent.engine.embedding.embedder import Embedder
from agent.engine.frames import EngineOptions
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.engine.query_frames import (
    EmbedCall,
    Embedded,
    QueryAnswer,
    QueryCall,
    QueryRefused,
    RerankCall,
)
from agent.engine.text_thread import TextThread
from agent.engine.tokenizing import Tokenizing
from agent.errors import ModelUnusable

WARM_UP_TURNS = 2
"""The first micro-batch may fail among others, its inputs are then tried alone."""


class Queries:
    """All queries of one model. Every queue is bounded; what does not fit is refused."""

    def __init__(self, model: Model, options: EngineOptions, log: LlamaLog) -> None:
        self._embedder = Embedder(model, options, log)
        self.texts = TextThread()
        """Makes calls ready as well; who runs the loop collects what it has done."""
        self._tokenizing = Tokenizing(model.vocabulary, self.texts)
        self._ready: list[QueryAnswer] = []

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something now."""
        return bool(self._ready) or self._embedder.has_work or self._tokenizing.has_work

    def warm_up(self) -> None:
        """Embed a token; a wrong build dies here, not later. Raises `ModelUnusable`."""
        self._embedder.submit(EmbedCall(call=0, inputs=((0,),), pooling="mean"))
        answers = [answer for _ in range(WARM_UP_TURNS) for answer in self._embedder.turn()]
        match answers:
            case [Embedded(errors=())]:
                return
            case [QueryRefused(message=message)]:
                raise ModelUnusable(message)
            case _:
                raise ModelUnusable("The first decode gave no usable vector; is the file damaged?")

    def submit(self, command: QueryCall) -> None:
        """Take a call, or refuse it with the next turn's answers."""
        if isinstance(command, EmbedCall | RerankCall):
            self._embedder.submit(command)
        else:
            self._tokenizing.submit(command)

    def tell(self, answer: QueryAnswer) -> None:
        """Have an answer told with the next turn's."""
        self._ready.append(answer)

    def cancel(self, call: int) -> None:
        """Forget a call; nothing more is said about it. Unknown: no effect."""
        self._embedder.cancel(call)
        self._tokenizing.cancel(call)

    def turn(self, budget: int | None = None) -> list[QueryAnswer]:
        """Work for at most one micro-batch, of at most `budget` tokens (None: nobody else waits);
        the answers that are complete now."""
        answers = [*self._ready, *self._tokenizing.turn()]
        self._ready.clear()
        if self._embedder.has_work:
            answers += self._embedder.turn(budget)
        return answers

    def close(self) -> None:
        """Free the contexts and end the thread."""
        self._embedder.close()
        self.texts.close()
