# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`make soak`: runs that are killed many times end with the weights of unbroken ones, bit for bit.

Two chains at once: one process with two data workers that streams from a Hub on loopback, and two gloo processes that
stream local shards with a worker each. Prints what was killed when, and ends with 1 if a bit differs.

usage: soak.py [--kills 30] [--processes_kills 10] [--seed 0]
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import forked
from helpers.loopback_hub import LoopbackHub


def chain(folder: Path, options: dict, processes: int, kills: int, seed: int, environment: dict) -> dict:
    """An unbroken run and a killed one; what happened to the second."""
    options |= {"config": forked.write_recipe(folder / "recipe.yaml", fraction=None, epochs=None)}
    options |= {"streaming": True, "max_steps": 10 + 3 * kills, "save_every": 1, "log_every": 1}
    jobs = [
        {"name": "unbroken", "options": options},
        {"name": "run", "options": options, "kills": kills, "seed": seed},
    ]
    unbroken, run = forked.work_off(folder, [job | {"processes": processes} for job in jobs], 3600, **environment)
    assert unbroken["codes"] == run["codes"] == [0] * processes, (unbroken, run)
    assert len(run["kills"]) == kills, run
    same = forked.final_weights(folder / "run") == forked.final_weights(folder / "unbroken")
    return run | {"steps": options["max_steps"], "identical": same}


def told(name: str, result: dict) -> str:
    seen = Counter("none" if steps == 0 else "some" for steps in result["kills"])
    verdict = "bit-identical" if result["identical"] else "DIFFERENT"
    return (
        f"{name}: {len(result['kills'])} kills in {result['seconds']:.0f} s, {seen['none']} of them before a step, "
        f"the last after all {result['steps']}; weights {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30, help="of the run with one process")
    parser.add_argument("--processes_kills", type=int, default=10, help="of the run with two")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folders = [Path(name) / part for part in ("hub", "files")]
        shards = [forked.write_shards(folder / "data") for folder in folders]
        with LoopbackHub(home=Path(name) / "home") as hub:
            hub.upload("me/digits", {f"data/{file}": content for file, content in shards[0].items()}, kind="dataset")
            streamed = {"dataset": "me/digits", "num_workers": 2}
            local = {"dataset": str(folders[1] / "data" / "*.parquet"), "num_workers": 1}
            chains = {
                "Hub stream, 1 process, 2 workers": pool.submit(
                    chain, folders[0], streamed, 1, chosen.kills, chosen.seed, hub.environment()
                ),
                "local stream, 2 processes, 1 worker each": pool.submit(
                    chain, folders[1], local, 2, chosen.processes_kills, chosen.seed + 1, {}
                ),
            }
            results = {title: future.result() for title, future in chains.items()}
    print("\n".join(told(title, result) for title, result in results.items()))
    kills = sum(len(result["kills"]) for result in results.values())
    print(f"{kills} kills, {time.monotonic() - started:.0f} s in all")
    sys.exit(0 if all(result["identical"] for result in results.values()) else 1)


if __name__ == "__main__":
    main()
