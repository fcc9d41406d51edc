"""Five image-fusion papers as runnable notebooks. Start with `fusionrepro.load` and `fusionrepro.fuse`."""

__version__ = "0.1.0"

_LAZY = {"load": "fusionrepro.training.store", "fuse": "fusionrepro.fusing"}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    # torch takes seconds to import: `fusionrepro --help` must not wait for it.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fusionrepro' has no attribute '{name}'")
