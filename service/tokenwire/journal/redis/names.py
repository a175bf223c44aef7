"""What runs, tenants and request ids are called in keys: letters that mean nothing to the store."""

import hashlib
from urllib.parse import quote, unquote


def tenant_name(tenant: str) -> str:
    """Returns a tenant's name in keys; no two tenants share one."""
    return quote(tenant, safe="")


def run_name(tenant: str, run_id: str) -> str:
    """Returns a run's name in keys: a run of another tenant has another one, whatever its id."""
    return f"{quote(tenant, safe='')}:{quote(run_id, safe='')}"


def parts(name: str) -> tuple[str, str]:
    """Returns the name of a run's tenant, and the run's id."""
    tenant, _, run_id = name.partition(":")
    return tenant, unquote(run_id)


def request_name(request_id: str) -> str:
    """Returns a request id's name in keys. Clients choose their ids freely, so it tells nothing of them."""
    return hashlib.blake2b(request_id.encode(), digest_size=16).hexdigest() if request_id else ""
