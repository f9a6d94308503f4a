"""Generations that run on an agent, and what the next one makes of them."""

from __future__ import annotations

from tests.support.generations import Balancer, Generation
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import settle


async def begun(balancer: Balancer, agent: MemoryAgent, text: str = "ab") -> Generation:
    """A generation that runs on the agent and has a token for each character."""
    one = await balancer.ask()
    (call,) = agent.answer()
    for character in text:
        agent.tokens(call, [ord(character)], character)
    return one


async def ended(agent: MemoryAgent, text: str = "cd") -> None:
    """Have the agent commit what it was asked for, say this much of it, and finish."""
    (call,) = agent.answer()
    for character in text:
        agent.tokens(call, [ord(character)], character)
    resumed = agent.calls[call].resume
    agent.tokens_sent[call] += len(resumed.token_ids) if resumed else 0
    agent.finish(call)
    await settle()
