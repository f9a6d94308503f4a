"""Building what the engine process serves with: fit, load, prove that it decodes.

Importing this imports llama.cpp, which takes a while.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agent.engine.channel import Channel
from agent.engine.facts import facts_of
from agent.engine.frames import EngineOptions, Loaded, Ready
from agent.engine.kv_identity import file_digest, kv_layout
from agent.engine.llama.adapters import Adapters
from agent.engine.llama.backend_samplers import is_wanted
from agent.engine.llama.context import IDLE_SEQUENCES, Context
from agent.engine.llama.devices import gpus, most_sequences
from agent.engine.llama.draft_model import DraftModel
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.llama.projector import Projector
from agent.engine.loading.load import LoadWatch, fitted, host_cache_bytes
from agent.engine.media import Media
from agent.engine.no_generation import NoGeneration
from agent.engine.queries import Queries
from agent.engine.serving import Serving
from agent.engine.stderr_lines import say
from agent.engine.text_thread import TextThread

Served = tuple[Serving | NoGeneration, Queries]


def loaded(channel: Channel, options: EngineOptions, listen: Callable[[], None]) -> Served:
    """Load the model, decode once, tell `Ready`; raises `ModelUnusable`.

    `listen` takes in what the agent sends meanwhile, and raises what cancels the load.
    """
    log = start_backend()
    places, shared, names = gpus()
    if names:
        say(f"llama.cpp sees {names}")
    options = fitted(
        options,
        gpus=places,
        gpus_share_host=shared,
        most_slots=most_sequences(),
        idle_sequences=IDLE_SEQUENCES if options.unified_kv == "on" else 0,
        reduces_rows=is_wanted(options, has_gpu=bool(places)),
    )
    model = Model(options, log, LoadWatch(channel, listen))
    queries = Queries(model, options, log)
    if model.only_embeds:
        channel.send(Loaded())
        queries.warm_up()
        channel.send(Ready(facts=facts_of(model, None)))
        return NoGeneration(), queries
    return _generating(channel, model, options, log, queries.texts), queries


def _generating(
    channel: Channel, model: Model, options: EngineOptions, log: LlamaLog, texts: TextThread
) -> Serving:
    context = Context(model, options, log)
    adapters = Adapters(model, options.adapters, log) if options.adapters else None
    projector = Projector(model, options, log) if options.mmproj_path else None
    media = Media(projector, most_whole=context.batch_tokens) if projector else None
    draft_model = _draft_model(model, context, options, log)
    options = replace(options, host_cache_bytes=host_cache_bytes(options))
    serving = Serving(model, context, options, adapters, media, draft_model, texts)
    channel.send(Loaded())
    serving.warm_up()
    facts = replace(
        facts_of(model, context, projector, adapters),
        file_digest=file_digest(options.model_path),
        kv_layout=kv_layout(options, slots=context.slots),
        host_cache_bytes=0 if options.prefix_cache == "off" else options.host_cache_bytes,
    )
    channel.send(Ready(facts=facts))
    return serving


def _draft_model(
    model: Model, context: Context, options: EngineOptions, log: LlamaLog
) -> DraftModel | None:
    path = options.draft_model_path
    if not path or options.speculation == "off":
        return None
    return DraftModel(path, main=model, context=context, options=options, log=log)
