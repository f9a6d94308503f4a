"""The agent's error tree.

AgentError
├── ConfigError            a setting is wrong: what, where it came from, what is allowed
├── EngineUnavailable      no engine is ready to take a call
├── ModelUnusable          the engine process cannot serve this model: why, and what to do
│   └── ModelRejected      likewise, and trying again cannot help: a person must act
├── RegistrationRefused    the balancer does not take this agent: its words, with the remedy
├── TemplateRefused        a chat template raised, failed, or passed a limit; for the client to read
├── TemplateBusy           too many chat templates wait to be rendered
├── GrammarRefused         a grammar cannot be expressed, or passed a limit; for the client to read
│   ├── ToolsRefused       likewise, of the tools of a request; names the parameter
│   └── OutsideGrammar     a token was taken that the grammar does not allow
├── GrammarBusy            too many grammars wait to be looked at
├── MediaRefused           an image or a sound cannot be taken; for the client to read
├── MediaBusy              too many images and sounds wait, or are held for calls
└── WorkerFailed           a job in a killable worker process gave no reply
    ├── WorkerBusy         too many jobs wait for the process
    ├── WorkerTooSlow      the job passed its time and the process was killed
    └── WorkerDied         the process ended under the job, twice
"""

from __future__ import annotations

from protocol.refusals import RefusalCode


class AgentError(Exception):
    """What goes wrong in the agent; the text is for the person who runs it."""


class ConfigError(AgentError):
    """A setting is wrong or out of range."""


class EngineUnavailable(AgentError):
    """The engine is loading, restarting or gone."""


class ModelUnusable(AgentError):
    """The model file or its settings do not work on this machine."""


class ModelRejected(ModelUnusable):
    """The file is damaged, or the settings ask for what this machine does not have."""


class RegistrationRefused(AgentError):
    """The balancer does not take this agent; the text is the balancer's."""


class TemplateRefused(AgentError):
    """A chat template raised, failed, or passed a limit; the client may read the text."""


class TemplateBusy(AgentError):
    """Too many chat templates wait to be rendered."""


class GrammarRefused(AgentError):
    """A grammar cannot be expressed or passed a limit; the client may read the text, which names
    the construct."""


class ToolsRefused(GrammarRefused):
    """Tools cannot be called as was asked for, or not with the certainty that was; `param` is what
    of the request is at fault: `tools[0]` the first tool."""

    def __init__(
        self, message: str, param: str, code: RefusalCode = RefusalCode.INVALID_GRAMMAR
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class OutsideGrammar(GrammarRefused):
    """A token was taken, here or elsewhere, that the grammar does not allow."""


class GrammarBusy(AgentError):
    """Too many grammars wait to be looked at."""


class MediaRefused(AgentError):
    """An image or a sound is damaged, of another format, or too large; the client may read it."""


class MediaBusy(AgentError):
    """Too many images and sounds wait to be decoded, or are held for calls."""


class WorkerFailed(AgentError):
    """A job in a killable worker process gave no reply."""


class WorkerBusy(WorkerFailed):
    """Too many jobs wait for the process."""


class WorkerTooSlow(WorkerFailed):
    """The job passed its time and the process was killed."""


class WorkerDied(WorkerFailed):
    """The process ended under the job, and so did a second one."""
