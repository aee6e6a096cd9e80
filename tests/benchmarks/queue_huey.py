# mypy: ignore-errors
"""Empty jobs in Huey on SQLite: submits them, drains them with its consumer, counts results."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from huey import SqliteHuey

huey = SqliteHuey("bench", filename=os.environ["BENCH_URL"], fsync=True, store_none=True)


@huey.task()
def nothing():
    return None


def main(jobs, clients):
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        for _ in pool.map(lambda _: nothing(), range(jobs)):
            pass
        print(time.perf_counter() - began)
