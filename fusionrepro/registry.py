"""Every fusion method by name. A method is built only when it is asked for, so importing costs nothing."""

import inspect
from dataclasses import dataclass
from importlib import import_module

from fusionrepro.errors import unknown


@dataclass(frozen=True)
class Method:
    """A row of the registry: what a method is and where its code lives."""

    name: str
    title: str
    kind: str  # paper, learned or classic
    year: int
    builder: str  # "module:callable" giving a FusionModel; its keywords are the method's options
    summary: str
    reference: str
    trained: bool = True  # needs weights
    reader: str = ""  # "module:callable" mapping the authors' state dict onto ours; empty: none published

    def _object(self, address: str):
        module, name = address.split(":")
        return getattr(import_module(module), name)

    @property
    def options(self) -> dict[str, object]:
        """The method's options and their defaults."""
        parameters = inspect.signature(self._object(self.builder)).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}

    def build(self, **options):
        """An untrained FusionModel; InputError for an option that the method has not."""
        for name in options:
            if name not in self.options:
                raise unknown(f"option of {self.name}", name, self.options)
        return self._object(self.builder)(**options)

    def read_authors(self, state: dict) -> dict:
        """The authors' public state dict with our names."""
        return self._object(self.reader)(state)


_METHODS = (
    Method("a2rnet", "A2RNet", "paper", 2025, "fusionrepro.a2rnet.model:A2RNet",
           "U-Net with defensive refinement modules, trained against PGD", "Li et al., AAAI 2025",
           reader="fusionrepro.a2rnet.model:read_authors"),
    Method("average", "Average", "classic", 1980, "fusionrepro.baselines.simple:Average",
           "the mean of both sources", "textbook", trained=False),
    Method("maximum", "Maximum", "classic", 1980, "fusionrepro.baselines.simple:Maximum",
           "the brighter source at every pixel", "textbook", trained=False),
    Method("laplacian", "Laplacian pyramid", "classic", 1983, "fusionrepro.baselines.simple:LaplacianPyramid",
           "max-abs detail bands over an averaged base", "Burt & Adelson, IEEE Trans. Commun. 1983", trained=False),
)  # fmt: skip
METHODS = {m.name: m for m in _METHODS}


def method(name: str) -> Method:
    """The method of that name; InputError with the nearest name otherwise."""
    if name not in METHODS:
        raise unknown("model", name, METHODS)
    return METHODS[name]
