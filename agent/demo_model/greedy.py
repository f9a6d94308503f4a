"""The demo model through llama.cpp's low-level API: one sequence, greedy or sampled.

F32 cache and no flash attention: what the exactness tests of the project run with.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import llama_cpp
import numpy as np

from agent.demo_model.example import JsonObject
from agent.demo_model.tokenizer import LlamaTokenizer

_F32 = 0
_BATCH = 2048
Row = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was generated; `margin` is the smallest top-2 logit lead, the end token's included."""

    text: str
    tokens: int
    margin: float
    ended: bool


def chat_template(source: str) -> jinja2.Template:
    """The template in the environment that agents render it in."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


class GreedyModel:
    """A loaded GGUF with one context of its trained length."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.tokenizer = LlamaTokenizer(path)
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise ValueError(f"llama.cpp cannot read {path}")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = llama_cpp.llama_model_n_ctx_train(self._model)
        context.n_batch, context.n_ubatch = _BATCH, 512
        context.n_threads = context.n_threads_batch = threads
        context.type_k = context.type_v = _F32
        context.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context: Any = llama_cpp.llama_init_from_model(self._model, context)
        self._batch: Any = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self.parameters: int = llama_cpp.llama_model_n_params(self._model)
        source: bytes = llama_cpp.llama_model_chat_template(self._model, None)
        self._template = chat_template(source.decode())
        self._answers: dict[tuple[int, ...], Answer] = {}

    def prompt(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] = (),
        *,
        thinking: bool = False,
    ) -> list[int]:
        """Token ids of a rendered conversation, ready for the answer."""
        text = self._template.render(
            messages=list(messages),
            tools=list(tools) or None,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        return self.tokenizer.encode(text)

    def _decode(self, tokens: Sequence[int], start: int) -> Row:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = start + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index == len(tokens) - 1
        if llama_cpp.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        row = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(row, shape=(self.tokenizer.size,)).copy()

    def _rows(self, prompt: Sequence[int]) -> Row:
        memory = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_clear(memory, False)
        return self._decode(prompt, 0)

    def answer(self, prompt: Sequence[int], longest: int = 600) -> Answer:
        """Greedy continuation up to the end token; asked again, the same answer is returned."""
        key = tuple(prompt)
        if key not in self._answers:
            self._answers[key] = self._greedy(prompt, longest)
        return self._answers[key]

    def _greedy(self, prompt: Sequence[int], longest: int) -> Answer:
        row, position, ids, margin = self._rows(prompt), len(prompt), [], np.inf
        while True:
            second, best = np.partition(row, -2)[-2:]
            margin = min(margin, float(best - second))
            token = int(row.argmax())
            ids.append(token)
            ended = token == self.tokenizer.end_id
            if ended or len(ids) >= longest:
                text = self.tokenizer.decode(ids[:-1] if ended else ids)
                return Answer(text=text, tokens=len(ids), margin=margin, ended=ended)
            row = self._decode([token], position)
            position += 1

    def sampled(self, prompt: Sequence[int], seed: int, longest: int = 600) -> str:
        """A continuation at temperature 1."""
        rng, ids = Random(seed), list[int]()
        row, position = self._rows(prompt), len(prompt)
        while len(ids) < longest:
            weights = np.exp(row - row.max(), dtype=np.float64)
            token = rng.choices(range(len(row)), weights.tolist())[0]
            if token == self.tokenizer.end_id:
                break
            ids.append(token)
            row = self._decode([token], position)
            position += 1
        return self.tokenizer.decode(ids)
