"""Queries on an agent link: each finds its handler once, with all that belongs to its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct, structs
from structlog.testing import capture_logs

from balancer.fleet.agent_link import AgentLink
from balancer.fleet.queries import Answer, AnswerHandler
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.settings import LiveSettings, Settings
from protocol import chat, codec
from protocol.agent_status import AgentStatus
from protocol.embeddings import Embeddings, InputError, Scores, Text, TokenIds
from protocol.errors import FrameTooLarge, ProtocolError
from protocol.generation import Usage
from protocol.jsonrpc import ErrorObject, Message, Notification, Request, RpcCode
from protocol.refusals import RefusalCode
from protocol.rendering import Rendered
from protocol.to_agent import QUERIES, Cancel, Detokenize, Embed, Render, Rerank, Tokenize
from protocol.to_balancer import Finished, Register, Tokens
from protocol.transfer_messages import AbortTransfer, Credit
from protocol.transfers import Outbox

VECTORS = b"\0\0\x80?" * 3
EMBEDDED = Embeddings(pooling="mean", dimensions=3, rows=(1, 0), tokens=(4, 9), vectors=VECTORS)
BIG = Embeddings(
    pooling="mean", dimensions=100_000, rows=(1, 0), tokens=(4, 9), vectors=b"\0\0\x80?" * 100_000
)
EMBEDDED_SHORT = Embeddings(
    pooling="mean", dimensions=3, rows=(1, 0), tokens=(1, 0), vectors=b"1234"
)
EMBED = Embed(inputs=("a", "b"))
RERANK = Rerank(query="q", documents=("a", "b"))
TOKENIZE = Tokenize(text="a")
RENDER = Render(messages=(chat.Message(role="user", content="hi"),), with_count=True)


class Wire:
    """An agent without a socket, and all that its link sends it."""

    def __init__(self, metrics: Metrics) -> None:
        self.received: list[Message] = []
        roster = Roster(settings=LiveSettings(Settings()), metrics=metrics, now=lambda: 100.0)
        self.link = roster.open_link(send=self._take, close=lambda _: None)

    def register(self) -> Wire:
        status = AgentStatus(seq=1, capacity_version=0, slots_total=4)
        register = Register(name="one", epoch="e", protocol_min=1, protocol_max=1, status=status)
        self.link.receive(codec.encode_request("register", register))
        self.received.clear()
        return self

    @property
    def heard(self) -> list[Struct]:
        """The notifications that the link sent."""
        return [each.params for each in self.received if isinstance(each, Notification)]

    def _take(self, message: bytes) -> None:
        [decoded] = codec.AGENT_RECEIVES.decode(message)
        assert not isinstance(decoded, ProtocolError)
        self.received.append(decoded)


class Recorder:
    """A handler that writes down what it hears; it can be told to raise."""

    def __init__(self, *, raises: bool = False) -> None:
        self.heard: list[Any] = []
        self._raises = raises

    def _hear(self, what: Any) -> None:
        self.heard.append(what)
        if self._raises:
            raise RuntimeError("a defect of the handler")

    def on_answer(self, answer: Answer) -> None:
        self._hear(answer)

    def on_refused(self, error: ErrorObject) -> None:
        self._hear(error.code)

    def on_link_lost(self) -> None:
        self._hear("lost")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def agent(metrics: Metrics) -> Wire:
    return Wire(metrics).register()


def garbage(metrics: Metrics) -> float:
    """All nonsense that was counted."""
    families = metrics.registry.collect()
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "paddler_link_garbage_total"
    )


def respond(agent: Wire, call_id: int, answer: Answer) -> None:
    agent.link.receive(codec.encode_result(call_id, answer))


def follow(answer: Embeddings) -> Embeddings:
    """The same answer with its vectors apart."""
    return Embeddings(
        pooling=answer.pooling,
        dimensions=answer.dimensions,
        rows=answer.rows,
        tokens=answer.tokens,
        vectors_follow=len(answer.vectors),
    )


def send_data(agent: Wire, call_id: int, data: bytes) -> None:
    """In pieces, as the agent does it, taking the link's credit."""
    outbox = Outbox()
    outbox.put_data(call_id, data)
    while pieces := outbox.take_binary():
        for piece in pieces:
            agent.link.receive_piece(piece)
        for credit in agent.heard:
            assert isinstance(credit, Credit)
            outbox.on_credit(credit)
        agent.received.clear()


CASES: list[tuple[Callable[[AgentLink, AnswerHandler], int], Answer]] = [
    (lambda link, handler: link.queries.embed(EMBED, handler), EMBEDDED),
    (
        lambda link, handler: link.queries.ask(Rerank(query="q", documents=("a", "b")), handler),
        Scores(scores=(0.5, None), tokens=(3, 0), errors=(InputError(1, -32002, "too long"),)),
    ),
    (
        lambda link, handler: link.queries.ask(Tokenize(text="a"), handler),
        TokenIds(token_ids=(1, 2), pieces=("a", "b")),
    ),
    (
        lambda link, handler: link.queries.ask(Detokenize(token_ids=(1,)), handler),
        Text(text="a"),
    ),
    (
        lambda link, handler: link.queries.ask(RENDER, handler),
        Rendered(prompt="<user>hi", prompt_tokens=3),
    ),
]


@pytest.mark.parametrize(("ask", "answer"), CASES)
def test_a_question_is_sent_and_its_answer_heard_once_without_a_slot(
    agent: Wire,
    metrics: Metrics,
    ask: Callable[[AgentLink, AnswerHandler], int],
    answer: Answer,
) -> None:
    handler = Recorder()
    call_id = ask(agent.link, handler)
    [request] = [m for m in agent.received if isinstance(m, Request) and m.id == call_id]
    assert request.method in QUERIES
    assert (len(agent.link.queries), agent.link.claimed_slots) == (1, 0)
    respond(agent, call_id, answer)
    assert handler.heard == [answer]
    assert (len(agent.link.queries), garbage(metrics)) == (0, 0)
    respond(agent, call_id, answer)
    assert handler.heard == [answer]
    assert garbage(metrics) == 1


@pytest.mark.parametrize("data_first", [False, True])
def test_vectors_that_come_apart_are_joined_to_their_answer(
    agent: Wire, metrics: Metrics, data_first: bool
) -> None:
    handler = Recorder()
    call_id = agent.link.queries.embed(EMBED, handler)
    if data_first:
        send_data(agent, call_id, BIG.vectors)
    else:
        respond(agent, call_id, follow(BIG))
    assert handler.heard == []
    if data_first:
        respond(agent, call_id, follow(BIG))
    else:
        send_data(agent, call_id, BIG.vectors)
    assert handler.heard == [BIG]
    assert garbage(metrics) == 0


def test_what_comes_in_pieces_is_an_answer_or_garbage(agent: Wire, metrics: Metrics) -> None:
    count = 100_000
    deltas = ("a",) * count
    outbox = Outbox()
    outbox.put(
        codec.encode_notification(
            Tokens(calls=(9,) * count, token_ids=((1,),) * count, deltas=deltas)
        )
    )
    with capture_logs() as logs:
        while pieces := outbox.take_binary():
            for piece in pieces:
                agent.link.receive_piece(piece)
            for credit in agent.heard:
                assert isinstance(credit, Credit)
                outbox.on_credit(credit)
            agent.received.clear()
    assert garbage(metrics) == 1
    assert [line["reason"] for line in logs] == ["unknown method 'tokens'"]


def test_an_answer_too_big_for_a_text_frame_may_come_in_pieces(agent: Wire) -> None:
    handler = Recorder()
    call_id = agent.link.queries.ask(Tokenize(text="a"), handler)
    answer = TokenIds(token_ids=tuple(range(100_000)))
    outbox = Outbox()
    outbox.put(codec.encode_result(call_id, answer))
    for piece in outbox.take_binary():
        agent.link.receive_piece(piece)
    assert handler.heard == [answer]


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (follow(BIG), b"short"),
        (EMBEDDED_SHORT, b""),
        (
            Embeddings(pooling="mean", dimensions=3, rows=(2, 0), tokens=(1, 0), vectors_follow=12),
            VECTORS,
        ),
        (Text(text="no vectors at all"), b""),
    ],
)
def test_vectors_that_are_not_what_the_answer_says_are_an_unusable_answer(
    agent: Wire, metrics: Metrics, answer: Answer, data: bytes
) -> None:
    handler = Recorder()
    call_id = agent.link.queries.embed(EMBED, handler)
    respond(agent, call_id, answer)
    if data:
        send_data(agent, call_id, data)
    assert handler.heard == [RpcCode.INTERNAL_ERROR]
    assert (garbage(metrics), len(agent.link.queries)) == (1, 0)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (EMBED, structs.replace(EMBEDDED, rows=(1,), tokens=(4,))),
        (EMBED, structs.replace(EMBEDDED, rows=(2, -1))),
        (EMBED, structs.replace(EMBEDDED, tokens=(4,))),
        (EMBED, structs.replace(EMBEDDED, errors=(InputError(2, -32002, "too long"),))),
        (EMBED, structs.replace(EMBEDDED, errors=(InputError(-1, -32002, "too long"),))),
        (RERANK, Scores(scores=(0.5,), tokens=(3,))),
        (RERANK, Scores(scores=(0.5, 0.5), tokens=(3,))),
        (TOKENIZE, TokenIds(token_ids=(1, 2), pieces=("a",))),
    ],
)
def test_an_answer_that_does_not_fit_its_question_is_an_unusable_one(
    agent: Wire, metrics: Metrics, question: Embed | Rerank | Tokenize, answer: Answer
) -> None:
    handler = Recorder()
    match question:
        case Embed():
            call_id = agent.link.queries.embed(question, handler)
        case Rerank() | Tokenize():
            call_id = agent.link.queries.ask(question, handler)
    respond(agent, call_id, answer)
    assert handler.heard == [RpcCode.INTERNAL_ERROR]
    assert (garbage(metrics), len(agent.link.queries)) == (1, 0)


def test_bytes_beside_an_answer_that_has_none_are_not_kept(agent: Wire, metrics: Metrics) -> None:
    handler = Recorder()
    call_id = agent.link.queries.ask(TOKENIZE, handler)
    send_data(agent, call_id, BIG.vectors)
    assert (garbage(metrics), handler.heard) == (1, [])
    respond(agent, call_id, TokenIds(token_ids=(1,)))
    assert handler.heard == [TokenIds(token_ids=(1,))]


def test_a_refusal_is_heard_as_one(agent: Wire) -> None:
    handler = Recorder()
    call_id = agent.link.queries.embed(EMBED, handler)
    error = ErrorObject(code=int(RefusalCode.UNSUPPORTED), message="cannot")
    agent.link.receive(codec.encode_error(call_id, error))
    assert handler.heard == [RefusalCode.UNSUPPORTED]


def test_a_lost_link_is_heard_once_by_everyone(agent: Wire) -> None:
    handlers = [Recorder(), Recorder(raises=True), Recorder()]
    for handler in handlers:
        agent.link.queries.embed(EMBED, handler)
    with capture_logs() as logs:
        agent.link.closed("gone")
    assert [handler.heard for handler in handlers] == [["lost"]] * 3
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "query handler failed"
    ]


@pytest.mark.parametrize("crossing", ["answer", "vectors", "error", "finished"])
def test_what_crosses_a_cancel_is_heard_by_nobody_and_is_no_garbage(
    agent: Wire, metrics: Metrics, crossing: str
) -> None:
    handler = Recorder()
    call_id = agent.link.queries.embed(EMBED, handler)
    if crossing == "vectors":
        respond(agent, call_id, follow(BIG))
    agent.link.queries.cancel(call_id)
    agent.link.queries.cancel(call_id)
    assert agent.heard == [Cancel(call=call_id)]
    agent.received.clear()
    match crossing:
        case "answer":
            respond(agent, call_id, EMBEDDED)
        case "vectors":
            send_data(agent, call_id, BIG.vectors)
            respond(agent, call_id, follow(BIG))
            send_data(agent, call_id, BIG.vectors)
        case "finished":
            respond(agent, call_id, EMBEDDED)
            no_usage = Usage(prompt_tokens=0, completion_tokens=0)
            finished = Finished(call=call_id, finish_reason="cancelled", usage=no_usage)
            agent.link.receive(codec.encode_notification(finished))
        case _:
            error = ErrorObject(code=int(RefusalCode.CANCELLED), message="cancelled")
            agent.link.receive(codec.encode_error(call_id, error))
    assert handler.heard == []
    assert (len(agent.link.queries), garbage(metrics)) == (0, 0)


def test_a_handler_that_raises_does_not_cost_the_link(agent: Wire) -> None:
    call_id = agent.link.queries.embed(EMBED, Recorder(raises=True))
    other = Recorder()
    other_id = agent.link.queries.embed(EMBED, other)
    with capture_logs():
        respond(agent, call_id, EMBEDDED)
    respond(agent, other_id, EMBEDDED)
    assert other.heard == [EMBEDDED]
    assert not agent.link.is_closed


def test_data_for_nobody_and_pieces_of_nothing_are_garbage(agent: Wire, metrics: Metrics) -> None:
    send_data(agent, 4711, b"vectors")
    agent.link.receive_piece(b"x")
    assert garbage(metrics) == 2
    agent.link.closed("gone")
    agent.link.receive_piece(b"x")
    assert garbage(metrics) == 2


def test_a_stranger_s_pieces_are_not_collected(metrics: Metrics) -> None:
    stranger = Wire(metrics)
    outbox = Outbox()
    outbox.put_data(1, bytes(300_000))
    for piece in outbox.take_binary():
        stranger.link.receive_piece(piece)
    assert garbage(metrics) == 3
    assert stranger.received == []


def test_a_transfer_that_cannot_be_is_aborted(agent: Wire, metrics: Metrics) -> None:
    outbox = Outbox()
    outbox.put_data(1, bytes(300_000))
    first, _, third = outbox.take_binary()
    agent.link.receive_piece(first)
    agent.link.receive_piece(third)
    assert AbortTransfer(transfer=1) in agent.heard
    assert garbage(metrics) == 1


def test_a_question_that_is_too_big_is_not_asked(
    agent: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_big(message: bytes) -> None:
        raise FrameTooLarge(f"{len(message)} bytes")

    monkeypatch.setattr(agent.link.queries._queries, "_send", too_big)
    with pytest.raises(FrameTooLarge):
        agent.link.queries.embed(EMBED, Recorder())
    assert len(agent.link.queries) == 0
