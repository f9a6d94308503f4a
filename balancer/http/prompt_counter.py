"""Has an agent count a prompt's tokens, where an estimate would refuse what may fit.

An agent works for that, and who is at a limit may ask often: so one request of a tenant at a time
is counted, few in all, and not for long. Whatever is not counted is estimated.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from balancer.dispatch.inquiry import Answered
from balancer.errors import BalancerError
from balancer.fleet.queries import TextQuestion
from balancer.policy.identity.principal import Principal
from protocol.embeddings import TokenIds
from protocol.generation import GenerationRequest
from protocol.rendering import Rendered
from protocol.to_agent import Render, Tokenize

MOST_AT_ONCE = 8
PATIENCE_S = 1.0
MOST_TEXT_CHARS = 64 * 1024
"""Of a prompt without turns: its answer has an id for every token."""


class Asks(Protocol):
    """Puts a question to an agent."""

    async def ask(
        self, question: TextQuestion, principal: Principal, *, request_id: str
    ) -> Answered:
        """Raises `BalancerError`."""


class PromptCounter:
    """Of one balancer."""

    def __init__(self, asker: Asks) -> None:
        self._asker = asker
        self._asking: set[str] = set()
        """Tenants for whom a prompt is counted now."""

    async def count(
        self, request: GenerationRequest, principal: Principal, *, request_id: str
    ) -> int | None:
        """Tokens of its one prompt; None: nobody counted them."""
        question, tenant = _question(request), principal.tenant
        if question is None or tenant in self._asking or len(self._asking) >= MOST_AT_ONCE:
            return None
        self._asking.add(tenant)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answered = await self._asker.ask(question, principal, request_id=request_id)
        except (BalancerError, TimeoutError):
            return None
        finally:
            self._asking.discard(tenant)
        match answered.answer:
            case Rendered(prompt_tokens=tokens):
                return tokens
            case TokenIds(token_ids=token_ids):
                return len(token_ids)
        return None


def _question(request: GenerationRequest) -> TextQuestion | None:
    """None: what would have to be asked is no single question."""
    prompt = request.prompt
    if request.messages:
        return Render(
            model=request.model,
            messages=request.messages,
            tools=request.tools,
            enable_thinking=request.enable_thinking,
            template_arguments=request.template_arguments,
            with_prompt=False,
            with_count=True,
        )
    if request.suffix is None and isinstance(prompt, str) and len(prompt) <= MOST_TEXT_CHARS:
        return Tokenize(model=request.model, text=prompt, add_special=True)
    return None
