"""An MCP server on standard input and output with one tool, `do`, which makes the file that its argument names."""

import json
import sys
from pathlib import Path

TOOL = {"name": "do", "description": "does it", "inputSchema": {"type": "object", "properties": {}}}

for line in sys.stdin:
    asked = json.loads(line)
    method, answer = asked.get("method"), {}
    if method == "initialize":
        version = asked["params"]["protocolVersion"]
        answer = {
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "d", "version": "1"},
        }
    elif method == "tools/list":
        answer = {"tools": [TOOL]}
    elif method == "tools/call":
        Path(sys.argv[1]).touch()
        answer = {"content": [{"type": "text", "text": "done"}]}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
