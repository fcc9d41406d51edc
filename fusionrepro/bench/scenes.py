"""How many procedural pairs a second one core makes, beside scikit-image's SSIM of such a pair."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from skimage.metrics import structural_similarity

from fusionrepro.data.scenes import scene_dataset


def _seconds(run: Callable, count: int, repeats: int) -> float:
    """Least CPU seconds of one of `count` calls, over `repeats` rounds."""
    rounds = []
    for _ in range(repeats):
        start = time.process_time()
        for k in range(count):
            run(k)
        rounds.append((time.process_time() - start) / count)
    return min(rounds)


def bench_scenes(
    count: int = 24, size: tuple[int, int] = (256, 320), repeats: int = 3
) -> pd.DataFrame:
    """CPU seconds of one pair of `size`, all weathers in turn, and of one SSIM (double precision, Gaussian window)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        scenes = scene_dataset(count + 6, size)
        for k in range(6):  # compiles, and makes the noise tiles
            scenes[count + k]
        pair = scenes[0]
        a, b = (np.float64(x[0].numpy()) for x in (pair.ir, pair.vi))
        ssim = dict(data_range=1.0, gaussian_weights=True, sigma=1.5)
        made = _seconds(scenes.__getitem__, count, repeats)
        yardstick = _seconds(lambda k: structural_similarity(a, b, **ssim), count, repeats)
    finally:
        torch.set_num_threads(threads)
    rows = [("a pair", made), ("SSIM of a pair, scikit-image", yardstick)]
    table = pd.DataFrame(rows, columns=["what", "cpu_s"]).set_index("what")
    table["a second"] = 1 / table.cpu_s
    table["times SSIM"] = table.cpu_s / yardstick
    return table
