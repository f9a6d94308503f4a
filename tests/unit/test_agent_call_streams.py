"""Streams in every format give what was written down for them by hand, however they are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.chat.output import OutputFormat, OutputParser, joined, parser_for, tool_call_id
from agent.chat.tool_calls.table import TOOL_FORMATS
from protocol.generation import ContentDelta, ReasoningDelta, StepDelta, ToolCallDelta
from tests.support.call_streams import (
    deepseek,
    generic,
    glm,
    granite,
    harmony,
    hermes,
    kimi,
    llama,
    minimax,
    mistral,
    qwen_coder,
    reasoning,
)
from tests.support.call_streams.stream import PARAMETERS, TOOLS, Call, Stream, Thought


class Corpus(NamedTuple):
    """Streams of a model's, behind a prompt of its template's."""

    tool_calls: str
    reasoning: str
    prompt: str
    streams: list[Stream]

    def parser(self) -> OutputParser:
        """Of one generation."""
        output_format = OutputFormat(reasoning=self.reasoning, tool_calls=self.tool_calls)
        return parser_for(
            output_format,
            self.prompt,
            tools=TOOLS,
            seed=7,
            trace_id="req_1",
            parameters=PARAMETERS,
        )


HARMONY_PROMPT = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
CORPORA = [
    Corpus("hermes", "", "", hermes.STREAMS),
    Corpus("llama", "", "", llama.STREAMS),
    Corpus("mistral", "", "", mistral.STREAMS),
    Corpus("mistral-named", "", "", mistral.STREAMS),
    Corpus("granite", "", "", granite.STREAMS),
    Corpus("deepseek", "", "", deepseek.STREAMS),
    Corpus("deepseek-fenced", "", "", deepseek.STREAMS),
    Corpus("harmony", "harmony", HARMONY_PROMPT, harmony.STREAMS),
    Corpus("generic", "", "", generic.STREAMS),
    Corpus("qwen-coder", "", "", qwen_coder.STREAMS),
    Corpus("glm", "", "", glm.STREAMS),
    Corpus("minimax", "", "", minimax.STREAMS),
    Corpus("kimi", "", "", kimi.STREAMS),
    Corpus("harmony", "", HARMONY_PROMPT, harmony.UNSPLIT_STREAMS),
    Corpus("hermes", "think", "", reasoning.THINK_STREAMS),
    Corpus("hermes", "think", "<|im_start|>assistant\n<think>\n", reasoning.OPENED_STREAMS),
    Corpus("mistral-named", "mistral", "", reasoning.MISTRAL_STREAMS),
    Corpus("granite", "granite", "", reasoning.GRANITE_STREAMS),
    Corpus("granite", "granite-tags", "", reasoning.GRANITE_TAGS_STREAMS),
]
EVERY_STREAM = [(corpus, stream) for corpus in CORPORA for stream in corpus.streams]
NAMES = [f"{corpus.tool_calls}: {stream.about}" for corpus, stream in EVERY_STREAM]


def fed(parser: OutputParser, text: str, cuts: list[int]) -> StepDelta:
    """What comes out of a text that is cut at these places, its end not included."""
    whole: StepDelta = ""
    for start, end in pairwise([0, *cuts, len(text)]):
        whole = joined(whole, parser.feed(text[start:end], tokens=1))
    return whole


def parsed(corpus: Corpus, text: str, cuts: list[int]) -> StepDelta:
    """Everything that comes out of a text."""
    parser = corpus.parser()
    return joined(fed(parser, text, cuts), parser.finish())


def expected(corpus: Corpus, gives: tuple[str | Call | Thought, ...]) -> StepDelta:
    """The deltas, ids of calls included."""
    is_short = TOOL_FORMATS[corpus.tool_calls].has_short_ids
    whole: StepDelta = ""
    calls = 0
    for part in gives:
        match part:
            case Call(name, arguments):
                call_id = tool_call_id("req_1", 7, calls, short=is_short)
                head = ToolCallDelta(index=calls, id=call_id, name=name)
                whole = joined(whole, (head, ToolCallDelta(index=calls, arguments=arguments)))
                calls += 1
            case Thought(text):
                whole = joined(whole, (ReasoningDelta(text),))
            case str():
                whole = joined(whole, (ContentDelta(part),))
    if len(whole) == 1 and isinstance(whole[0], ContentDelta):
        return whole[0].text
    return whole


@pytest.mark.parametrize(("corpus", "stream"), EVERY_STREAM, ids=NAMES)
def test_a_stream_gives_what_it_should_wherever_it_is_cut(corpus: Corpus, stream: Stream) -> None:
    text = stream.text
    right = expected(corpus, stream.gives)
    assert parsed(corpus, text, []) == right
    assert parsed(corpus, text, list(range(1, len(text)))) == right
    for cut in range(1, len(text)):
        assert parsed(corpus, text, [cut]) == right, text[:cut]


@pytest.mark.parametrize(("corpus", "stream"), EVERY_STREAM, ids=NAMES)
def test_what_has_come_out_of_a_beginning_depends_on_it_alone(
    corpus: Corpus, stream: Stream
) -> None:
    by_characters = corpus.parser()
    emitted: StepDelta = ""
    for at, character in enumerate(stream.text):
        emitted = joined(emitted, by_characters.feed(character, tokens=1))
        assert emitted == corpus.parser().feed(stream.text[: at + 1], tokens=1)


@st.composite
def mangled(draw: st.DrawFn) -> tuple[Corpus, str]:
    """A corpus, and parts of its streams put together as no model should."""
    corpus = draw(st.sampled_from(CORPORA))
    parts: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        text = draw(st.sampled_from(corpus.streams)).text
        ends = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        parts.append(text[slice(*ends)] if draw(st.booleans()) else text)
    return corpus, draw(st.sampled_from(["", "\n", " "])).join(parts)


@settings(max_examples=200, deadline=None)
@given(mangled(), st.lists(st.integers(0, 2000), max_size=12))
def test_whatever_a_model_writes_comes_out_alike_however_it_is_cut(
    written: tuple[Corpus, str], places: list[int]
) -> None:
    corpus, text = written
    cuts = sorted(place % (len(text) + 1) for place in places)
    assert parsed(corpus, text, cuts) == parsed(corpus, text, [])
    in_pieces, at = corpus.parser(), cuts[-1] if cuts else len(text)
    assert fed(in_pieces, text[:at], cuts[:-1]) == corpus.parser().feed(text[:at], tokens=1)


@pytest.mark.parametrize("mark", ["<|call|>", "to=functions.", "<|end|>", "<|start|>assistant"])
def test_a_long_text_of_nothing_but_marks_comes_out_as_in_small_pieces(mark: str) -> None:
    corpus = next(corpus for corpus in CORPORA if corpus.reasoning == "harmony")
    text = mark * (50_000 // len(mark))
    assert parsed(corpus, text, []) == parsed(corpus, text, list(range(7, len(text), 7)))


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_every_format_has_thirty_streams_and_no_text_twice(name: str) -> None:
    corpus = next(corpus for corpus in CORPORA if corpus.tool_calls == name)
    assert len({stream.text for stream in corpus.streams}) == len(corpus.streams) >= 30
