"""Makes the settings: defaults < `--config` file < its overlay < `.env` < environment < flags.

Used at start and at reload. Everything that is wrong is found at once, and then nothing is used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from balancer.config_file.dotenv import Variable, read_dotenv
from balancer.config_file.faults import Fault, FaultyConfiguration, Origin, shown, shown_name
from balancer.config_file.files import Fingerprint, fingerprint, read_bounded
from balancer.config_file.rules import ENVIRONMENT_PREFIX, RULES, variable_of
from balancer.config_file.secret_texts import Unread
from balancer.config_file.sections import SectionFault, line_of
from balancer.config_file.tls_files import NO_ENCRYPTION, Encryption, encryption, files_of
from balancer.config_file.together import faults_together
from balancer.config_file.yaml_file import Entry, read_yaml
from balancer.settings import Settings

ENVIRONMENT_VARIABLE = ENVIRONMENT_PREFIX + "ENVIRONMENT"
CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
LOG_LEVEL_VARIABLE = "LOG_LEVEL"
AGENT_PREFIX = ENVIRONMENT_PREFIX + "AGENT_"
"""Variables of the agent's, which often shares a host with the balancer."""
_KNOWN_VARIABLES = {variable_of(name): name for name in RULES}
_MOST_LIKELY_MEANT = 0.85
"""How near a name must be to one of ours to be a slip. Others use the prefix too: Kubernetes sets
PADDLER_PORT for a service of that name."""
_MOST_WARNINGS = 10
_ENVIRONMENT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ENVIRONMENT_ALLOWED = "allowed: up to 64 letters, digits, _ and -"


class Sources(Struct, frozen=True, kw_only=True):
    """Where settings are looked for. `flags` maps settings' names to what the command line says;
    None is a flag that was not given."""

    flags: Mapping[str, object] = {}
    variables: Mapping[str, str] = {}
    config: Path | None = None
    environment: str | None = None
    """Whose overlay is laid over the file, where neither variable nor file has to say it."""
    dotenv: Path | None = None
    """It need not exist."""
    is_alone: bool = False
    """Whether the file is looked at without the variables that it may name."""


class Loaded(Struct, frozen=True, kw_only=True):
    """Settings, and where each comes from that is no default."""

    settings: Settings
    origins: Mapping[str, Origin] = {}
    environment: str | None = None
    files: tuple[Path, ...] = ()
    size_bytes: int = 0
    """Of the YAML files."""
    warnings: tuple[str, ...] = ()
    encryption: Encryption = NO_ENCRYPTION


class Loading:
    """One reading of all sources. `seen` has the files that were looked at, also after a fault."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._values: dict[str, Any] = {}
        self._origins: dict[str, Origin] = {}
        self._faults: list[Fault] = []
        self._warnings: list[str] = []
        self._files: list[Path] = []
        self._size_bytes = 0
        self._environment: tuple[str, Origin] | None = None
        self.seen: dict[Path, Fingerprint] = {}

    def result(self) -> Loaded:
        """Raises `FaultyConfiguration`."""
        loaded = self.apart()
        if wrong := tuple(faults_together(loaded.settings, loaded.origins)):
            raise FaultyConfiguration(wrong)
        self.seen |= {path: fingerprint(path) for path in files_of(loaded.settings)}
        made = encryption(loaded.settings, loaded.origins, unix_s=time.time())
        warnings = (*loaded.warnings, *made.warnings)
        return structs.replace(loaded, encryption=made, warnings=warnings)

    def apart(self) -> Loaded:
        """The same, whether or not the settings are right together: for whoever mends that."""
        variables = self._variables()
        config = self._sources.config
        if config is not None:
            self._take_file(config)
        self._settle_environment(variables)
        self._take_overlay()
        self._take_variables(variables)
        for name, raw in self._sources.flags.items():
            if raw is not None:
                self._take(name, raw, Origin("flag", RULES[name].flag or name))
        if self._faults:
            raise FaultyConfiguration(self._faults)
        return Loaded(
            settings=Settings(**self._values),
            origins=self._origins,
            environment=None if self._environment is None else self._environment[0],
            files=tuple(self._files),
            size_bytes=self._size_bytes,
            warnings=tuple(self._warnings),
        )

    # --- files ---

    def _take_file(self, path: Path, *, is_overlay: bool = False) -> None:
        self.seen[path] = fingerprint(path)
        try:
            file = read_yaml(path)
        except FaultyConfiguration as error:
            self._faults += error.faults
            return
        self._files.append(path)
        self._size_bytes += file.size_bytes
        for name, entry in file.entries.items():
            origin = Origin("file", str(path), entry.line)
            if name == "app" and not is_overlay:
                self._take_app(path, entry)
            elif name in RULES:
                self._take(name, entry.value, origin)
            else:
                self._faults.append(_unknown(name, origin))

    def _take_app(self, path: Path, section: Entry) -> None:
        if not isinstance(section.value, dict):
            origin = Origin("file", str(path), section.line)
            self._fault(
                "app",
                f"{shown(section.value)} is no section",
                origin,
                "write `environment: NAME` below it",
            )
            return
        for name, entry in section.value.items():
            origin = Origin("file", str(path), entry.line)
            if name != "environment":
                field = f"app.{shown_name(name)}"
                self._fault(field, "this is no setting", origin, "allowed: environment")
            elif self._is_environment("app.environment", entry.value, origin):
                self._environment = entry.value, origin

    def _settle_environment(self, variables: Mapping[str, Variable]) -> None:
        """The flag, else the variable, else what the file says."""
        named = self._sources.environment
        if named is not None:
            if self._is_environment(
                "environment", named, origin := Origin("flag", "--environment")
            ):
                self._environment = named, origin
        elif (found := variables.get(ENVIRONMENT_VARIABLE)) is not None and self._is_environment(
            "environment", found.value, found.origin
        ):
            self._environment = found.value, found.origin

    def _is_environment(self, field: str, raw: object, origin: Origin) -> bool:
        if isinstance(raw, str) and _ENVIRONMENT.fullmatch(raw):
            return True
        self._fault(field, f"{shown(raw)} cannot be used", origin, _ENVIRONMENT_ALLOWED)
        return False

    def _take_overlay(self) -> None:
        if self._environment is None:
            return
        name, origin = self._environment
        config = self._sources.config
        field = "app.environment" if origin.kind == "file" else "environment"
        if config is None:
            problem = f"there is no file that {name!r} could be laid over"
            self._fault(field, problem, origin, "name one with --config")
            return
        overlay = config.with_name(f"{config.stem}.{name}{config.suffix}")
        self.seen[overlay] = fingerprint(overlay)
        if self.seen[overlay] is None:
            problem = f"there is no file {overlay}"
            remedy = "write one, it may be empty, or name no environment"
            self._fault(field, problem, origin, remedy)
            return
        self._take_file(overlay, is_overlay=True)

    # --- variables ---

    def _variables(self) -> dict[str, Variable]:
        """Those of `.env`, and over them those of the process."""
        found: dict[str, Variable] = {}
        dotenv = self._sources.dotenv
        if dotenv is not None:
            self.seen[dotenv] = fingerprint(dotenv)
            try:
                found = read_dotenv(dotenv)
            except FaultyConfiguration as error:
                self._faults += error.faults
        given = self._sources.variables
        own = {
            name: Variable(value, Origin("environment", name))
            for name, value in given.items()
            if name.startswith(ENVIRONMENT_PREFIX) or (name == LOG_LEVEL_VARIABLE and value)
        }
        return {**found, **own}

    def _take_variables(self, variables: Mapping[str, Variable]) -> None:
        strangers: list[str] = []
        level = variables.get(LOG_LEVEL_VARIABLE)
        if level is not None and variable_of("log_level") not in variables:
            self._take("log_level", level.value, level.origin)
        for variable, found in variables.items():
            if (name := _KNOWN_VARIABLES.get(variable)) is not None:
                self._take(name, found.value, found.origin)
            elif _is_ours_to_know(variable):
                ending = variable.removeprefix(ENVIRONMENT_PREFIX)
                near = get_close_matches(ending, _ENDINGS, n=1, cutoff=_MOST_LIKELY_MEANT)
                if near:
                    problem = "there is no such variable"
                    remedy = f"did you mean {ENVIRONMENT_PREFIX}{near[0]}?"
                    self._fault(shown_name(variable), problem, found.origin, remedy)
                else:
                    strangers.append(shown_name(variable))
        if strangers:
            self._warnings.append(_of_strangers(sorted(strangers)))

    def _take(self, name: str, raw: object, origin: Origin) -> None:
        section = RULES[name].section
        try:
            if section is None:
                self._values[name] = RULES[name].parse(raw)
            else:
                self._values[name] = section(self._section(raw), self._secret)
        except SectionFault as fault:
            line = line_of(raw, fault.steps, origin.line)
            where = Origin(origin.kind, origin.name, line)
            self._fault(fault.field(name), fault.problem, where, fault.remedy)
            return
        except (ValueError, TypeError, KeyError, OverflowError):
            given = "this value" if RULES[name].kind.is_secret else shown(raw)
            problem = f"{given} cannot be used"
            self._fault(name, problem, origin, f"allowed: {RULES[name].allowed}")
            return
        self._origins[name] = origin

    @staticmethod
    def _section(raw: object) -> object:
        """A variable has it as JSON. Raises `SectionFault`."""
        if not isinstance(raw, str):
            return raw
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise SectionFault((), "this is no JSON", "write an object, as {}") from error

    def _secret(self, kind: str, name: str) -> str:
        """What a variable or a file holds. Raises ValueError."""
        if kind == "env":
            if self._sources.is_alone:
                return Unread(f"what-{name}-holds")  # any two variables hold different keys
            variables = self._sources.variables
            if name not in variables:
                raise ValueError(f"there is no variable {shown_name(name)}")
            return variables[name]
        path = Path(name)
        self.seen[path] = fingerprint(path)
        try:
            return read_bounded(path, "file").decode().removesuffix("\n").removesuffix("\r")
        except FaultyConfiguration as error:
            raise ValueError(error.faults[0].problem) from error
        except UnicodeDecodeError as error:
            raise ValueError("the file is not UTF-8") from error

    def _fault(self, field: str, problem: str, origin: Origin, remedy: str) -> None:
        self._faults.append(Fault(field=field, problem=problem, origin=origin, remedy=remedy))


_ENDINGS = tuple(
    variable.removeprefix(ENVIRONMENT_PREFIX)
    for variable in (*_KNOWN_VARIABLES, ENVIRONMENT_VARIABLE, CONFIG_VARIABLE)
)


def load(sources: Sources) -> Loaded:
    """The settings that these sources give. Raises `FaultyConfiguration`."""
    return Loading(sources).result()


def dotenv_beside(config: Path | None) -> Path:
    """Where `.env` is looked for: beside the file, without one in the working directory."""
    return Path(".env") if config is None else config.with_name(".env")


def _unknown(name: str, origin: Origin) -> Fault:
    if name == "app":
        problem, remedy = "an overlay cannot choose an environment", "move it to the main file"
    else:
        problem = "this is no setting"
        near = get_close_matches(name, RULES, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(RULES)}"
    return Fault(field=shown_name(name), problem=problem, origin=origin, remedy=remedy)


def _is_ours_to_know(variable: str) -> bool:
    is_of_agent = variable.startswith(AGENT_PREFIX)
    return not is_of_agent and variable not in (
        ENVIRONMENT_VARIABLE,
        CONFIG_VARIABLE,
        LOG_LEVEL_VARIABLE,
    )


def _of_strangers(names: list[str]) -> str:
    listed = ", ".join(names[:_MOST_WARNINGS])
    more = f" and {len(names) - _MOST_WARNINGS} more" if len(names) > _MOST_WARNINGS else ""
    return f"no setting has the variable {listed}{more}"
