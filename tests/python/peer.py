"""A child process with engines: it runs the lines of Python that the test sends and answers their result.

One JSON object per line: {"code": ..., "values": {...}} in; {"result": ...} or {"raised": ...} out. The code's last
statement assigns ``result``. Names made by one line are there for the next; ``npu`` is the software NPU's runtime.
"""

import json
import os
import sys
import traceback


def main() -> None:
    names: dict = {"__name__": "peer"}
    exec("import ctypes, os, threading\nfrom mooncake.engine import *\nimport blocks", names)
    if "MOONCAKE_TRANSFER_CANN_PATH" in os.environ:
        from npu import Npu

        names["npu"] = Npu()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        message = json.loads(line)
        names.update(message["values"], result=None)
        try:
            exec(message["code"], names)
            answer = {"result": names["result"]}
        except Exception:
            answer = {"raised": traceback.format_exc()}
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
