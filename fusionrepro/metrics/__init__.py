"""Every measure of the five papers, in each convention in use: see `evaluate`."""

from fusionrepro.metrics.evaluate import DEFAULT_METRICS, METRICS, PRESETS, Metric, Preset, convention, evaluate, metric, preset

__all__ = ["DEFAULT_METRICS", "METRICS", "PRESETS", "Metric", "Preset", "convention", "evaluate", "metric", "preset"]
