"""Upstream's released store client, driven by lines on standard input.

One command a line, as a JSON list: a method of the store and its arguments. Bytes are given and answered as
{"bytes": length, "fill": value}, or, where they are not all alike, as {"base64": text}. Each line is answered by
one line of JSON.
"""

import base64
import json
import sys

from mooncake.store import MooncakeDistributedStore, ReplicateConfig


def decode(value):
    if isinstance(value, dict) and "bytes" in value:
        return bytes([value["fill"]]) * value["bytes"]
    if isinstance(value, dict) and "base64" in value:
        return base64.b64decode(value["base64"])
    if isinstance(value, dict) and "config" in value:
        config = ReplicateConfig()
        for name, item in value["config"].items():
            setattr(config, name, item)
        return config
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def encode(value):
    if isinstance(value, (bytes, bytearray)):
        if len(set(value)) > 1:
            return {"base64": base64.b64encode(value).decode()}
        return {"bytes": len(value), "fill": value[0] if value else 0}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


store = MooncakeDistributedStore()
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = encode(getattr(store, name)(*decode(arguments)))
    except Exception as error:  # the test sees what the caller would
        answer = {"error": repr(error)}
    print("answer " + json.dumps(answer), flush=True)
