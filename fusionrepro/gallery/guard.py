"""The one place that decides whether a set of fused pictures is dead: that the method made nothing of the pairs.

Dead are pictures that hold NaN, that are flat or nearly so where the sources are not, that show a constant pattern of a network's stride,
or that are the same for different pairs. A copy of a source is alive, and so is the picture of a night with hardly any contrast:
everything is judged against the sources where they are given.
"""

from collections.abc import Mapping

import numpy as np

from fusionrepro.errors import InputError

# Chosen between what real methods, copies and collapsed networks give on every real pair at hand; far from all of them.
FLAT = 0.5  # levels: no more than rounding
GREY = 4.0  # levels of standard deviation: hardly seen; real pictures have at least 5
STRUCTURE = 3.0  # levels of standard deviation that a source must have to be worth fusing
FAINT, FADED = 0.1, 0.25  # shares of the sources' contrast: no picture at all; no picture if it is also below GREY
KEPT = 0.5  # of a source's levels: less is no copy of it
LIKE = 0.15  # of the sources' differences from pair to pair
PATTERN = 0.5  # share of the variance that a pattern explains
PERIODS = (2, 4, 8, 16)  # pixels: strides of the networks here
SAMPLES = 64  # points a side at which pictures of any size are compared


class Watch:
    """Looks at the pictures of one method on one set, one after the other; keeps sums, not pictures."""

    def __init__(self):
        self._names: set[str] = set()
        self._bad: list[str] = []
        self._stds: list[float] = []
        self._contrasts: list[float] = []  # of the sources of the same picture; NaN without
        self._grey: list[bool | None] = []  # None: the sources show nothing either
        self._fused, self._ir, self._vi = _Common(), _Common(), _Common()

    def add(self, name: str, picture: np.ndarray, ir: np.ndarray | None = None, vi: np.ndarray | None = None) -> None:
        """Look at a picture and its sources: (H,W) or (H,W,3), uint8 or floating in 0..1.

        InputError for another shape, for one source without the other, and for a name that was there before.
        """
        if name in self._names:
            raise InputError(f"the picture '{name}' was looked at twice; begin a new Watch for another set.")
        if (ir is None) != (vi is None):
            raise InputError(f"'{name}' has one source; give both ir and vi, or neither.")
        self._names.add(name)
        grey = _levels(name, picture)
        if not np.isfinite(grey).all():
            self._bad.append(name)
            return
        sources = [] if ir is None else [_levels(name, x) for x in (ir, vi)]
        for common, x in zip((self._fused, self._ir, self._vi), (grey, *sources), strict=False):
            common.add(x)
        self._weigh(grey, sources)

    def _weigh(self, grey: np.ndarray, sources: list[np.ndarray]) -> None:
        """Whether a picture is nearly flat: little contrast, and little of either source in it."""
        contrasts = [float(_inner(x).std()) for x in sources]
        std, most = float(_inner(grey).std()), max(contrasts, default=float("nan"))
        self._stds.append(std)
        self._contrasts.append(most)
        if not contrasts:
            self._grey.append(std < GREY)
        elif most < STRUCTURE:
            self._grey.append(None)
        else:
            # A night scene copied from a dark source has little contrast too, but the whole of that source.
            worth = [_points(x) for x, contrast in zip(sources, contrasts, strict=True) if contrast >= STRUCTURE]
            faint = std < FAINT * most or std < min(GREY, FADED * most)
            self._grey.append(faint and max(_gains(_points(grey), worth)) < KEPT)

    def verdict(self) -> str:
        """Empty: alive. Otherwise one sentence that says how the set is dead, with the numbers."""
        return self._not_finite() or self._flat() or self._pattern() or self._same()

    def _not_finite(self) -> str:
        bad = len(self._bad)
        return f"{bad} of {len(self._names)} pictures hold NaN or infinite values ({self._bad[0]} is the first)." if bad else ""

    def _flat(self) -> str:
        decided = [(s, c, g) for s, c, g in zip(self._stds, self._contrasts, self._grey, strict=True) if g is not None]
        dead = [(s, c) for s, c, g in decided if g]
        if not dead or 2 * len(dead) < len(decided):
            return ""
        std, sources = np.median(dead, axis=0)
        kind = "flat" if std < FLAT else "nearly flat"
        beside = "" if np.isnan(sources) else f" where their sources have {sources:.3g}"
        return f"{len(dead)} of {len(self._names)} pictures are {kind}: their standard deviation is {std:.2g} levels{beside}."

    def _pattern(self) -> str:
        """A pattern that starts at the top left corner of every picture and repeats."""
        for period in PERIODS:
            share = self._fused.pattern(period)
            # What a source shows as well, such as a fence, is no fault of the method.
            if share > PATTERN and share > 2 * max(self._ir.pattern(period), self._vi.pattern(period)):
                return f"One pattern that repeats every {period} pixels is {share:.0%} of the variance of all {self._fused.count} pictures."
        return ""

    def _same(self) -> str:
        """Pictures that do not change where their sources do."""
        count, made, prints = self._fused.count, self._fused.spread(), len(self._fused.prints)
        sources = [x for x in (self._ir, self._vi) if x.count == count]
        least = min((x.spread() for x in sources), default=0.0)
        if count < 2 or (sources and least < STRUCTURE):  # the pairs themselves are one scene
            return ""
        # A source may stand in two pairs, so a copy of it may too.
        repeated = sources and 2 * prints <= min(len(x.prints) for x in sources)
        if made >= (LIKE * least if sources else FLAT) and not repeated:
            return ""
        beside = f" where their sources differ by {least:.3g}" if sources else ""
        return f"The pictures of {count} pairs are {prints} different ones, and differ by {made:.2g} levels{beside}."


def why_dead(
    pictures: Mapping[str, np.ndarray], ir: Mapping[str, np.ndarray] | None = None, vi: Mapping[str, np.ndarray] | None = None
) -> str:
    """The verdict on pictures by id, beside their sources by the same ids if given: empty, or one sentence."""
    watch = Watch()
    for name, picture in pictures.items():
        watch.add(name, picture, *(None if x is None else x[name] for x in (ir, vi)))
    return watch.verdict()


class _Common:
    """What pictures have in common, as sums over them."""

    def __init__(self):
        self.count = 0
        self.prints: set[int] = set()  # a hash of every different picture
        self._variance = 0.0  # of all pictures together
        self._phases = {p: np.zeros((p, p)) for p in PERIODS}
        self._sum = np.zeros((SAMPLES, SAMPLES))
        self._squares = np.zeros((SAMPLES, SAMPLES))

    def add(self, picture: np.ndarray) -> None:
        self.count += 1
        self.prints.add(hash((picture.shape, picture.tobytes())))
        inner, points = _inner(picture), _points(picture)
        self._variance += inner.var()
        for period, total in self._phases.items():
            total += _phase_means(inner, period)
        even = points - points.mean()  # brighter all over is not another picture
        self._sum += even
        self._squares += even**2

    def pattern(self, period: int) -> float:
        """Share of the variance that one pattern of this period explains in all pictures, 0..1."""
        return float((self._phases[period] / self.count).var() / (self._variance / self.count)) if self._variance else 0.0

    def spread(self) -> float:
        """Root mean square by which a point differs from picture to picture, in levels."""
        if not self.count:
            return 0.0
        return float(np.sqrt(np.maximum(self._squares / self.count - (self._sum / self.count) ** 2, 0).mean()))


def _levels(name: str, picture: np.ndarray) -> np.ndarray:
    """(H,W) float32 brightness in 0..255 of what is grey or in colour, 8-bit or in 0..1."""
    x = np.asarray(picture)
    if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] != 3) or not x.size:
        raise InputError(f"'{name}' must be a picture of shape (H,W) or (H,W,3), not {x.shape}.")
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"'{name}' must hold uint8 or floating values in 0..1, not {x.dtype}.")
    scaled = x.astype(np.float32) * (1 if x.dtype == np.uint8 else 255)
    return scaled if x.ndim == 2 else scaled @ np.float32([0.299, 0.587, 0.114])


def _inner(x: np.ndarray) -> np.ndarray:
    """Without an eighth at every border, where padding shows; the patterns of all periods still start at its corner."""
    top, left = (n // 8 // max(PERIODS) * max(PERIODS) for n in x.shape)
    return x[top : x.shape[0] - top, left : x.shape[1] - left]


def _points(x: np.ndarray) -> np.ndarray:
    """(SAMPLES,SAMPLES) pixels at the same relative places of a picture of any size; single ones, so that texture counts."""
    rows, cols = (((np.arange(SAMPLES) + 0.5) * n / SAMPLES).astype(int) for n in x.shape)
    return x[np.ix_(rows, cols)].astype(np.float64)


def _phase_means(x: np.ndarray, period: int) -> np.ndarray:
    """(period,period) means over all pixels of a phase; zeros where a picture has less than four periods a side."""
    rows, cols = (n // period for n in x.shape)
    if min(rows, cols) < 4:
        return np.zeros((period, period))
    return x[: rows * period, : cols * period].reshape(rows, period, cols, period).mean(axis=(0, 2), dtype=np.float64)


def _gains(points: np.ndarray, sources: list[np.ndarray]) -> np.ndarray:
    """How many levels a picture rises for one level of each source: least squares on all sources at once."""
    even = np.stack([(x - x.mean()).ravel() for x in sources], axis=1)
    return np.abs(np.linalg.lstsq(even, (points - points.mean()).ravel(), rcond=None)[0])
