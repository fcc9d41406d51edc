"""Every fusion method by name. A method is built only when it is asked for, so importing costs nothing."""

import inspect
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from fusionrepro.errors import typed, unknown


@dataclass(frozen=True)
class Method:
    """A row of the registry: what a method is and where its code lives."""

    name: str
    title: str
    kind: str  # paper, learned, classic, or control: a copy of a source, which no claim may reward
    year: int
    builder: str  # "module:callable" giving a FusionModel; its keywords are the method's options
    summary: str
    reference: str
    trained: bool = True  # needs weights
    reader: str = ""  # "module:callable" mapping the authors' state dict onto ours; empty: none published
    variants: str = ""  # "module:callable" giving the options that the authors' state dict asks for; empty: the defaults
    published: tuple[str, ...] = ()  # sets of public weights that data_manifests/baselines.yaml lists, the default first
    medical: bool = False  # made for medical pairs alone
    slow: bool = False  # several seconds to minutes for a 640x480 pair: only long runs take it along

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

    def authors_options(self, state: dict) -> dict[str, object]:
        """The options with which the authors' program runs the weights of this public state dict."""
        return self._object(self.variants)(state) if self.variants else {}


_METHODS = (
    Method("a2rnet", "A2RNet", "paper", 2025, "fusionrepro.a2rnet.model:A2RNet",
           "U-Net with defensive refinement modules, trained against PGD", "Li et al., AAAI 2025",
           reader="fusionrepro.a2rnet.model:read_authors"),
    Method("smfnet", "SMFNet", "paper", 2024, "fusionrepro.smfnet.model:SMFNet",
           "auto-encoder with a base, a detail and a graph branch, trained to reconstruct, then to fuse", "Zhang et al., arXiv 2024",
           reader="fusionrepro.smfnet.model:read_authors", variants="fusionrepro.smfnet.model:authors_options"),
    Method("daefuse", "DAE-Fuse", "paper", 2024, "fusionrepro.daefuse.model:DAEFuse",
           "auto-encoder with attention across modalities, trained against two discriminators in two phases", "Guo et al., arXiv 2024"),
    Method("msfam", "MSFAM", "paper", 2022, "fusionrepro.msfam.model:MSFAM",
           "NestFuse's auto-encoder with learned attention between its halves, trained in stages", "Zheng et al., Sensors 2022"),
    Method("derun", "DeRUN", "paper", 2023, "fusionrepro.derun.model:DeRUN",
           "nine unfolded rounds of a solver, learned filters and thresholds, against haze, dark and noise", "He et al., ICCV 2023"),
    Method("average", "Average", "classic", 1980, "fusionrepro.baselines.simple:Average",
           "the mean of both sources", "textbook", trained=False),
    Method("maximum", "Maximum", "classic", 1980, "fusionrepro.baselines.simple:Maximum",
           "the brighter source at every pixel", "textbook", trained=False),
    Method("laplacian", "Laplacian pyramid", "classic", 1983, "fusionrepro.baselines.simple:LaplacianPyramid",
           "max-abs detail bands over an averaged base", "Burt & Adelson, IEEE Trans. Commun. 1983", trained=False),
    Method("tif", "TIF", "classic", 2016, "fusionrepro.baselines.tif:TIF",
           "a wide mean for the base; for the detail the source that stands out", "Bavirisetti & Dhuli, Infrared Phys. Technol. 2016", trained=False),
    Method("adf", "ADF", "classic", 2016, "fusionrepro.baselines.adf:ADF",
           "anisotropic diffusion for the base, Karhunen-Loeve weights for the details", "Bavirisetti & Dhuli, IEEE Sensors J. 2016", trained=False),
    Method("fpde", "FPDE", "classic", 2017, "fusionrepro.baselines.fpde:FPDE",
           "fourth-order diffusion for the base, Karhunen-Loeve weights for the details", "Bavirisetti et al., FUSION 2017", trained=False),
    Method("gff", "GFF", "classic", 2013, "fusionrepro.baselines.gff:GFF",
           "a hard choice that guided filters bend to the edges", "Li et al., IEEE TIP 2013", trained=False),
    Method("hybrid_msd", "Hybrid_MSD", "classic", 2016, "fusionrepro.baselines.hybrid_msd:HybridMSD",
           "texture and edges apart by Gaussian and bilateral filters", "Zhou et al., Information Fusion 2016", trained=False),
    Method("wavelet", "Wavelet", "classic", 1995, "fusionrepro.baselines.multiscale:Wavelet",
           "max-abs wavelet coefficients over an averaged base", "Li et al., Graph. Models Image Process. 1995", trained=False),
    Method("nsct", "NSCT", "classic", 2006, "fusionrepro.baselines.multiscale:NSCT",
           "max-abs contourlet coefficients, without decimation, over an averaged base", "da Cunha et al., IEEE TIP 2006", trained=False),
    Method("laplacian_sr", "LP_SR", "classic", 2015, "fusionrepro.baselines.sparse:LaplacianSR",
           "Laplacian pyramid; the base's patches by sparse codes", "Liu et al., Information Fusion 2015", trained=False),
    Method("wavelet_sr", "DWT_SR", "classic", 2015, "fusionrepro.baselines.sparse:WaveletSR",
           "wavelets; the base's patches by sparse codes", "Liu et al., Information Fusion 2015", trained=False),
    Method("nsct_sr", "NSCT_SR", "classic", 2015, "fusionrepro.baselines.sparse:NSCTSR",
           "contourlets; the base's patches by sparse codes", "Liu et al., Information Fusion 2015", trained=False),
    Method("papcnn", "NSST-PAPCNN", "classic", 2019, "fusionrepro.baselines.papcnn:PAPCNN",
           "medical: shearlets, chosen by pulse-coupled neurons", "Yin et al., IEEE TIM 2019", trained=False, medical=True),
    Method("csmca", "CSMCA", "classic", 2019, "fusionrepro.baselines.csmca:CSMCA",
           "medical: convolutional sparse codes of cartoon and texture", "Liu et al., IEEE SPL 2019", trained=False, medical=True, slow=True),
    Method("nestfuse", "NestFuse", "learned", 2020, "fusionrepro.baselines.nestfuse:NestFuse",
           "auto-encoder with a nested decoder and a fusion rule made by hand", "Li et al., IEEE TIM 2020",
           reader="fusionrepro.baselines.nestfuse:read_authors"),
    Method("densefuse", "DenseFuse", "learned", 2019, "fusionrepro.baselines.densefuse:DenseFuse",
           "auto-encoder with a dense block; the encodings are added", "Li & Wu, IEEE TIP 2019",
           reader="fusionrepro.baselines.densefuse:read_authors", variants="fusionrepro.baselines.densefuse:authors_options", published=("tensorflow", "pytorch")),
    Method("seafusion", "SeAFusion", "learned", 2022, "fusionrepro.baselines.seafusion:SeAFusion",
           "dense blocks with a Sobel filter beside them, trained in the loop of a segmenter", "Tang et al., Information Fusion 2022",
           reader="fusionrepro.baselines.seafusion:read_authors", published=("published",)),
    Method("u2fusion", "U2Fusion", "learned", 2022, "fusionrepro.baselines.u2fusion:U2Fusion",
           "one dense network, trained by how much information each source has", "Xu et al., TPAMI 2022",
           reader="fusionrepro.baselines.u2fusion:read_authors", published=("published",)),
    Method("didfuse", "DIDFuse", "learned", 2020, "fusionrepro.baselines.didfuse:DIDFuse",
           "auto-encoder that splits pictures into base and detail", "Zhao et al., IJCAI 2020",
           reader="fusionrepro.baselines.didfuse:read_authors", published=("published",)),
    Method("lrrnet", "LRRNet", "learned", 2023, "fusionrepro.baselines.lrrnet:LRRNet",
           "unrolled iterations for low-rank and sparse codes", "Li et al., TPAMI 2023",
           reader="fusionrepro.baselines.lrrnet:read_authors", published=("published",)),
    Method("ifcnn", "IFCNN", "learned", 2020, "fusionrepro.baselines.ifcnn:IFCNN",
           "ImageNet filters and the larger of two responses", "Zhang et al., Information Fusion 2020",
           reader="fusionrepro.baselines.ifcnn:read_authors", published=("published",)),
    Method("sdnet", "SDNet", "learned", 2021, "fusionrepro.baselines.sdnet:SDNet",
           "squeezes two sources into one picture that can be split again", "Zhang & Ma, IJCV 2021",
           reader="fusionrepro.baselines.sdnet:read_authors", published=("infrared", "medical")),
    Method("pmgi", "PMGI", "learned", 2020, "fusionrepro.baselines.pmgi:PMGI",
           "a gradient path and an intensity path that talk to each other", "Zhang et al., AAAI 2020",
           reader="fusionrepro.baselines.pmgi:read_authors", published=("infrared", "medical")),
    Method("matr", "MATR", "learned", 2022, "fusionrepro.baselines.matr:MATR",
           "medical: kernels gated by the picture, a pointwise transformer", "Tang et al., IEEE TIP 2022",
           reader="fusionrepro.baselines.matr:read_authors", published=("published",), medical=True),
    Method("tardal", "TarDAL", "learned", 2022, "fusionrepro.baselines.tardal:TarDAL",
           "a dense generator between a target and a detail discriminator (weights: GPL-3.0)", "Liu et al., CVPR 2022",
           reader="fusionrepro.baselines.tardal:read_authors", variants="fusionrepro.baselines.tardal:authors_options", published=("tardal",)),
    Method("reconet", "ReCoNet", "learned", 2022, "fusionrepro.baselines.reconet:ReCoNet",
           "three rounds of one small network", "Huang et al., ECCV 2022",
           reader="fusionrepro.baselines.reconet:read_authors", published=("published",)),
    Method("dualbranch", "DualBranch", "learned", 2020, "fusionrepro.baselines.dualbranch:DualBranch",
           "auto-encoder with a detail and a semantic branch", "Fu & Wu, ICPR 2020",
           reader="fusionrepro.baselines.dualbranch:read_authors", published=("published",)),
    Method("rfnnest", "RFN-Nest", "learned", 2021, "fusionrepro.baselines.rfnnest:RFNNest",
           "NestFuse's auto-encoder with a learned residual fusion at every scale", "Li et al., Information Fusion 2021",
           reader="fusionrepro.baselines.rfnnest:read_authors"),
    Method("cddfuse", "CDDFuse", "learned", 2023, "fusionrepro.baselines.cddfuse:CDDFuse",
           "attention for what the sources share, an invertible network for the rest", "Zhao et al., CVPR 2023",
           reader="fusionrepro.baselines.cddfuse:read_authors"),
    Method("mmdrfuse", "MMDRFuse", "learned", 2024, "fusionrepro.baselines.mmdrfuse:MMDRFuse",
           "two convolutions with 113 numbers, distilled from a large network", "Deng et al., ACM MM 2024",
           reader="fusionrepro.baselines.mmdrfuse:read_authors", published=("published",)),
    Method("gesenet", "GeSeNet", "learned", 2023, "fusionrepro.baselines.gesenet:GeSeNet",
           "medical: Sobel filters for edges, learned masks for regions", "Li et al., IEEE TNNLS 2023",
           reader="fusionrepro.baselines.gesenet:read_authors", published=("published",), medical=True),
    Method("copy_ir", "Copy of the infrared", "control", 1980, "fusionrepro.baselines.simple:CopyInfrared",
           "control: the first source as it is", "no method", trained=False),
    Method("copy_vi", "Copy of the visible", "control", 1980, "fusionrepro.baselines.simple:CopyVisible",
           "control: the second source as it is", "no method", trained=False),
)  # fmt: skip
METHODS = {m.name: m for m in _METHODS}


@typed
def method(name: str) -> Method:
    """The method of that name; InputError with the nearest name otherwise."""
    if name not in METHODS:
        raise unknown("model", name, METHODS)
    return METHODS[name]


@cache
def titles(kind: str) -> frozenset[str]:
    """How the rows of a table call the methods of a kind: their titles, and their names in the registry."""
    return frozenset(text for m in METHODS.values() if m.kind == kind for text in (m.name, m.title))
