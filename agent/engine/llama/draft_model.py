"""A small model of the same vocabulary that guesses for a big one, in a context of its own.

It runs on the engine's thread, between the big model's decodes. A call's `ModelDrafter` holds what
is known of its text; `DraftModel` decodes for several calls at once. Multi-token prediction (MTP,
nextn layers) is not used: it needs llama.cpp's hidden states by functions of `src/llama-ext.h`,
which upstream calls staging and llama-cpp-python binds as not to be depended on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from agent.engine.frames import EngineOptions
from agent.engine.llama.arrays import Floats, Ints
from agent.engine.llama.context import NO_ROOM, Context
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.stderr_lines import say
from agent.errors import ModelRejected, ModelUnusable

MOST_PADDING = 1024
"""Tokens at the end of the larger vocabulary: models of one family are padded differently."""
CATCH_UP_TOKENS = 256
"""Known tokens that one `prepare` takes up at most: others wait while a prompt is read."""
LEAST_CONFIDENCE = 0.3
"""A draft ends before a token that the small model itself gives a smaller probability."""

_NONE: Ints = np.zeros(0, dtype=np.int32)


@dataclass(slots=True)
class _Text:
    """A slot's text and how much of it the small model's cache holds: the first `cached`."""

    tokens: list[int]
    scope: str
    cached: int = 0
    ahead: list[int] = field(default_factory=list)
    """Drafted tokens that the cache holds behind them. Empty unless `cached` is all of `tokens`."""

    def unread(self) -> int:
        """How many tokens are to be decoded before the next guess, at least the last one."""
        self.ahead.clear()
        self.cached = min(self.cached, len(self.tokens) - 1)
        return len(self.tokens) - self.cached


class DraftModel:
    """The small model, its context and the texts of all slots.

    Raises `ModelRejected` if its vocabulary is not the big model's, or its memory cannot be cut,
    and what `Model` and `Context` raise.
    """

    def __init__(
        self, path: str, *, main: Model, context: Context, options: EngineOptions, log: LlamaLog
    ) -> None:
        own = msgspec.structs.replace(
            options,
            model_path=path,
            context_tokens=context.kv_cells,
            adapters=(),
            mmproj_path="",
        )
        self._model = Model(own, log)
        try:
            check_vocabulary(path, self._model.vocabulary, main.vocabulary)
            self._context = Context(self._model, own, log)
        except ModelUnusable:
            self._model.close()
            raise
        if self._context.memory.kind != "ranged":
            self.close()
            raise ModelRejected(
                f"The draft model {path} keeps one state for all of a text and cannot take a wrong "
                "guess back. Use one with plain attention."
            )
        self._shared_tokens = min(self._model.vocabulary.size, main.vocabulary.size)
        self._ends = frozenset(main.vocabulary.end_tokens)
        self._longest = min(self._context.context_tokens, self._model.trained_context_tokens)
        self._texts: dict[int, _Text] = {}
        self._prepared: dict[int, list[int]] = {}

    def drafter(self, slot: int, known: Ints, *, scope: str = "") -> ModelDrafter:
        """Begin a call in a slot: `known` are its prompt's tokens, all of them text.

        What the cache still holds of the slot's last call is used if it begins alike, and has the
        same `scope`.
        """
        if not 0 <= slot < self._context.memory.sequences:
            raise ValueError(f"slot {slot} of {self._context.memory.sequences}")
        text = _Text(known.tolist(), scope)
        last = self._texts.get(slot)
        if last is not None and last.scope == scope:
            text.cached = _alike(text.tokens[:-1], last.tokens[: last.cached])
        self._texts[slot] = text
        self._prepared.pop(slot, None)
        return ModelDrafter(self, slot)

    def prepare(self, wanted: Mapping[int, int]) -> None:
        """Draft up to so many tokens for each slot, all slots in one batch a token.

        The drafters give them out. A slot whose text is not read yet goes on reading: it gets none.
        """
        self._prepared |= {slot: [] for slot in wanted}
        going = {slot: most for slot, most in sorted(wanted.items()) if self._has_room(slot, most)}
        rows = self._read(list(going)) if going else {}
        drafts: dict[int, list[int]] = {slot: [] for slot in rows}
        while rows:
            for slot, row in rows.items():
                token = self._sure_of(row)
                if token is not None:
                    drafts[slot].append(token)
            further = [
                slot
                for slot in rows
                if self._may_go_on(drafts[slot], going[slot], len(self._texts[slot].ahead))
            ]
            rows = self._step({slot: drafts[slot][-1] for slot in further}) if further else {}
        self._prepared.update(drafts)

    def take_prepared(self, slot: int) -> list[int] | None:
        """What was drafted for a slot since its text last grew; None: nothing was asked."""
        return self._prepared.pop(slot, None)

    def cached(self, slot: int) -> int:
        """How many tokens of a slot's text the cache holds, guesses aside."""
        return self._texts[slot].cached

    def accept(self, slot: int, tokens: Sequence[int]) -> None:
        """A slot's text grew. Drafted tokens that are among them are in the cache already."""
        text = self._texts[slot]
        right = _alike(text.ahead, tokens)
        text.cached += right
        text.tokens.extend(tokens)
        text.ahead.clear()
        self._prepared.pop(slot, None)

    def close(self) -> None:
        """Free context and weights."""
        self._context.close()
        self._model.close()

    def _has_room(self, slot: int, most: int) -> bool:
        return most > 0 and 0 < len(self._texts[slot].tokens) <= self._longest - most

    def _may_go_on(self, draft: list[int], most: int, ahead: int) -> bool:
        """Whether there was one more sure token, which ends nothing, and room for another."""
        return ahead < len(draft) < most and draft[-1] not in self._ends

    def _sure_of(self, row: Floats) -> int | None:
        row = row[: self._shared_tokens]
        best = int(row.argmax())
        if float(np.exp(row - row[best]).sum()) * LEAST_CONFIDENCE > 1.0:
            return None
        return best

    def _read(self, slots: list[int]) -> dict[int, Floats]:
        """Bring the cache up to the texts; logits after those that it now holds as a whole."""
        room = min(CATCH_UP_TOKENS + len(slots), self._context.batch_tokens)
        left = {slot: self._texts[slot].unread() for slot in slots}
        counts: dict[int, int] = {}
        for slot in sorted(slots, key=left.__getitem__):
            counts[slot] = min(left[slot], room)
            room -= counts[slot]
        batch = self._context.batch
        batch.clear()
        done: list[int] = []
        fed = [slot for slot in slots if counts[slot]]
        for slot in fed:
            text, start = self._texts[slot], self._texts[slot].cached
            # whatever is behind was drafted, or another call's
            self._context.forget(slot, start)
            new = np.array(text.tokens[start : start + counts[slot]], dtype=np.int32)
            whole = counts[slot] == left[slot]
            batch.add_prompt(new, start, slot, output=whole)
            if whole:
                done.append(slot)
        if not self._decoded(fed):
            return {}
        for slot in fed:
            self._texts[slot].cached += counts[slot]
        return self._rows(done)

    def _step(self, tokens: dict[int, int]) -> dict[int, Floats]:
        """Decode a drafted token for each slot; the logits behind them."""
        slots = list(tokens)
        positions = [self._texts[slot].cached + len(self._texts[slot].ahead) for slot in slots]
        self._context.batch.clear()
        self._context.batch.add_decode(_ints(tokens.values()), _ints(positions), _ints(slots))
        if not self._decoded(slots):
            return {}
        for slot, token in tokens.items():
            self._texts[slot].ahead.append(token)
        return self._rows(slots)

    def _decoded(self, slots: Sequence[int]) -> bool:
        code = self._context.decode()
        if code == NO_ROOM and self._drop_others(slots):
            code = self._context.decode()
        if code == 0:
            return True
        say(f"the draft model's llama_decode returned {code} for slots {slots}")
        for slot in slots:
            self._forget(slot)
        return False

    def _drop_others(self, slots: Sequence[int]) -> bool:
        """Make room in a unified cache, which keeps the texts of idle sequences; False: it has
        nothing but these."""
        others = [slot for slot, text in self._texts.items() if text.cached and slot not in slots]
        for slot in others:
            self._forget(slot)
        for slot in slots:  # a batch that failed may be there in part
            self._context.forget(slot, self._texts[slot].cached + len(self._texts[slot].ahead))
        return bool(others)

    def _forget(self, slot: int) -> None:
        self._context.forget(slot)
        self._texts[slot].cached = 0
        self._texts[slot].ahead.clear()

    def _rows(self, slots: Sequence[int]) -> dict[int, Floats]:
        return dict(zip(slots, self._context.logits(), strict=True)) if slots else {}


class ModelDrafter:
    """The `Drafter` of one call. Without `DraftModel.prepare` it drafts for its slot alone."""

    def __init__(self, model: DraftModel, slot: int) -> None:
        self._model = model
        self._slot = slot

    def draft(self, most: int) -> Ints:
        """At most `most` tokens; none while the text is still being read."""
        tokens = self._model.take_prepared(self._slot)
        if tokens is None:
            self._model.prepare({self._slot: most})
            tokens = self._model.take_prepared(self._slot)
        return _ints(tokens[:most]) if tokens else _NONE

    def accept(self, tokens: Sequence[int]) -> None:
        """Take the tokens that really came."""
        self._model.accept(self._slot, tokens)


def check_vocabulary(path: str, small: Vocabulary, main: Vocabulary) -> None:
    """Raise `ModelRejected` unless the same ids mean the same text, and end in the same places."""
    shared = min(small.size, main.size)
    padding = max(small.size, main.size) - shared
    if small.shown_pieces[:shared] != main.shown_pieces[:shared] or padding > MOST_PADDING:
        raise ModelRejected(
            f"The draft model {path} has another vocabulary ({small.size} tokens) than the model "
            f"it should draft for ({main.size} tokens). Use a smaller model of the same family."
        )
    if small.end_tokens != main.end_tokens:
        raise ModelRejected(
            f"The draft model {path} ends texts with the tokens {small.end_tokens}, the model it "
            f"should draft for with {main.end_tokens}. Use a model of the same family and kind."
        )


def _alike(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    count = min(len(some), len(others))
    differs = np.not_equal(_ints(some[:count]), _ints(others[:count]))
    return int(differs.argmax()) if differs.any() else count


def _ints(tokens: Iterable[int]) -> Ints:
    return np.fromiter(tokens, dtype=np.int32)
