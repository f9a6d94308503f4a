"""An agent without a socket: it speaks the protocol by bytes with a link of the roster.

It answers when the test says so, never inside the balancer's own call, as a socket would.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from balancer.fleet.queries import TextAnswer, TextQuestion
from balancer.fleet.roster import Roster
from protocol import codec
from protocol.agent_status import AgentStatus
from protocol.embeddings import EmbeddingInput, Embeddings
from protocol.errors import ProtocolError
from protocol.generation import FinishReason, TokenLogprob, Usage
from protocol.jsonrpc import (
    CallId,
    ErrorObject,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
)
from protocol.models import ServedModel
from protocol.refusals import RefusalCode
from protocol.to_agent import (
    Cancel,
    Committed,
    Continue,
    Detokenize,
    Embed,
    ExportSequence,
    GenerateTokens,
    Pause,
    Render,
    Rerank,
    Snapshot,
    Tokenize,
)
from protocol.to_balancer import (
    Failed,
    Finished,
    Goodbye,
    Heartbeat,
    IssueCleared,
    IssueRaised,
    Register,
    Tokens,
    Welcome,
)
from tests.support.toy_answers import toy_answer

REGISTER_ID = "register"


class MemoryAgent:
    """Holds its own truth: `running` are the calls that it gave a slot to, in order."""

    def __init__(
        self,
        roster: Roster,
        name: str = "one",
        *,
        slots: int = 4,
        model: str | None = "demo",
        aliases: tuple[str, ...] = (),
        epoch: str = "e1",
        resume_key: str = "same",
        kv_key: str = "",
        queries: int = 0,
        dimensions: int = 0,
        adapters: tuple[str, ...] = (),
    ) -> None:
        self.queries = queries
        self.questions: dict[int, Embed] = {}
        """Every question for vectors, in order."""
        self.unanswered_questions: list[int] = []
        self.text_questions: dict[int, TextQuestion] = {}
        """Every other question, in order."""
        self.unanswered_texts: list[int] = []
        self.name = name
        self.resume_key = resume_key
        self.kv_key = kv_key
        self.epoch = epoch
        self.slots = slots
        self.model = (
            None
            if model is None
            else ServedModel(
                name=model,
                aliases=aliases,
                context_tokens=2048,
                embedding_dimensions=dimensions,
                adapters=adapters,
            )
        )
        self.calls: dict[int, GenerateTokens] = {}
        """Every call ever received, in order."""
        self.tokens_sent: Counter[int] = Counter()
        self.unanswered: list[int] = []
        self.running: list[int] = []
        self.cancelled: list[int] = []
        self.paused: list[int] = []
        self.welcome: Welcome | None = None
        self.refusal: ErrorObject | None = None
        self.closed_reason: str | None = None
        self.received: list[Message | ProtocolError] = []
        self.capacity_version = 0
        self.cache_seq = 0
        self.overbooked = 0
        """Calls that came although every slot was claimed, by the last slots reported."""
        self.snapshots_asked: list[CallId] = []
        """Requests for a snapshot that have no answer yet."""
        self._seq = 0
        self.link = roster.open_link(send=self._take, close=self._on_close)

    # --- what the agent says ---

    def register(self, *, protocol_min: int = 1, protocol_max: int = 1) -> MemoryAgent:
        """Introduce itself; see `welcome` and `refusal` afterwards."""
        params = Register(
            name=self.name,
            epoch=self.epoch,
            protocol_min=protocol_min,
            protocol_max=protocol_max,
            model=self.model,
            resume_key=self.resume_key,
            kv_key=self.kv_key,
            status=self.status(),
        )
        self.link.receive(codec.encode_request(REGISTER_ID, params))
        return self

    def status(self, **changes: object) -> AgentStatus:
        """The truth at this moment, with a new sequence number."""
        self._seq += 1
        status = AgentStatus(
            seq=self._seq,
            capacity_version=self.capacity_version,
            cache_seq=self.cache_seq,
            slots_total=self.slots,
            queries_total=self.queries,
            running=tuple(self.running),
        )
        return msgspec.structs.replace(status, **changes)

    def heartbeat(self, status: AgentStatus | None = None) -> None:
        """Send a status, the present one unless another is given."""
        status = status or self.status()
        self.say(
            Heartbeat(
                status=status,
                model=self.model,
                resume_key=self.resume_key,
                kv_key=self.kv_key,
            )
        )

    def say(self, *params: Struct) -> None:
        """Send notifications, several in one frame."""
        for frame in codec.frames(codec.encode_notification(one) for one in params):
            self.link.receive(frame)

    def answer(self) -> list[int]:
        """Commit or refuse every call that came, by the slots there are; the committed ones."""
        committed = []
        while self.unanswered:
            call = self.unanswered[0]
            if len(self.running) < self.slots:
                self.commit(call)
                committed.append(call)
            else:
                self.refuse(call, RefusalCode.NO_FREE_SLOT, "no free slot")
        return committed

    def commit(self, call: int, *, prompt_tokens: int = 7) -> None:
        """Give the call a slot."""
        self.unanswered.remove(call)
        self.running.append(call)
        result = Committed(prompt_tokens=prompt_tokens, max_tokens=100)
        self.link.receive(codec.encode_result(call, result))

    def refuse(self, call: int, code: int, message: str = "no", **data: object) -> None:
        """Do not take the call."""
        self.unanswered.remove(call)
        error = ErrorObject(code=int(code), message=message, data=data or msgspec.UNSET)
        self.link.receive(codec.encode_error(call, error))

    def step(self, texts: dict[int, str]) -> None:
        """One engine step: a token for each of these calls."""
        self.tokens_sent.update(texts.keys())
        self.say(
            Tokens(
                calls=tuple(texts),
                token_ids=tuple((len(text),) for text in texts.values()),
                deltas=tuple(texts.values()),
            )
        )

    def tokens(
        self,
        call: int,
        ids: Sequence[int],
        text: str,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """One step's output for one call."""
        self.tokens_sent[call] += len(ids)
        self.say(
            Tokens(
                calls=(call,),
                token_ids=(tuple(ids),),
                deltas=(text,),
                logprobs=(logprobs,) if logprobs else (),
            )
        )

    def garble(self, call: int) -> None:
        """A token of the call in a message that cannot be read."""
        self.tokens_sent[call] += 1
        self.link.receive(
            b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[%d],"token_ids":"?"}}' % call
        )

    def finish(self, call: int, reason: FinishReason = "stop") -> None:
        """End a running call; its slot is free."""
        self.running.remove(call)
        self.capacity_version += 1
        self.say(_finished(call, reason, self.tokens_sent[call]))

    def finish_again(self, call: int) -> None:
        """Tell the end of a call a second time."""
        self.say(_finished(call, "stop", self.tokens_sent[call]))

    def fail(
        self,
        call: int,
        code: int = RefusalCode.ENGINE_FAILED,
        message: str = "died",
        **data: object,
    ) -> None:
        """End a running call badly."""
        self.running.remove(call)
        error = ErrorObject(code=int(code), message=message, data=data or msgspec.UNSET)
        self.say(Failed(call=call, error=error))

    def embed(self, call: int, **changes: object) -> None:
        """Answer a question: each text's vector is its length and its first character, each list of
        ids' its length and its first id. `changes` are made to the answer."""
        self.unanswered_questions.remove(call)
        question = self.questions[call]
        assert self.model is not None
        size = question.dimensions or self.model.embedding_dimensions
        rows = [vector_of(one, size) for one in question.inputs]
        answer = Embeddings(
            pooling="mean",
            dimensions=size,
            rows=(1,) * len(rows),
            tokens=tuple(len(one) for one in question.inputs),
            vectors=b"".join(rows),
        )
        changed = msgspec.structs.replace(answer, **changes)
        self.link.receive(codec.encode_result(call, changed))

    def answer_text(self, call: int, answer: TextAnswer | None = None) -> None:
        """Answer another question, as a toy model would or otherwise."""
        self.unanswered_texts.remove(call)
        given = answer or toy_answer(self.text_questions[call])
        self.link.receive(codec.encode_result(call, given))

    @property
    def queries_asked(self) -> list[int]:
        """Every question of either kind, in order."""
        return sorted([*self.questions, *self.text_questions])

    @property
    def unanswered_queries(self) -> list[int]:
        """Those of them that have no answer yet, in order."""
        return sorted([*self.unanswered_questions, *self.unanswered_texts])

    def answer_query(self, call: int) -> None:
        """Answer a question of either kind."""
        if call in self.questions:
            self.embed(call)
        else:
            self.answer_text(call)

    def refuse_query(self, call: int, code: int, message: str = "no", **data: object) -> None:
        """Do not answer it."""
        asked = self.unanswered_questions if call in self.questions else self.unanswered_texts
        asked.remove(call)
        error = ErrorObject(code=int(code), message=message, data=data or msgspec.UNSET)
        self.link.receive(codec.encode_error(call, error))

    def engine_dies(self) -> None:
        """End all running calls as their engine's death does."""
        for call in tuple(self.running):
            self.fail(call, signal="SIGKILL", phase="serving", step=7)

    def confirm_cancels(self) -> None:
        """Answer every cancel, also of calls that are unknown by now."""
        for call in self.cancelled:
            if call in self.unanswered:
                self.unanswered.remove(call)
            if call in self.running:
                self.running.remove(call)
                self.capacity_version += 1
            self.say(_finished(call, "cancelled", self.tokens_sent[call]))
        self.cancelled.clear()

    def answer_snapshot(self, status: AgentStatus | None = None) -> None:
        """Answer the oldest request for a snapshot with a status, the present one or another."""
        asked = self.snapshots_asked.pop(0)
        self.link.receive(codec.encode_result(asked, status or self.status()))

    def goodbye(self) -> None:
        """Leave on purpose."""
        self.say(Goodbye(reason="maintenance"))

    def raise_issue(self, issue: IssueRaised | IssueCleared) -> None:
        """Say that something is wrong, or well again."""
        self.say(issue)

    def die(self) -> None:
        """The socket closes without a word."""
        self.link.closed("the socket closed")

    # --- what the agent hears ---

    def _on_close(self, reason: str) -> None:
        self.closed_reason = reason

    def _take(self, message: bytes) -> None:
        for decoded in codec.AGENT_RECEIVES.decode(message):
            self.received.append(decoded)
            if isinstance(decoded, Request):
                self._on_call(decoded)
            elif isinstance(decoded, Notification):
                self._on_notification(decoded.params)
            elif isinstance(decoded, Response):
                self.welcome = codec.decode_result(decoded.result, Welcome)
            elif isinstance(decoded, ErrorResponse):
                self.refusal = decoded.error

    def _on_call(self, request: Request) -> None:
        if isinstance(request.params, Snapshot):
            self.snapshots_asked.append(request.id)
            return
        if isinstance(request.params, ExportSequence):
            return  # the test finds it among what was received
        if isinstance(request.params, Embed):
            assert isinstance(request.id, int)
            self.questions[request.id] = request.params
            self.unanswered_questions.append(request.id)
            return
        if isinstance(request.params, Rerank | Tokenize | Detokenize | Render):
            assert isinstance(request.id, int)
            self.text_questions[request.id] = request.params
            self.unanswered_texts.append(request.id)
            return
        assert isinstance(request.params, GenerateTokens)
        assert isinstance(request.id, int)
        assert request.id not in self.calls, "a call id was used twice"
        self.calls[request.id] = request.params
        self.unanswered.append(request.id)
        self.overbooked += len(self.running) + len(self.unanswered) > self.slots

    def _on_notification(self, params: Struct) -> None:
        match params:
            case Cancel(call=int(call)):
                self.cancelled.append(call)
            case Pause(call=int(call)):
                self.paused.append(call)
            case Continue(call=int(call)):
                self.paused.remove(call)
            case _:
                raise AssertionError(f"unexpected notification {params!r}")


def vector_of(given: EmbeddingInput, size: int) -> bytes:
    """The vector that an agent without a model gives."""
    first = ord(given[0]) if isinstance(given, str) else given[0]
    return struct.pack(f"<{size}f", *([float(len(given)), float(first)] + [0.0] * size)[:size])


def _finished(call: int, reason: FinishReason, completion_tokens: int) -> Finished:
    usage = Usage(prompt_tokens=7, completion_tokens=completion_tokens, cached_tokens=2)
    return Finished(call=call, finish_reason=reason, usage=usage)
