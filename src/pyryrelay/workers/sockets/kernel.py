"""What drops jailed sources in the kernel, at the sockets of several workers."""

from __future__ import annotations

from twisted.logger import Logger

from pyryrelay.config.derive import drops_in_kernel
from pyryrelay.config.settings import SharedSettings
from pyryrelay.listen.kernel.drop import KernelDrop, detach
from pyryrelay.workers.sockets.worker_sockets import WorkerSockets

__all__ = ["kernel_drop"]

_log = Logger(namespace="pyryrelay")


def kernel_drop(sockets: WorkerSockets, settings: SharedSettings) -> KernelDrop | None:
    """Return what drops in the kernel, with the privileges that are left; None for nothing."""
    for sock in sockets.handed_down:
        # It may have the filter of a process that had no time to take it off.
        detach(sock)
    missing, wanted = sockets.without_drop_socket, settings.kernel_drop
    if missing and wanted is None and drops_in_kernel(settings):
        _log.info(
            "jailed sources are dropped at accept on {count} of the sockets, not in the kernel: {reason}",
            count=len(missing),
            reason=", ".join(sorted(set(missing.values()))),
        )
    kernel = KernelDrop(sockets.drop_sockets, missing if wanted else ())
    return kernel if kernel.is_on else None
