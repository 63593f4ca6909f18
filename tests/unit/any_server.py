#!/usr/bin/env python3
"""An MCP server over stdio with the tools that are named, which take anything: any_server.py LOG TOOL…   What they are given goes to LOG, a line each."""
import json
import sys

LOG, TOOLS = sys.argv[1], sys.argv[2:]
SCHEMA = {"type": "object", "propertyNames": {"maxLength": 2500}}


def answer(method, line, params):
    if method == "initialize":
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "any", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": SCHEMA} for name in TOOLS]}
    if method == "tools/call":
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps([params["name"], line]) + "\n")
        return {"content": [{"type": "text", "text": "done"}]}
    return {}


for text in sys.stdin:
    message = json.loads(text)
    if message.get("method") == "server/discover":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}}), flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message["method"], text, message.get("params") or {})}), flush=True)
