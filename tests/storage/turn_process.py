"""A surface's worker that never comes to an end of its first question: `DATABASE_URL`."""

import asyncio
import sys

from storage.jobs import TurnJob, run_turns
from storage.pool import open_pool
from storage.settings import DatabaseSettings


async def main(url: str) -> None:
    async def run(job: TurnJob) -> None:
        print(job.message_id, flush=True)
        await asyncio.Event().wait()

    async with open_pool(url, settings=DatabaseSettings()) as pool:
        await run_turns(pool, surface="chat", run=run, gave_up=run, concurrency=4)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
