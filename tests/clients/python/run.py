"""Runs one Python client over cells. In: a line of JSON, `{client, cells: [{id, url}]}`. Out: a line of JSON per cell."""

import concurrent.futures
import json
import sys

from clients import CLIENTS

AT_ONCE = 6


def cell(read, given):
    """What the client made of one cell: its text and end, or its error."""
    try:
        text, end = read(given["url"])
        return {"id": given["id"], "text": text, "end": end}
    except Exception as error:  # noqa: BLE001 - any error is a result
        return {"id": given["id"], "error": f"{type(error).__name__}: {error}"}


def main():
    job = json.loads(sys.stdin.readline())
    read = CLIENTS[job["client"]]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(lambda given: cell(read, given), job["cells"]):
            print(json.dumps(result), flush=True)


main()
