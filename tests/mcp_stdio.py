"""The least MCP server there can be, over stdio: it has one tool, and starts at once."""

from __future__ import annotations

import json
import sys

RESULTS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "least", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "greet", "inputSchema": {"type": "object"}}]},
}


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            answer = {"jsonrpc": "2.0", "id": request["id"], "result": RESULTS.get(request["method"], {})}
            print(json.dumps(answer), flush=True)  # noqa: T201  that is how it answers


if __name__ == "__main__":
    main()
