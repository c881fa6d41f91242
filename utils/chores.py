"""Work that has to be done now and then, beside the app: one task for each process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool

log = logging.getLogger("chores")

Lifespan = Callable[[Any], AsyncIterator[None]]


def with_chore(lifespan: Lifespan, seconds: float, work: Callable[[], object]) -> Lifespan:
    """The same lifespan, with `work()` called in a thread at the start and every `seconds` after it."""

    async def both(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(_every(seconds, work))
        async for _ in lifespan(app):
            yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return both


async def _every(seconds: float, work: Callable[[], object]) -> None:
    while True:
        try:
            await run_in_threadpool(work)
        except Exception:  # the next time may be better
            log.exception("a chore failed; trying again in %d s", seconds)
        await asyncio.sleep(seconds)
