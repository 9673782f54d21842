"""What a run is made of, found and checked before its first turn."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from computeragent.computer.types import Computer, Environment, Size
from computeragent.engines.computer_use.budget import Budget, Tariff
from computeragent.engines.computer_use.desk import Desk
from computeragent.engines.computer_use.formats import Composed, ToolFormat, choose, named
from computeragent.engines.computer_use.formats.types import TOOL
from computeragent.engines.computer_use.functions import Functions
from computeragent.engines.computer_use.history import History
from computeragent.engines.computer_use.options import Options, read_options
from computeragent.engines.computer_use.privacy import Privacy
from computeragent.engines.computer_use.trajectory import Trajectory
from computeragent.errors import NotRemotableError, PathEscapeError, ValidationError
from computeragent.logs import Logger
from computeragent.models import allowed_env, open_model
from computeragent.models.types import Model
from computeragent.protocol_types import EngineContext

_COMPUTER_ENV = ("CUA_API_KEY", "CUA_CONTAINER_NAME")
_HERE = ("scripted", "human")
_DATA = (str, int, float, bool, list, tuple, dict, type(None))
_UNSAVED = frozenset({"computer", "tools", "history", "price"})


@dataclass(slots=True)
class Setup:
    """The parts of one run."""

    ctx: EngineContext
    options: Options
    model: Model
    grounding: Model | None
    style: ToolFormat
    desk: Desk
    history: History
    budget: Budget
    functions: Functions
    privacy: Privacy | None
    trajectory: Trajectory | None
    log: Logger

    async def close(self) -> None:
        """Give back the computer, finish the files, let the models' connections go."""
        try:
            await self.desk.close()
        finally:
            await self.model.aclose()
            if self.grounding is not None:
                await self.grounding.aclose()


def prepare(ctx: EngineContext, *, model: Model | None = None, confined: bool | None = None) -> Setup:
    """The parts of a run. Raises a `ComputerAgentError` for whatever its options get wrong; nothing is started yet.

    `confined` holds whoever wrote the options to what another machine's caller may: files of the workspace alone, no
    display of this machine. Default: unless they are the caller's own, in this process.
    """
    options = read_options(ctx.options, library_mode=ctx.library_mode)
    if confined is None:
        confined = not (ctx.library_mode and ctx.trusted)
    envs = _environment(ctx)
    thinker, grounding = model, None
    names = [options.model]
    if thinker is None:
        names = _names(options.model)
        opened = [_open(name, envs, ctx.workspace_path, confined=confined) for name in names]
        thinker, grounding = opened[-1], opened[0] if len(opened) == 2 else None
    if options.tool_format is not None:
        style = named(options.tool_format)
    else:
        style = Composed(grounding) if grounding is not None else choose(names[-1], thinker.dialect)
    wanted = None if options.model_screen is None else Size(*options.model_screen)
    tariffs = {
        each.name: Tariff(name, options.price) for name, each in zip(names, _both(grounding, thinker), strict=True)
    }
    ceilings = [each for each in (ctx.budget_max_usd, options.max_trajectory_budget) if each is not None]
    budget = Budget(tariffs, min(ceilings, default=None))
    folder = None if options.trajectory_dir is None else _folder(options.trajectory_dir, ctx, confined=confined)
    return Setup(
        ctx=ctx,
        options=options,
        model=thinker,
        grounding=grounding,
        style=style,
        desk=Desk(
            _source(ctx, options, envs, confined=confined), keep=options.keep_computer, limit=style.limit, wanted=wanted
        ),
        history=History(ctx, dialect=thinker.dialect, images=options.only_n_most_recent_images),
        budget=budget,
        functions=Functions(options.tools, taken=frozenset({TOOL})),
        privacy=Privacy(envs) if options.redact_pii else None,
        trajectory=None
        if folder is None
        else Trajectory(folder, model=names[-1], kwargs=_shown(ctx.options), envs=envs),
        log=_logger(options.verbosity),
    )


def _both(grounding: Model | None, thinker: Model) -> list[Model]:
    return [thinker] if grounding is None else [grounding, thinker]


def _names(model: str) -> list[str]:
    """One model, or the one that finds elements and the one that thinks."""
    names = [model] if model.startswith("scripted/") and "+scripted/" not in model else model.split("+")
    if len(names) > 2 or not all(names):
        raise ValidationError(f"{model!r} names no model", hint="Write MODEL, or GROUNDING+THINKING.")
    return names


def _environment(ctx: EngineContext) -> dict[str, str]:
    """What may be set for models and computers: the session's, over this process's own in library mode."""
    if not ctx.library_mode:
        return dict(ctx.envs)
    own = {name: os.environ[name] for name in (*allowed_env(), *_COMPUTER_ENV) if os.environ.get(name)}
    return {**own, **ctx.envs}


def _open(name: str, envs: Mapping[str, str], workspace: Path, *, confined: bool) -> Model:
    prefix, _, rest = name.partition("/")
    if confined and prefix == "scripted":  # a file that another machine names is one of the workspace, and no program
        path = _inside(rest, workspace)
        if path.suffix not in {".yaml", ".yml", ".json"}:
            raise NotRemotableError(f"the script {rest!r} is no data", hint="Give a YAML file of the workspace.")
        name = f"scripted/{path}"
    return open_model(name, envs)


def _folder(given: str, ctx: EngineContext, *, confined: bool) -> Path:
    return _inside(given, ctx.workspace_path) if confined else Path(given).expanduser().absolute()


def _inside(given: str, workspace: Path) -> Path:
    """A path of the workspace. Raises `PathEscapeError` for any other."""
    root = workspace.resolve()
    path = (root / given).resolve()
    if not path.is_relative_to(root):
        raise PathEscapeError(f"{given!r} is not in the workspace", hint="Give a path relative to it.")
    return path


def _shown(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, _DATA) else str(value)
        for name, value in options.items()
        if name not in _UNSAVED
    }


def _logger(verbosity: str | int | None) -> Logger:
    if verbosity is None:
        return Logger("engine.computer_use")
    level = verbosity if isinstance(verbosity, int) else logging.getLevelNamesMapping().get(verbosity.upper())
    if level is None:
        raise ValidationError(f"there is no verbosity {verbosity!r}", hint="debug, info, warning, error, or a number.")
    return _Verbose(level)


class _Verbose(Logger):
    """A log with a level of its own: its records reach the handlers of ours, however loud those are for others."""

    def __init__(self, level: int) -> None:
        super().__init__("engine.computer_use")
        own = logging.Logger(self._log.name, level)  # noqa: LOG001 - for this run alone, unknown to the registry
        own.parent = logging.getLogger("computeragent")
        self._log = own


# ── Where the computer comes from ──


class _Pooled:
    """A computer of the pool, or the caller's own, which the pool keeps from others meanwhile."""

    def __init__(self, computer: Any, *, key: str, timeout: float) -> None:
        self._computer = computer
        self._key = key
        self._timeout = timeout

    @property
    def size(self) -> Size | None:
        """See `desk.Source`."""
        from computeragent.computer.spec import ComputerSpec

        if isinstance(self._computer, ComputerSpec):
            spec = self._computer
            return None if spec.place is not None else Size(spec.width, spec.height)
        return self._computer.dimensions if isinstance(self._computer, Computer) else None

    @property
    def environment(self) -> Environment | None:
        """See `desk.Source`."""
        from computeragent.computer.spec import ComputerSpec

        if isinstance(self._computer, ComputerSpec):
            return "browser" if self._computer.kind == "browser" else _SYSTEMS.get(self._computer.os_type, "linux")
        return self._computer.environment if isinstance(self._computer, Computer) else None

    def lease(self) -> AbstractAsyncContextManager[Computer]:
        """See `desk.Source`."""
        from computeragent.computer.pool import default_pool

        return default_pool().lease(self._computer, key=self._key, timeout=self._timeout)


_SYSTEMS: dict[str, Environment] = {"linux": "linux", "windows": "windows", "macos": "mac"}


def _source(ctx: EngineContext, options: Options, envs: Mapping[str, str], *, confined: bool) -> _Pooled:
    owner = ctx.project_key if ctx.library_mode else f"{ctx.project_key}/{ctx.session_id}"
    return _Pooled(_computer(options.computer, envs, confined=confined), key=owner, timeout=options.computer_timeout)


def _computer(given: object, envs: Mapping[str, str], *, confined: bool) -> Any:
    """What the pool leases: a spec, or the caller's own. Raises `ValidationError` for anything else."""
    from computeragent.computer.custom import are_functions
    from computeragent.computer.kinds import spec_of
    from computeragent.computer.spec import ComputerSpec

    if isinstance(given, Computer) or are_functions(given):
        return given
    if given is None or isinstance(given, (ComputerSpec, Mapping)):
        return spec_of(cast("Any", given), envs, allow_host=not confined)
    raise ValidationError("option 'computer' is no computer", hint='Such as {"kind": "x11"}.')
