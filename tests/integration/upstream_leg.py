#!/usr/bin/env python3
"""The conformance suite's "client" is the gateway's other side: a gateway of its own in front of the suite's server, and somebody who calls through it.

    upstream_leg.py URL        started by the suite, which says in MCP_CONFORMANCE_SCENARIO what it wants to see

Judges nothing: the suite does, by what arrives at its server. Runs in the rig's host namespace, because the suite listens on all addresses."""
import json
import os
import sys
import urllib.parse

from brokered import BOTH, META, MODERN, Gateway, Refused, http_server
from rig import eventually


class Caller:
    def __init__(self, gateway):
        self.gateway, self.path = gateway, "/servers/suite/mcp"

    def modern(self, method, **params):
        """A request of a modern client."""
        name = params.get("name") or params.get("uri")
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}})
        status, _, text = self.gateway.request("POST", self.path, body, Content_Type="application/json", Accept=BOTH, MCP_Protocol_Version=MODERN, Mcp_Method=method,
                                               **({"Mcp_Name": name} if name else {}))
        print(f"{method} {name or ''}: {status} {text[:300]}")

    def answering(self, *names):
        """Calls of a legacy client that answers what it is asked, with what the form proposes."""
        with self.gateway.client(self.path, capabilities={"elicitation": {}}) as client:
            for number, name in enumerate(names):
                for message in client.stream({"jsonrpc": "2.0", "id": f"call-{number}", "method": "tools/call", "params": {"name": name, "arguments": {}}}):
                    print(name, json.dumps(message)[:300])
                    if "method" in message and "id" in message:
                        self.answer(client, message)

    def answer(self, client, question):
        properties = question["params"]["requestedSchema"].get("properties", {})
        content = {key: schema.get("default", True) for key, schema in properties.items()}
        body = json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": content}})
        self.gateway.request("POST", self.path, body, Content_Type="application/json", Accept=BOTH, Mcp_Session_Id=client.session, MCP_Protocol_Version=client.version)


def initialize(caller):
    with caller.gateway.client(caller.path) as client:
        try:
            print(client.request("tools/list"))
        except Refused as e:
            print(e)


def tools_call(caller):
    with caller.gateway.client(caller.path) as client:
        print(client.request("tools/list"), client.tool("add_numbers", a=2, b=3))


def sse_retry(caller):
    with caller.gateway.client(caller.path) as client:
        print(client.tool("test_reconnection"))


def metadata(caller):
    caller.modern("tools/list")
    caller.modern("tools/call", name="any", arguments={})


def standard_headers(caller):
    caller.modern("tools/list")
    caller.modern("tools/call", name="my-hyphenated-tool", arguments={})
    caller.modern("resources/list")
    caller.modern("resources/read", uri="https://example.com/resource?id=123")
    caller.modern("prompts/list")
    caller.modern("prompts/get", name="test_prompt")


def custom_headers(caller):
    with caller.gateway.client(caller.path) as client:
        for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
            print(client.tool(call["name"], **call["arguments"]))


def invalid_tools(caller):
    """What is listed is called, and what is not listed is called all the same."""
    with caller.gateway.client(caller.path) as client:
        for name in ["valid_tool", *client.names(), *(f"invalid_{n}_header" for n in ("empty", "object", "array", "null", "number"))]:
            try:
                print(name, client.tool(name, region="x"))
            except Refused as e:
                print(name, e)


SCENARIOS = {
    "initialize": initialize,
    "tools_call": tools_call,
    "elicitation-sep1034-client-defaults": lambda caller: caller.answering("test_client_elicitation_defaults"),
    "sse-retry": sse_retry,
    "request-metadata": metadata,
    "sep-2322-client-request-state": lambda caller: caller.answering("test_mrtr_echo_state", "test_mrtr_no_state", "test_mrtr_unrelated", "test_mrtr_no_result_type"),
    "http-standard-headers": standard_headers,
    "http-custom-headers": custom_headers,
    "http-invalid-tool-headers": invalid_tools,
    "json-schema-ref-no-deref": lambda caller: caller.modern("tools/list"),
}


def main():
    url = urllib.parse.urlsplit(sys.argv[1])
    with Gateway(http_server("suite", url.port, path=url.path or "/"), conf={"call_timeout": "10s"}) as gateway:
        # Before the gateway is asked for the server, it must have been told of it.
        gateway.event("up", name="suite")
        eventually("the server is in the catalogue", 5, lambda: gateway.request("GET", "/servers/suite/mcp")[0] != 404)
        SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]](Caller(gateway))


if __name__ == "__main__":
    main()
