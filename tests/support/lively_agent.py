"""Agents of a lively cluster: scripted, at a pace of their own, on hosts that never were."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from pathlib import Path

from msgspec import Struct, structs
from websockets.exceptions import ConnectionClosed

from balancer.fleet.queries import TextAnswer, TextQuestion
from protocol.agent_status import AgentStatus, GpuUse, Hardware, HostUse, Issue
from protocol.codec import encode_notification
from protocol.descriptions import ModelDescription
from protocol.generation import FinishReason, ReasoningDelta, StepDelta, Timings
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.models import ServedModel
from protocol.rendering import Rendered
from protocol.to_agent import DescribeModel, GenerateTokens, Render
from protocol.to_balancer import Failed, Register, Tokens
from tests.support.cluster import PROJECT
from tests.support.fake_agent import Call, FakeAgent
from tests.support.toy_answers import text_of

GIB = 1 << 30
TEMPLATE = PROJECT / "agent" / "demo_model" / "chat_template.jinja"
ANSWERS = Path(__file__).parent / "lively_answers"
"""A file for each: `<model>.md`, what stands above its first rule is reasoning."""
QUESTION = "How do I merge overlapping intervals in Python, and how fast is it?"
QUESTION_TOKEN_S = 0.002
_WORDS = ("the", "queue", "moves")
_CONTEXT_CELLS_A_SLOT = 4096
_TOKENS_A_STEP = 3
FAILING_TOKENS = 7
"""A request for so many meets an error of the engine's."""
_MOST_TOKENS = 200


class Host(Struct, frozen=True, kw_only=True):
    """A machine: its GPUs by name with the bytes each has, and how busy it is, 0 to 1."""

    hostname: str
    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[tuple[str, int], ...] = ()
    load: float = 0.5
    issues: tuple[Issue, ...] = ()


class Pace(Struct, frozen=True, kw_only=True):
    """How long a prompt takes at least and at most, and how long a token."""

    prefill_s: tuple[float, float] = (0.06, 0.3)
    token_s: float = 0.05


class LivelyAgent(FakeAgent):
    """Looks and works like one with an engine. The dice make each its own, and the same again."""

    def __init__(
        self, port: int, *, name: str, slots: int, model: ServedModel, host: Host, pace: Pace
    ) -> None:
        super().__init__(port, name=name, slots=slots, model=model)
        self._served = model
        self._host = host
        self._pace = pace
        self._dice = random.Random(name)

    def introduction(self) -> Register:
        """With its hardware and versions."""
        host = self._host
        return structs.replace(
            super().introduction(),
            version="0.1.0",
            llama_cpp_version="0.3.36",
            hardware=Hardware(
                hostname=host.hostname,
                cpu=host.cpu,
                cores=host.cores,
                memory_bytes=host.memory_bytes,
            ),
        )

    def status(self) -> AgentStatus:
        """As busy as it is, give or take."""
        status = super().status()
        total = self.slots * _CONTEXT_CELLS_A_SLOT
        used = sum(self.prompt_tokens(call.request)[0] + call.sent for call in self.calls.values())
        return structs.replace(
            status,
            kv_cells_total=total,
            kv_cells_used=min(total, used + round(0.18 * total)),
            host=self._use(),
            issues=self._issues(),
        )

    def prompt_tokens(self, request: GenerateTokens) -> tuple[int, int]:
        """By its text; some two thirds of a prompt were there before."""
        tokens = 180 + sum(map(ord, request.trace_id)) % 1700
        return tokens, round(tokens * (0.5 + tokens % 30 / 100))

    def answer(self, question: TextQuestion) -> TextAnswer:
        """A template like that of many models, and what it makes."""
        match question:
            case DescribeModel():
                template = TEMPLATE.read_text("utf-8")
                return ModelDescription(
                    chat_template=template,
                    template_chars=len(template),
                    eos_token="<|im_end|>",
                    reasoning_format="think",
                    tool_format="hermes",
                )
            case Render(messages=messages, with_prompt=True) if messages:
                turns = [f"<|im_start|>{one.role}\n{text_of(one)}<|im_end|>\n" for one in messages]
                return Rendered(prompt="".join((*turns, "<|im_start|>assistant\n")))
        return super().answer(question)

    def timings(self, call: Call) -> Timings:
        """As a GPU takes, whatever the script did."""
        return Timings(prefill_ms=84.0, decode_ms=call.sent * self._dice.uniform(11, 13))

    async def play(self, call: Call) -> None:
        """At its pace."""
        pieces, reason, token_s = self._part(call.request)
        with contextlib.suppress(ConnectionClosed):
            await asyncio.sleep(self._dice.uniform(*self._pace.prefill_s))
            if call.request.max_tokens == FAILING_TOKENS:
                await self._fail(call)
                return
            for piece in pieces[call.sent // _TOKENS_A_STEP :]:
                await call.may_go_on.wait()
                if call.is_cancelled.is_set():
                    break
                await self._step_of(call, piece)
                await asyncio.sleep(token_s * _TOKENS_A_STEP)
            await self.finish(call, "cancelled" if call.is_cancelled.is_set() else reason)

    async def _step_of(self, call: Call, delta: StepDelta) -> None:
        """Several tokens at once, as drafting makes them: a third of the messages."""
        token_ids = tuple(range(call.sent, call.sent + _TOKENS_A_STEP))
        step = Tokens(calls=(call.id,), token_ids=(token_ids,), deltas=(delta,))
        await self.send_raw(encode_notification(step).decode())
        call.sent += _TOKENS_A_STEP

    async def _fail(self, call: Call) -> None:
        del self.calls[call.id]
        error = ErrorObject(code=RpcCode.INTERNAL_ERROR, message="llama_decode returned -3")
        failed = Failed(call=call.id, error=error)
        await self.send_raw(encode_notification(failed).decode())

    def _part(self, request: GenerateTokens) -> tuple[tuple[StepDelta, ...], FinishReason, float]:
        """What it says, how it ends, and the seconds that a token takes."""
        if request.messages and text_of(request.messages[-1]) == QUESTION:
            return _written(self._served.name), "stop", QUESTION_TOKEN_S
        most = (request.max_tokens or _MOST_TOKENS) // _TOKENS_A_STEP
        words = tuple(" ".join(_WORDS[:_TOKENS_A_STEP]) + " " for _ in range(most))
        if most % 5 == 0:
            return words, "length", self._pace.token_s
        return words[:-1], "stop", self._pace.token_s

    def _issues(self) -> tuple[Issue, ...]:
        """One that stays, and one that comes and goes."""
        lasting, coming = self._host.issues[:1], self._host.issues[1:]
        return (*lasting, *(coming if time.monotonic() % 6 < 3 else ()))

    def _use(self) -> HostUse:
        host, dice = self._host, self._dice
        busy = min(1.0, host.load * dice.uniform(0.94, 1.06))
        return HostUse(
            cpu_percent=round(100 * (busy * 0.35 if host.gpus else busy), 1),
            memory_used_bytes=round(host.memory_bytes * (0.3 + 0.25 * host.load)),
            gpus=tuple(
                GpuUse(
                    name=name,
                    busy_percent=round(100 * busy, 1),
                    memory_used_bytes=round(size * (0.55 + 0.3 * host.load)),
                    memory_total_bytes=size,
                    temperature_c=round(42 + 30 * busy),
                    power_w=round(80 + 260 * busy),
                )
                for name, size in host.gpus
            ),
        )


def _written(model: str) -> tuple[StepDelta, ...]:
    """The answer of a file, a word a step."""
    reasoning, _, text = (ANSWERS / f"{model}.md").read_text("utf-8").partition("\n---\n\n")
    thought: tuple[StepDelta, ...] = ((ReasoningDelta(reasoning),),)
    words = re.findall(r"\S+\s*", text.rstrip())
    steps = range(0, len(words), _TOKENS_A_STEP)
    return (*thought, *("".join(words[at : at + _TOKENS_A_STEP]) for at in steps))
