"""What a run did, as files: a folder per run, one in it per call of the model, screenshots beside requests and answers.

``<dir>/<date>_<model>_<time>_<4 hex>/metadata.json`` and ``turn_000/0000_api_start.json``, ``…_api_result.json``,
``…_agent_response.json``, ``…_screenshot_after.png``, ``…_computer_call_result.json``, ``…_screenshot_action.png``
(with a cross where the pointer acted). Texts are redacted as telemetry is. A file is there whole or not at all, and
what goes wrong here never reaches the run.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from computeragent.computer.actions import Action, points_of
from computeragent.computer.types import Screenshot
from computeragent.dialects.model import ModelRequest, ModelResponse, Part, Text, Thinking, ToolCall
from computeragent.engines.computer_use.formats.types import TOOL
from computeragent.engines.computer_use.screen import encoded, opened
from computeragent.logs import Logger
from computeragent.telemetry.redaction import SECRETS, Redactor, credentials_in
from computeragent.wire.encoding import to_json

Json = dict[str, Any]
OMITTED = "[omitted]"
_CROSS = 20
_RED = (255, 0, 0)
_IMAGE_KEYS = frozenset({"data", "url", "image_url", "encrypted_content", "signature"})
_log = Logger("engine.computer_use")


class Trajectory:
    """The folder of one run, written in order on a thread of its own. `kwargs` are the run's options."""

    def __init__(self, folder: Path, *, model: str, kwargs: Mapping[str, Any], envs: Mapping[str, str]) -> None:
        now = datetime.now(UTC)
        short = re.sub(r"[^A-Za-z0-9]", "", model)[:16] or "model"
        self.path = folder / f"{now:%Y-%m-%d}_{short}_{now:%H%M%S}_{secrets.token_hex(2)}"
        self._redactor = Redactor(detectors=SECRETS, known_values=credentials_in(dict(envs)))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trajectory")
        self._turn = -1
        self._number = 0
        self._items: list[Json] = []
        self._failed = False
        self._metadata: Json = {
            "trajectory_id": self.path.name,
            "created_at": now.isoformat(),
            "status": "running",
            "model": model,
            "kwargs": dict(kwargs),
        }
        self._write(lambda: self._json(self.path / "metadata.json", self._metadata))

    def asked(self, request: ModelRequest) -> None:
        """The model is asked."""
        self._turn += 1
        self._number = 0
        self._save("api_start", {"kwargs": msgspec.to_builtins(request)})

    def answered(self, response: ModelResponse) -> None:
        """It has answered."""
        self._save("api_result", {"result": msgspec.to_builtins(response)})
        items = items_of(response.content)
        self._items += items
        self._save("agent_response", {"response": {"output": items, "usage": msgspec.to_builtins(response.usage)}})

    def acted(self, call_id: str, action: Action, shot: Screenshot | None, *, failed: bool, text: str = "") -> None:
        """An action was done, or was not."""
        output: Json = {"type": "input_image", "image_url": OMITTED}
        item: Json = {"type": "computer_call_output", "call_id": call_id, "output": output}
        self._items.append(item)
        told: Json = {"item": item, "action": msgspec.to_builtins(action), "failed": failed, "text": text}
        if shot is not None:
            told["screen"] = {"width": shot.size.width, "height": shot.size.height}
            self._picture("screenshot_after", lambda: shot.data)
        self._save("computer_call_result", told)
        if shot is not None and (points := points_of(action)):
            self._picture("screenshot_action", lambda: _marked(shot, points[-1]))

    async def written(self) -> None:
        """Returns when all that was told so far is in files."""
        await asyncio.wrap_future(self._thread.submit(lambda: None))

    async def finish(self, *, usage: Mapping[str, Any], status: str = "completed") -> None:
        """The run is over; returns when all is written."""
        self._metadata |= {
            "status": status,
            "completed_at": datetime.now(UTC).isoformat(),
            "total_usage": dict(usage),
            "new_items": self._items,
            "total_turns": self._turn + 1,
        }
        self._write(lambda: self._json(self.path / "metadata.json", self._metadata))
        await asyncio.to_thread(self._thread.shutdown)

    def _save(self, name: str, value: Json) -> None:
        path = self._next(name, "json")
        self._write(lambda: self._json(path, value))

    def _picture(self, name: str, draw: Callable[[], bytes]) -> None:
        path = self._next(name, "png")
        self._write(lambda: _replace(path, draw()))

    def _next(self, name: str, suffix: str) -> Path:
        path = self.path / f"turn_{max(self._turn, 0):03d}" / f"{self._number:04d}_{name}.{suffix}"
        self._number += 1
        return path

    def _json(self, path: Path, value: Json) -> None:
        _replace(path, msgspec.json.format(to_json(self._redactor.redact(_unpictured(value))), indent=2))

    def _write(self, job: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 - a full disk, a picture that is none: never the run's business
                if not self._failed:
                    self._failed = True
                    _log.warn("trajectory_not_written", path=str(self.path), error=type(error).__name__)

        self._thread.submit(guarded)


def items_of(parts: tuple[Part, ...]) -> list[Json]:
    """An answer as items of OpenAI's Responses."""
    items: list[Json] = []
    for part in parts:
        match part:
            case Text():
                content = [{"type": "output_text", "text": part.text}]
                items.append({"type": "message", "role": "assistant", "content": content})
            case Thinking():
                items.append({"type": "reasoning", "summary": [{"type": "summary_text", "text": part.text}]})
            case ToolCall():
                items.append(_call_item(part))
            case _:
                pass
    return items


def _call_item(call: ToolCall) -> Json:
    if call.name == TOOL:
        return {"type": "computer_call", "call_id": call.id, "action": call.input, "status": "completed"}
    arguments = to_json(call.input).decode()
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}


def _unpictured(value: Any) -> Any:
    """A value without pictures and without what is encrypted."""
    if isinstance(value, dict):
        given = cast("Json", value)
        return {
            key: OMITTED if key in _IMAGE_KEYS and isinstance(item, str) and len(item) > 64 else _unpictured(item)
            for key, item in given.items()
        }
    if isinstance(value, (list, tuple)):
        return [_unpictured(item) for item in cast("list[Any]", value)]
    return value


def _marked(shot: Screenshot, point: tuple[int, int]) -> bytes:
    from PIL import ImageDraw

    image = opened(shot.data).convert("RGB")
    draw = ImageDraw.Draw(image)
    x, y = point
    draw.line((x - _CROSS, y, x + _CROSS, y), fill=_RED, width=2)
    draw.line((x, y - _CROSS, x, y + _CROSS), fill=_RED, width=2)
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), outline=_RED, width=2)
    return encoded(image)


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
