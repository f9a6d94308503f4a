"""The agent's error tree.

AgentError
├── ConfigError            a setting is wrong: what, where it came from, what is allowed
├── EngineUnavailable      no engine is ready to take a call
├── ModelUnusable          the engine process cannot serve this model: why, and what to do
├── RegistrationRefused    the balancer does not take this agent: its words, with the remedy
├── TemplateRefused        a chat template raised, failed, or passed a limit; for the client to read
└── TemplateBusy           too many chat templates wait to be rendered
"""

from __future__ import annotations


class AgentError(Exception):
    """What goes wrong in the agent; the text is for the person who runs it."""


class ConfigError(AgentError):
    """A setting is wrong or out of range."""


class EngineUnavailable(AgentError):
    """The engine is loading, restarting or gone."""


class ModelUnusable(AgentError):
    """The model file or its settings do not work on this machine."""


class RegistrationRefused(AgentError):
    """The balancer does not take this agent; the text is the balancer's."""


class TemplateRefused(AgentError):
    """A chat template raised, failed, or passed a limit; the client may read the text."""


class TemplateBusy(AgentError):
    """Too many chat templates wait to be rendered."""
