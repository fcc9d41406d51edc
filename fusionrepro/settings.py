"""Run-time settings: `settings.ini` of the project, overridden by `FUSIONREPRO_*` in the environment."""

import os
import platform
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fusionrepro.errors import InputError, notice, typed, unknown

_DEFAULTS = {
    "nbs_path": "nbs",
    "manifests_path": "data_manifests",
    "results_path": "results",
    "runs_path": "runs",
    "cache_path": "",
    "data_root": "",
}
_ENV = {"data_root": "FUSIONREPRO_DATA"}
_VARIABLES = ("FUSIONREPRO_DATA", "FUSIONREPRO_ORACLES", "FUSIONREPRO_MIRROR", *(f"FUSIONREPRO_{k.upper()}" for k in _DEFAULTS if k not in _ENV))
_FOLDERS = tuple(v for v in _VARIABLES if v.endswith(("_PATH", "_DATA", "_ORACLES")))


@dataclass(frozen=True)
class Profile:
    """How much of a reproduction is computed."""

    name: str
    device: str  # cpu, cuda or auto
    threads: int  # torch threads; 0: torch's own choice
    cell_timeout: int  # seconds a notebook cell may take
    limit: int  # test pairs a data set; 0: all
    side: int  # attacked pairs are shrunk to this longer side, in pixels; 0: their own size
    minutes: float = 0  # of filling the gallery with other methods' pictures; 0: until all is there


@cache
def root() -> Path:
    """The project's folder: the nearest one above the package or the working folder with a settings.ini."""
    for start in (Path(__file__).resolve().parent, Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "settings.ini").is_file() and (folder / "data_manifests").is_dir():
                return folder
    return Path.cwd()


@cache
def _parser() -> ConfigParser:
    parser = ConfigParser(defaults=_DEFAULTS, inline_comment_prefixes=(";",))
    parser.read(root() / "settings.ini", encoding="utf-8")
    return parser


@cache
def _say_unknown() -> None:
    """A word on each FUSIONREPRO_* variable that nothing reads; once."""
    known = {*_VARIABLES, *(f"FUSIONREPRO_{k.upper()}" for k in _parser().defaults() if k not in _ENV)}
    for name in sorted(n for n in os.environ if n.startswith("FUSIONREPRO_") and n not in known):
        notice(f"the environment sets {name}, which nothing reads: {unknown('variable', name, known)}")


def settle_paths() -> None:
    """Relative folders in the environment count from where the user stands: said here once, so that they mean the same in every kernel."""
    for name in _FOLDERS:
        if (value := os.environ.get(name, "")) and not Path(value).expanduser().is_absolute():
            os.environ[name] = str(Path(value).absolute())


@typed
def get(key: str) -> str:
    """One setting as text: the environment first, then settings.ini, then the default."""
    _say_unknown()
    if value := os.environ.get(_ENV.get(key, f"FUSIONREPRO_{key.upper()}"), ""):
        return value
    return _parser().defaults().get(key, "")


@typed
def path(key: str) -> Path:
    """A setting as an absolute path; a relative one counts from where the user stands, or in settings.ini from the project's folder."""
    return _base(key) / Path(get(key)).expanduser()


def _base(key: str) -> Path:
    """What a relative folder counts from."""
    return Path.cwd() if os.environ.get(_ENV.get(key, f"FUSIONREPRO_{key.upper()}")) else root()


@typed
def data_root(given: str | Path | None = None) -> Path | None:
    """The folder with real data sets: the argument, FUSIONREPRO_DATA or settings.ini; None when unset.

    Raises
    ------
    InputError
        when it is set but is no folder.
    """
    chosen = str(given or "") or get("data_root")
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    folder = folder if folder.is_absolute() or folder.is_dir() else root() / folder
    if not folder.is_dir():
        raise InputError(f"the data root '{chosen}' is no folder; set data_root or FUSIONREPRO_DATA to one, or leave it empty.")
    return folder.resolve()


def cache_dir() -> Path:
    """Where downloads go: `cache_path`, or the user's cache folder."""
    if chosen := get("cache_path"):
        return _base("cache_path") / Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fusionrepro"


def profiles() -> tuple[str, ...]:
    """The names of the profiles, smallest first as settings.ini lists them."""
    return tuple(s.removeprefix("profile.") for s in _parser().sections() if s.startswith("profile."))


@typed
def profile(name: str) -> Profile:
    """The profile of that name; InputError with the nearest name otherwise."""
    if name not in profiles():
        raise unknown("profile", name, profiles())
    section = _parser()[f"profile.{name}"]
    return Profile(
        name,
        section.get("device", "auto"),
        section.getint("threads", 0),
        section.getint("cell_timeout", 600),
        section.getint("limit", 0),
        section.getint("side", 0),
        section.getfloat("minutes", 0),
    )


@typed
def device(choice: str = "auto"):
    """`auto`, `cpu`, `cuda` or `cuda:N` as a torch device; `auto` takes a GPU where there is one."""
    import torch

    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(choice)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device '{choice}': use auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{choice}' asked for, but torch finds no GPU here; use auto or cpu.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{choice}' asked for, but there are only {torch.cuda.device_count()} GPUs.")
    return chosen


def processor() -> str:
    """What the processor of this machine calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
