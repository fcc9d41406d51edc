"""Five image-fusion papers as runnable notebooks: tables and figures beside the papers' own numbers

Modules:

- `fusionrepro.baselines.verify`: `fusionrepro verify`: our pictures beside those that the authors, or the keepers of a benchmark, published.
- `fusionrepro.bench.models`: `fusionrepro bench models`: parameters, arithmetic, time and memory of fusion models.
- `fusionrepro.bench.published.a2rnet`: A2RNet as its authors' program runs it, step by step and unfused.
- `fusionrepro.data.build_manifests`: Maintainer's tool: write the file lists of the manifests from a folder with the data sets.
- `fusionrepro.data.download`: Fetching data sets and checking what is on disk.
- `fusionrepro.data.manifests`: Data sets by name: what they are, where they lie, and what to do when they are not there.
- `fusionrepro.data.published`: What other authors published: weights of their networks, fused pictures and the sources of these.
- `fusionrepro.gallery.entry`: One exhibit: what one method with certain weights made of one data set under one condition, on disk.
- `fusionrepro.gallery.guard`: The one place that decides whether a set of fused pictures is dead: that the method made nothing of the pairs.
- `fusionrepro.reproduction.job`: One notebook, executed by papermill in a process of its own: `python -m fusionrepro.reproduction.job JOB.json`.
- `fusionrepro.reproduction.recorded`: What runs have left behind: their folders under runs_path, and the runs that are kept with the repository as numbers.
- `fusionrepro.reproduction.run`: One run of a reproduction notebook: its recipe, its folder, and everything that it records.
- `fusionrepro.reproduction.ship`: Maintainer's tool: keep what runs gave. `python -m fusionrepro.reproduction.ship RUN_FOLDER ... [--network [--pairs N]]`
- `fusionrepro.training.tf1`: Reading TensorFlow-1 checkpoints without TensorFlow, and without running anything that a file might contain."""

__version__ = "0.1.0"

_LAZY = {"load": "fusionrepro.training.store", "fuse": "fusionrepro.fusing"}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    # torch takes seconds to import: `fusionrepro --help` must not wait for it.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fusionrepro' has no attribute '{name}'")
