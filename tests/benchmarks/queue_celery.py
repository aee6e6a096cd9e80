# mypy: ignore-errors
"""Empty jobs in Celery: ``main()`` submits them; the worker imports this, too."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from celery import Celery

app = Celery("queue_celery", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_URL"])
app.conf.update(broker_pool_limit=64, worker_hijack_root_logger=False)


@app.task
def nothing():
    return None


def main(jobs, clients):
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        for _ in pool.map(lambda _: nothing.apply_async(ignore_result=False), range(jobs)):
            pass
        print(time.perf_counter() - began)
