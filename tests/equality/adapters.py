"""LoRA adapters: by their name over HTTP, by half over the agent link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from protocol.chat import Message
from protocol.generation import GenerationRequest, TokenLogprob
from protocol.to_balancer import Tokens
from tests.equality.rows import Row
from tests.equality.sites import MODEL, Site, our_agent, ours, theirs
from tests.equality.texts import LENGTH, TOP, Said, greedy, row, said
from tests.equality.vectors import UNICODE
from tests.support.fake_balancer import FakeBalancer
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_lora_gguf import write_tiny_lora

QUESTIONS = {
    "short": ["hello world"],
    "long": ["abcdefghij klmnopqrst " * 12],
    "unicode": [UNICODE],
    "8 at once": [f"{'tell me more of it, ' * (number % 4)}{number}" for number in range(8)],
}
SPLIT = ("--micro-batch", "64")


def compare(folder: Path) -> Iterator[Row]:
    """The model alone, with its adapter, and with half of it."""
    model = write_tiny_gguf(folder / "tiny.gguf")
    lora = write_tiny_lora(folder / "poet.gguf")
    flags = ("--lora", f"poet={lora}", "--slots", "8", *SPLIT)
    with theirs(model, folder, "--lora", str(lora), "-c", "512") as their_site:
        with ours(model, folder, *flags) as our_site:
            for feature, name, scale in (
                ("LoRA, the model alone", MODEL, 0.0),
                ("LoRA, its adapter", f"{MODEL}:poet", 1.0),
            ):
                for given, questions in QUESTIONS.items():
                    first, again = (_at_once(our_site, name, questions) for _ in range(2))
                    their = [_theirs(their_site, question, scale) for question in questions]
                    yield row(feature, given, first, again, their)
        for given, (first, again) in asyncio.run(_halves(model, folder, flags)).items():
            their = [_theirs(their_site, question, 0.5) for question in QUESTIONS[given]]
            yield row("LoRA, half of it, on the link", given, first, again, their)


def _body(question: str, **fields: Any) -> dict[str, Any]:
    return greedy(messages=[{"role": "user", "content": question}], **fields)


def _at_once(site: Site, model: str, questions: Sequence[str]) -> list[Said]:
    bodies = [_body(question, model=model) for question in questions]
    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(lambda body: said(site.ask("/v1/chat/completions", body)), bodies))


def _theirs(site: Site, question: str, scale: float) -> Said:
    lora = [{"id": 0, "scale": scale}]
    return said(site.ask("/v1/chat/completions", _body(question, lora=lora)))


async def _halves(
    model: Path, folder: Path, flags: Sequence[str]
) -> dict[str, tuple[list[Said], list[Said]]]:
    async with our_agent(model, folder, *flags) as agent:
        found = {}
        for given, questions in QUESTIONS.items():
            first, again = [
                await asyncio.gather(*(_half(agent, question) for question in questions))
                for _ in range(2)
            ]
            found[given] = (first, again)
        return found


async def _half(agent: FakeBalancer, question: str) -> Said:
    request = GenerationRequest(
        model=MODEL,
        messages=(Message(role="user", content=question),),
        temperature=0.0,
        max_tokens=LENGTH,
        ignore_eos=True,
        top_logprobs=TOP,
        adapters=(("poet", 0.5),),
    )
    call = await agent.call(request)
    await agent.finished(call)
    steps = (
        logprobs
        for tokens in agent.notifications(Tokens)
        for whose, logprobs in zip(tokens.calls, tokens.logprobs, strict=True)
        if whose == call
    )
    chosen: list[TokenLogprob] = [token for step in steps for token in step]
    return Said(
        [token.piece.encode("latin-1") for token in chosen],
        [{top.piece.encode("latin-1"): top.logprob for top in token.top} for token in chosen],
    )
