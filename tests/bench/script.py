"""The script people write: pandas, aiohttp, gather. No retries, no checks, nothing kept if it dies.

python script.py INPUT.parquet OUTPUT.parquet URL
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp
import pandas as pd

BATCH = 64
CONCURRENCY = 16


async def main(source: str, target: str, url: str) -> None:
    """Classify the column `text`."""
    frame = pd.read_parquet(source)
    texts = frame["text"].tolist()
    at_once = asyncio.Semaphore(CONCURRENCY)

    async with aiohttp.ClientSession() as session:

        async def classify(batch: list[str]) -> list[dict[str, Any]]:
            async with at_once, session.post(f"{url}/classify", json={"model": "bench", "input": batch}) as response:
                response.raise_for_status()
                items: list[dict[str, Any]] = (await response.json())["data"]
                return items

        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        answers = await asyncio.gather(*[classify(batch) for batch in batches])

    items = [item for answer in answers for item in answer]
    frame["predicted_label"] = [item["label"] for item in items]
    frame["predicted_score"] = [max(item["probs"]) for item in items]
    frame.to_parquet(target)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
