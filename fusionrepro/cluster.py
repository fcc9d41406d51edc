"""A Dask cluster, where the user has one."""

from fusionrepro.errors import FusionReproError


def connect(address: str):
    """A Dask client; FusionReproError in one sentence where there is no scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise FusionReproError("a cluster needs Dask: pip install 'fusionrepro[cluster]'.") from None
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError, TypeError) as e:
        raise FusionReproError(f"no Dask scheduler answers at {address} ({type(e).__name__}); start one with `dask scheduler` and give its address.") from None
    if not client.scheduler_info()["workers"]:
        client.close()
        raise FusionReproError(f"the Dask scheduler at {address} has no workers; start some with `dask worker {address} --nthreads 1`.")
    return client
