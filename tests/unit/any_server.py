#!/usr/bin/env python3
"""An MCP server over stdio with the tools that are named, which take anything: any_server.py LOG TOOL…   What they are given goes to LOG, a line each.

A tool that begins with "strange" has a schema that we do not understand; one called "costs" says that it used as many tokens as it is told, and one
called "asks" asks its caller something, whether that can answer or not."""
import json
import sys

LOG, TOOLS = sys.argv[1], sys.argv[2:]
SCHEMA = {"type": "object", "propertyNames": {"maxLength": 2500}}


def answer(method, line, params):
    if method == "initialize":
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "any", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {**SCHEMA, **({"$dynamicRef": "#x"} if name.startswith("strange") else {})}} for name in TOOLS]}
    if method == "tools/call":
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps([params["name"], line]) + "\n")
        if params["name"] == "asks":
            return {"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "Who?"}}}}
        meta = {"_meta": {"io.bulkhead/tokens": params["arguments"]["tokens"]}} if params["name"] == "costs" else {}
        return {"content": [{"type": "text", "text": "done"}], **meta}
    return {}


for text in sys.stdin:
    message = json.loads(text)
    if message.get("method") == "server/discover":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}}), flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message["method"], text, message.get("params") or {})}), flush=True)
