"""Runs one Python client over cells. In: a line of JSON, `{what, client, cells: [{id, url}]}`; `what` is `clients` or
`accumulators`. Out: a line of JSON per cell.
"""

import concurrent.futures
import json
import sys

from accumulators import ACCUMULATORS
from clients import CLIENTS

AT_ONCE = 6
TABLES = {"clients": CLIENTS, "accumulators": ACCUMULATORS}


def cell(read, given):
    """What the client made of one cell, or its error."""
    try:
        return {"id": given["id"], "made": read(given["url"])}
    except Exception as error:  # noqa: BLE001 - any error is a result
        return {"id": given["id"], "error": f"{type(error).__name__}: {error}"}


def main():
    job = json.loads(sys.stdin.readline())
    read = TABLES[job["what"]][job["client"]]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(lambda given: cell(read, given), job["cells"]):
            print(json.dumps(result), flush=True)


main()
