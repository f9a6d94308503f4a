"""Constrained generation with real models: what comes out, and llama.cpp's sampler beside it."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from llama_cpp import llama_cpp as api
from numpy.typing import NDArray

from agent.engine.frames import EngineOptions, Sampling
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.llama.sampler_chain import CANDIDATE, Candidates
from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.engine.sampling.sampler import Sampler
from agent.grammar.reasoning_block import ReasoningBlock
from protocol.grammar import Grammar
from tests.support.cluster import PROJECT
from tests.support.tiny_gguf import END, tokens, write_tiny_gguf

DEMO = PROJECT / "agent" / "demo_model" / "paddler-demo.gguf"
SLOTS = 8
MOST_TOKENS = 400
PROMPT = "<|im_start|>user\nTell me about Ada.<|im_end|>\n<|im_start|>assistant\n"

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "age": {"type": "integer", "minimum": 1, "maximum": 120},
            "role": {"enum": ["admin", "user", 3, None]},
            "tags": {
                "type": "array",
                "items": {"type": "string", "maxLength": 8},
                "minItems": 1,
                "maxItems": 3,
            },
            "home": {"$ref": "#/$defs/place"},
            "friends": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 2},
            "code": {"type": "string", "pattern": "^[A-F]{2}[0-9]{2}$"},
            "kind": {"const": {"is": "person"}},
            "score": {"anyOf": [{"type": "boolean"}, {"type": "number", "maximum": 9.5}]},
        },
        "required": ["name", "age", "role", "tags", "home", "friends", "code", "kind", "score"],
        "additionalProperties": False,
        "$defs": {
            "place": {
                "type": "object",
                "properties": {"zip": {"type": "string", "pattern": "^[0-9]{3,5}$"}},
                "required": ["zip"],
                "additionalProperties": False,
            }
        },
    },
    {
        "type": "array",
        "prefixItems": [{"type": "string", "format": "date"}, {"type": "integer"}],
        "items": {"oneOf": [{"type": "null"}, {"type": "integer", "multipleOf": 5}]},
        "minItems": 2,
        "maxItems": 6,
    },
]


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    """Kept as long as llama.cpp may call it."""
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog) -> Iterator[Model]:
    model = Model(EngineOptions(model_path=str(DEMO)), log)
    yield model
    model.close()


@pytest.fixture(scope="module")
def grammars(model: Model) -> Grammars:
    return Grammars(model.vocabulary)


@pytest.fixture(scope="module")
def context(model: Model, log: LlamaLog) -> Iterator[Context]:
    options = EngineOptions(
        model_path=str(DEMO), slots=SLOTS, context_tokens=SLOTS * 512, threads=1
    )
    context = Context(model, options, log)
    yield context
    context.close()


class Writer:
    """One answer: its sampler, its grammar, its tokens."""

    def __init__(self, model: Model, constraint: GrammarConstraint, sampling: Sampling) -> None:
        self.constraint = constraint
        self.tokens: list[int] = []
        self._vocabulary = model.vocabulary
        vocabulary = model.vocabulary
        self._sampler = Sampler(
            sampling,
            Candidates(vocabulary.size),
            vocabulary.size,
            np.array(vocabulary.end_tokens, dtype=np.int32),
            constraint,
            pieces=vocabulary.shown_pieces,
        )

    @property
    def is_over(self) -> bool:
        ends = self._vocabulary.end_tokens
        return bool(self.tokens) and (self.tokens[-1] in ends or len(self.tokens) >= MOST_TOKENS)

    @property
    def text(self) -> str:
        return b"".join(self._vocabulary.pieces[token] for token in self.tokens).decode()

    def choose(self, row: NDArray[np.float32]) -> None:
        token = self._sampler.choose(row, len(self.tokens), may_end=True)
        assert self.constraint.allows(token)
        self._sampler.accept(token)
        self.tokens.append(token)


@pytest.fixture(name="written")
def written_by(
    model: Model, context: Context
) -> Callable[[Callable[[], GrammarConstraint], list[Sampling]], list[Writer]]:
    """What the shipped model writes for the prompt under a grammar, one answer a sampling."""

    def written(
        constraint: Callable[[], GrammarConstraint], samplings: list[Sampling]
    ) -> list[Writer]:
        writers = [Writer(model, constraint(), sampling) for sampling in samplings]
        for start in range(0, len(writers), SLOTS):
            _write(model, context, writers[start : start + SLOTS])
        return writers

    return written


def _write(model: Model, context: Context, writers: list[Writer]) -> None:
    prompt = model.vocabulary.tokenize(PROMPT)
    for slot, writer in enumerate(writers):
        context.forget(slot)
        context.batch.clear()
        context.batch.add_prompt(prompt, 0, slot, output=True)
        assert context.decode() == 0
        writer.choose(context.logits()[0])
    while slots := [slot for slot, writer in enumerate(writers) if not writer.is_over]:
        last = np.array([writers[slot].tokens[-1] for slot in slots], dtype=np.int32)
        past = [len(prompt) + len(writers[slot].tokens) - 1 for slot in slots]
        context.batch.clear()
        context.batch.add_decode(
            last, np.array(past, dtype=np.int32), np.array(slots, dtype=np.int32)
        )
        assert context.decode() == 0
        for slot, row in zip(slots, context.logits(), strict=True):
            writers[slot].choose(row)


Written = Callable[[Callable[[], GrammarConstraint], list[Sampling]], list[Writer]]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_json_is_an_instance_of_its_schema_at_temperature_1(
    grammars: Grammars, written: Written, schema: dict[str, Any]
) -> None:
    grammar = Grammar(kind="json_schema", text=json.dumps(schema))
    samplings = [Sampling(seed=seed, temperature=1.0) for seed in range(24)]
    answers = written(lambda: grammars.constraint(grammar), samplings)
    for answer in answers:
        assert answer.constraint.is_complete
        jsonschema.validate(json.loads(answer.text), schema)
    assert len({answer.text for answer in answers}) > 20


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(seed=1, temperature=2.0, top_p=0.9),
        Sampling(seed=2, top_k=1, min_p=0.3),
        Sampling(seed=3, mirostat=2),
        Sampling(seed=4, xtc_probability=0.9, xtc_threshold=0.01),
        Sampling(seed=5, dry_multiplier=2.0, repeat_penalty=1.5),
    ],
)
def test_no_sampler_leaves_the_grammar(
    grammars: Grammars, written: Written, sampling: Sampling
) -> None:
    grammar = Grammar(kind="json_schema", text=json.dumps(SCHEMAS[0]))
    (answer,) = written(lambda: grammars.constraint(grammar), [sampling])
    jsonschema.validate(json.loads(answer.text), SCHEMAS[0])


def test_an_answer_may_reason_before_it_keeps_to_the_grammar(
    grammars: Grammars, written: Written
) -> None:
    grammar = Grammar(kind="regex", text="yes|no")
    block = ReasoningBlock("<think>", "</think>")
    answers = written(
        lambda: grammars.constraint(grammar, block),
        [Sampling(seed=seed) for seed in range(8)],
    )
    for answer in answers:
        if answer.constraint.is_complete:
            assert re.fullmatch(r"(?s:\s*<think>.*?</think>)?\s*(yes|no)", answer.text)
    assert any(answer.constraint.is_complete for answer in answers)


GBNF = {
    "a sum": 'root ::= e\ne ::= t ("+" t)*\nt ::= [0-9]+ | "(" e ")"',
    "no longest match": 'root ::= a b\na ::= [a-z]+\nb ::= [a-z] "!"',
    "overlapping beginnings": 'root ::= "abz" | "a" "bq" | [a-z] "c"',
    "recursion to the right": 'root ::= [a-z] root | "."',
    "optional parts": 'root ::= ("a"? "a"? "a"?) "b"+ ("b" | "")',
    "bounds": 'root ::= ("a" ("b" | "c"){1,3} | ""){0,2} "\\x41\\u00e9" [ぁ-ゟ]?',
    "lines": 'root ::= ("- " [a-zA-Z0-9 ]+ "\\n"){1,4}',
    "json": (
        'root ::= v\nv ::= o | "[" (v ("," v)*)? "]" | s | [0-9]+\n'
        'o ::= "{" (s ":" v ("," s ":" v)*)? "}"\n'
        's ::= "\\"" ([a-z ] | "\\\\" ["\\\\n])* "\\""'
    ),
}


class LlamaGrammar:
    """llama.cpp's own grammar sampler, as the reference. Never give it a token it refuses: its
    exception ends the process."""

    def __init__(self, model: Model, text: str) -> None:
        self._sampler = api.llama_sampler_init_grammar(
            api.llama_model_get_vocab(model.handle), text.encode(), b"root"
        )
        assert self._sampler
        self._size = model.vocabulary.size

    def mask(self) -> NDArray[np.bool_]:
        data = np.zeros(self._size, dtype=CANDIDATE)
        data["id"] = np.arange(self._size)
        candidates = api.llama_token_data_array()
        candidates.data = data.ctypes.data_as(api.llama_token_data_p)
        candidates.size, candidates.selected = self._size, -1
        api.llama_sampler_apply(self._sampler, ctypes.byref(candidates))
        allowed: NDArray[np.bool_] = data["logit"] == 0
        return allowed

    def accept(self, token: int) -> None:
        api.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        api.llama_sampler_free(self._sampler)


@pytest.mark.parametrize("text", GBNF.values(), ids=GBNF.keys())
def test_gbnf_means_what_llama_cpp_takes_it_to_mean(
    model: Model, grammars: Grammars, text: str
) -> None:
    ends = set(model.vocabulary.end_tokens)
    for seed in range(5):
        numbers = np.random.default_rng(seed)
        ours = grammars.constraint(Grammar(kind="gbnf", text=text))
        theirs = LlamaGrammar(model, text)
        for _ in range(40):
            allowed = ours.mask()
            assert np.flatnonzero(allowed).tolist() == np.flatnonzero(theirs.mask()).tolist()
            tokens = [token for token in np.flatnonzero(allowed).tolist() if token not in ends]
            if not tokens:
                break
            token = int(numbers.choice(tokens))
            ours.accept(token)
            theirs.accept(token)
        theirs.close()


def test_the_tiny_vocabulary_of_bytes_is_understood(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    model = Model(EngineOptions(model_path=str(path)), log)
    word = Grammars(model.vocabulary).constraint(Grammar(kind="regex", text="hé!"))
    for token in model.vocabulary.tokenize("hé!").tolist():
        word.accept(token)
    assert np.flatnonzero(word.mask()).tolist() == [tokens().index(END)]
    model.close()
