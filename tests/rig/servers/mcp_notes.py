#!/usr/bin/env python3
"""A legacy MCP server on standard streams that is of little use when it is shared: it keeps notes, and asks its client without saying for which call.

Tools: note (text: kept; all that were kept come back), ask (the client's answer to a question), log (a line, and nothing else), die."""
import json
import os
import sys

TOOLS = ("note", "ask", "log", "die")
_notes = []
_asked = {}


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(number, text):
    say({"id": number, "result": {"content": [{"type": "text", "text": text}]}})


def call(number, name, arguments):
    if name == "note":
        _notes.append(arguments["text"])
        answer(number, " ".join(_notes))
    elif name == "ask":
        _asked[f"q{number}"] = number
        say({"id": f"q{number}", "method": "elicitation/create",
             "params": {"message": arguments["text"], "requestedSchema": {"type": "object", "properties": {"is": {"type": "string"}}}}})
    elif name == "log":
        say({"method": "notifications/message", "params": {"level": "error", "data": arguments["text"]}})
        answer(number, "logged")
    else:
        os._exit(3)


def handle(m):
    method, number = m.get("method"), m.get("id")
    if method is None and number in _asked:
        answer(_asked.pop(number), m["result"]["content"]["is"] if "result" in m else m["error"]["message"])
    elif method == "initialize":
        say({"id": number, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}}, "serverInfo": {"name": "notes", "version": "1"}}})
    elif method == "tools/list":
        say({"id": number, "result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}})
    elif method == "tools/call":
        call(number, m["params"]["name"], m["params"].get("arguments", {}))
    elif number is not None and method:
        say({"id": number, "error": {"code": -32601, "message": "Method not found"}})


for line in sys.stdin:
    handle(json.loads(line))
