"""Several engines of one test, looked after: compared with llama.cpp's view after every turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent.engine.frames import EngineOptions
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from tests.support.engine_bench import EngineBench
from tests.support.engine_invariants import check_idle, checked

NewBench = Callable[..., EngineBench]
"""Options of the engine as keywords, `kind` for another model than the first."""

EXACT: Mapping[str, object] = {"threads": 1, "cache_type": "f32", "flash_attention": "off"}


@contextmanager
def loaded(log: LlamaLog, paths: Mapping[str, Path]) -> Iterator[dict[str, Model]]:
    """Models by name, freed at the end."""
    models = {name: Model(EngineOptions(model_path=str(path)), log) for name, path in paths.items()}
    yield models
    for model in models.values():
        model.close()


@contextmanager
def benches(
    models: Mapping[str, Model],
    log: LlamaLog,
    at_end: Callable[[EngineBench], None] = check_idle,
    **defaults: object,
) -> Iterator[NewBench]:
    """Make engines; each is checked `at_end` and freed."""
    made: list[EngineBench] = []
    first = next(iter(models))

    def new(kind: str = first, **fields: object) -> EngineBench:
        settings = {**EXACT, **defaults, **fields}
        options = EngineOptions(model_path="", **settings)  # type: ignore[arg-type]  # of any test
        made.append(checked(EngineBench(models[kind], log, options)))
        return made[-1]

    yield new
    for bench in made:
        at_end(bench)
        bench.close()
