"""The texts of an exported task. Values stand in ``sample.json``: nothing of a recording becomes code."""

from __future__ import annotations

TASK = '''\
"""{title}

    inspect eval task.py --solver computeragent/claude_code --model mockllm/model

What was recorded is in sample.json and files/. What is yours to decide is marked EDIT.
"""

import json
import shlex
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser
from inspect_ai.scorer import {scorer}

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "sample.json").read_text("utf-8"))
# Inspect takes what stands before a colon for the name of a sandbox.
FILES = {{("default:" if ":" in path else "") + path: str(HERE / "files" / path) for path in RECORDED["files"]}}
PROGRAMS = [path for path in RECORDED["executable"] if path in RECORDED["files"]]


@task
def {name}(sandbox: str = "{sandbox}"):
    """One sample. `sandbox`: bwrap and namespace come with computeragent; local and docker are Inspect's."""
    sample = Sample(
        id=RECORDED["id"],
        # EDIT: what the agent is asked.
        input=[ChatMessageUser(content=content) for content in RECORDED["input"]],
        # EDIT: what a right answer is. It is what the recorded agent said, right or wrong.
        target=RECORDED["target"],
        files=FILES,
        setup="chmod +x -- " + shlex.join(PROGRAMS) if PROGRAMS else None,
        metadata=RECORDED["metadata"],
    )
    return Task(
        dataset=[sample],
        # EDIT: how an answer is scored. {why}
        scorer={scorer}(),
        sandbox=sandbox,
    )
'''

WHY = {
    "includes": "includes() wants the target within the answer; it asks no model.",
    "f1": (
        "f1() compares the words of the answer with\n"
        "        # the target's; it asks no model. Better: look at what the agent did, with sandbox().read_file(...)."
    ),
}
"""Why a scorer was chosen, as a comment of the task."""

README = """\
# {title}

An Inspect task made of a recorded session by `computeragent eval export`.

```sh
inspect eval task.py --solver computeragent/claude_code --model mockllm/model
inspect eval task.py --solver computeragent/computeragent_agent -S source=/path/to/agent --model openai/gpt-5
inspect eval task.py -T sandbox=local --solver computeragent/codex_cli --model openai/gpt-5
```

| | |
|---|---|
{facts}

- **Input**: the user's messages, {messages}.
- **Target**: the recorded agent's last answer. Whether it was right, nobody has said: read it, and change it.
- **Scorer**: `{scorer}`, which asks no model. Change it to what you mean by right.
- **Files**: {files}
- **Redacted**: {redacted}

`task.py` marks with EDIT what is yours to decide; `sample.json` has the texts.
"""
