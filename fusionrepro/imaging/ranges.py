"""Which grey levels of a first source become black and white: thermal cameras use few of their 65,536."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusionrepro.errors import InputError

__all__ = ["Range"]

_AUTO = (0.1, 99.9)  # percentiles: single hot or dead pixels do not make a range
_SAMPLES = 1 << 24  # of all pictures of a set together


@dataclass(frozen=True)
class Range:
    """Two limits, in the file's own units or as percentiles."""

    given: str  # as the user wrote it
    low: float
    high: float
    percent: bool

    @classmethod
    def parse(cls, given: "str | Sequence[float] | Range | None") -> "Range | None":
        """`auto`, `LOW:HIGH`, `P%:P%` or two numbers; InputError for anything else."""
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, str):
            if given.strip().lower() == "auto":
                return cls("auto", *_AUTO, True)
            number = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
            match = re.fullmatch(rf"{number}(%?)\s*:{number}(%?)\s*", given)
            low, high, percent = (float(match[1]), float(match[3]), match[2]) if match and match[2] == match[4] else (1.0, 0.0, "")
        else:
            try:
                low, high = (float(v) for v in given)
            except (TypeError, ValueError):
                low, high = 1.0, 0.0
            percent, match = "", None
        inside = 0 <= low and high <= 100 if percent else math.isfinite(low) and math.isfinite(high)
        if not (low < high and inside):
            raise InputError(f"the infrared range must be auto, LOW:HIGH such as 7600:8000, or percentiles such as 1%:99%, not {given!r}.")
        return cls(given if isinstance(given, str) else f"{low:g}:{high:g}", low, high, bool(percent))

    def limits(self, readers: Sequence[Callable[[], np.ndarray]]) -> tuple[float, float]:
        """The two limits for pictures that `readers` give as samples: percentiles over all of them together."""
        if not self.percent:
            return self.low, self.high
        share = max(1024, _SAMPLES // max(len(readers), 1))
        found = []
        for read in readers:
            x = read().ravel()
            found.append(x[:: max(1, x.size // share)])
        samples = np.concatenate(found)
        samples = samples[np.isfinite(samples)]
        low, high = np.percentile(samples, [self.low, self.high]) if samples.size else (0, 0)
        if low == high:  # hardly anything but one level: what there is at all
            low, high = (samples.min(), samples.max()) if samples.size else (0, 0)
        if low == high:
            raise InputError(f"the infrared is flat ({low:g} throughout), so no range can be taken from it.")
        return float(low), float(high)
