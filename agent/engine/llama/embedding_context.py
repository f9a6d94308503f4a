"""A second context of the same model, that gives vectors instead of next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_cpp import llama_cpp as api

from agent.engine.frames import EngineOptions
from agent.engine.llama.arrays import FLOAT, Floats, Ints, view
from agent.engine.llama.batch import Batch
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.engine.loading.cpu import sensible_threads
from agent.errors import ModelUnusable
from protocol.embeddings import Pooling

SPLIT_BATCH_TOKENS = 256
"""A model with an output layer computes a row of logits for each token here, wanted or not: 256 of
131 072 tokens are 134 MB, and a bigger batch is hardly faster."""
WHOLE_BATCH_TOKENS = 2048
"""What must be decoded whole bounds an input: attention's scores grow with its square."""
MOST_INPUT_TOKENS = 8192
MAX_SEQUENCES = 64
FEW_SEQUENCES = 8
"""Of models that keep a state for each sequence, whether it is used or not."""

_POOLINGS: dict[str, Pooling] = {"0": "none", "1": "mean", "2": "cls", "3": "last", "4": "rank"}


def own_pooling(model: Model) -> Pooling | None:
    """The pooling that the model was trained for, by its metadata; None: they do not say."""
    architecture = model.metadata("general.architecture")
    return _POOLINGS.get(model.metadata(f"{architecture}.pooling_type"))


def longest_input(model: Model) -> int:
    """Tokens that an input may have at most; where inputs must be whole, a micro-batch may allow
    less."""
    return min(MOST_INPUT_TOKENS, model.trained_context_tokens)


def vector_size(model: Model) -> int:
    """Floats of one vector."""
    return int(api.llama_model_n_embd_out(model.handle))


def score_count(model: Model) -> int:
    """Scores that a classification head gives an input; 1 where there is no head."""
    return int(api.llama_model_n_cls_out(model.handle))


def rerank_template(model: Model) -> str:
    """The model's own prompt for reranking, "" if it has none."""
    template: bytes | None = api.llama_model_chat_template(model.handle, b"rerank")
    return (template or b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of one input, from position `start` on, in a sequence of its own."""

    tokens: Ints
    start: int
    sequence: int


class EmbeddingContext:
    """Decodes pieces of several inputs at once, at most `batch_tokens` and `sequences` of them.

    `scores` makes a context with the model's classification head (pooling `rank`), otherwise it
    gives a vector a token, and pooling is done by who asked: one context serves all poolings.
    An input may be fed in pieces over several decodes if `splits`; a model that looks ahead, or has
    no KV cache, needs it whole. The cache is shared (`cells` in all): `forget` what is done.
    Raises `ModelUnusable` if llama.cpp cannot make it.
    """

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        log: LlamaLog,
        *,
        scores: bool,
        input_tokens: int = MOST_INPUT_TOKENS,
    ) -> None:
        wanted = min(input_tokens, longest_input(model))
        most_sequences = FEW_SEQUENCES if _keeps_states(model) else MAX_SEQUENCES
        self._scores = scores

        def new(batch: int) -> Any:
            params = _parameters(options, scores=scores)
            tokens = min(options.micro_batch_tokens or batch, wanted)
            params.n_ctx, params.n_batch, params.n_ubatch = wanted, tokens, tokens
            # llama.cpp aborts if a batch cannot hold a token of each sequence
            params.n_seq_max = self.sequences = min(most_sequences, tokens)
            return api.llama_init_from_model(model.handle, params)

        self._handle = new(SPLIT_BATCH_TOKENS)
        self.splits = bool(self._handle) and _splits(self._handle)
        if self._handle and not self.splits:
            api.llama_free(self._handle)
            self._handle = new(WHOLE_BATCH_TOKENS)
        if not self._handle:
            raise ModelUnusable(
                f"llama.cpp cannot make a context of {wanted} tokens for embeddings: "
                f"{log.last_error or 'no reason given'}. Is there memory left?"
            )
        self._memory = api.llama_get_memory(self._handle)
        self.batch_tokens = int(api.llama_n_ubatch(self._handle))
        self.cells = int(api.llama_n_ctx(self._handle))
        self.input_tokens = wanted if self.splits else min(wanted, self.batch_tokens)
        """Most tokens of one input."""
        self.width = score_count(model) if scores else vector_size(model)
        self._batch = Batch(self.batch_tokens)

    def decode(self, pieces: Sequence[Piece]) -> list[Floats] | None:
        """Decode pieces of different sequences; None: llama.cpp failed, `forget` the sequences.

        The rows of each piece's tokens [tokens, width]; of a context for scores one row each
        [1, width], which counts for a sequence's last piece. Valid until the next decode.
        """
        batch = self._batch
        batch.clear()
        for piece in pieces:
            end = piece.start + len(piece.tokens)
            if not 0 <= piece.sequence < self.sequences or end > self.input_tokens:
                raise ValueError(f"sequence {piece.sequence} up to {end}")
            batch.add_with_outputs(piece.tokens, piece.start, piece.sequence)
        if api.llama_decode(self._handle, batch.ready()) != 0:
            return None
        return self._read_scores(pieces) if self._scores else self._read_rows(pieces)

    def forget(self, sequence: int) -> None:
        """Drop a sequence."""
        if not 0 <= sequence < self.sequences:
            raise ValueError(f"sequence {sequence}")
        if self._memory:
            api.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        """Free the context."""
        api.llama_free(self._handle)

    def _read_rows(self, pieces: Sequence[Piece]) -> list[Floats] | None:
        pointer = api.llama_get_embeddings(self._handle)
        if not pointer:
            return None
        rows = view(pointer, self.batch_tokens * self.width, FLOAT).reshape(-1, self.width)
        found: list[Floats] = []
        start = 0
        for piece in pieces:
            found.append(rows[start : start + len(piece.tokens)])
            start += len(piece.tokens)
        return found

    def _read_scores(self, pieces: Sequence[Piece]) -> list[Floats] | None:
        pointers = [api.llama_get_embeddings_seq(self._handle, piece.sequence) for piece in pieces]
        if not all(pointers):
            return None
        return [view(pointer, self.width, FLOAT).reshape(1, -1) for pointer in pointers]


def _keeps_states(model: Model) -> bool:
    return bool(
        api.llama_model_is_recurrent(model.handle) or api.llama_model_is_hybrid(model.handle)
    )


def _splits(context: Any) -> bool:
    return bool(api.llama_get_memory(context)) and bool(api.llama_get_causal_attn(context))


def _parameters(options: EngineOptions, *, scores: bool) -> Any:
    params = api.llama_context_default_params()
    params.n_threads = params.n_threads_batch = options.threads or sensible_threads()
    params.embeddings = True
    params.pooling_type = api.LLAMA_POOLING_TYPE_RANK if scores else api.LLAMA_POOLING_TYPE_NONE
    # one stream: the batch is decoded in one piece, which inputs that must be whole rely on
    params.kv_unified = True
    # never quantised: it is small and lives briefly, and vectors feel what a text does not show
    exact = options.cache_type == "f32"
    params.type_k = params.type_v = api.GGML_TYPE_F32 if exact else api.GGML_TYPE_F16
    if options.flash_attention == "off":
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_perf = True
    return params
