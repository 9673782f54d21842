"""The substrate that is no sandbox: engines run in this process, on the workspace itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from computeragent.protocol_types import SubstrateHandle


class LocalSubstrate:
    """Runs engines right here. No security boundary: an agent's tools have the rights of this process."""

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`. Nothing starts, so nothing has to stop."""
        del state_dir, envs, limits
        return SubstrateHandle(workspace_path=workspace, close=_nothing)


async def _nothing() -> None:
    return
