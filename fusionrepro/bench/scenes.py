"""How many procedural pairs a second one core makes, beside scikit-image's SSIM of such a pair."""

import numpy as np
import pandas as pd
import torch
from skimage.metrics import structural_similarity

from fusionrepro.bench.metrics import seconds
from fusionrepro.data.scenes import scene_dataset


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
        cpu = torch.device("cpu")
        made = seconds(lambda: scenes[:count], repeats, cpu)[0] / count
        yardstick = seconds(lambda: [structural_similarity(a, b, **ssim) for _ in range(count)], repeats, cpu)[0] / count
    finally:
        torch.set_num_threads(threads)
    rows = [("a pair", made), ("SSIM of a pair, scikit-image", yardstick)]
    table = pd.DataFrame(rows, columns=["what", "cpu_s"]).set_index("what")
    table["a second"] = 1 / table.cpu_s
    table["times SSIM"] = table.cpu_s / yardstick
    return table
