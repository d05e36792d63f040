"""The kinds of findings that every relay may have, and their severity. PURE.

Protocols have checks of their own; see `pyryrelay.protocol_options.ProtocolOptions.checks`.
"""

from __future__ import annotations

from typing import Final

from pyryrelay.config.sources import SettingsError
from pyryrelay.protocol_options import Check, Finding, Severity

__all__ = ["CHECKS", "found_by"]

_ERROR, _CONFLICT, _WARNING, _NOTE = Severity

NO_PROTOCOL: Final = Check("no-protocol", _ERROR, "No protocol is turned on, so there is nothing to serve.")
UNKNOWN_CHECK: Final = Check("unknown-check", _ERROR, "`--accept-finding` names a check that does not exist.")
TWISTD_FOLDER: Final = Check("twistd-folder", _ERROR, "A folder that an option of `twistd` names does not exist.")
ENDPOINT: Final = Check("endpoint", _ERROR, "An endpoint cannot be listened on: it is taken, or not permitted.")
ENDPOINT_HELD: Final = Check("endpoint-held", _NOTE, "A running relay listens on the endpoint, as before a reload.")
ROOT: Final = Check("root", _WARNING, "The relay runs as root, and goes on as root: neither `--uid` nor `User=`.")
CAPABILITIES: Final = Check("capabilities", _WARNING, "The process has capabilities that these settings do not need.")
OPEN_FILES: Final = Check("open-files", _WARNING, "Fewer files may be open than the caps on connections need.")
PLAIN_LISTENER: Final = Check(
    "plain-listener", _WARNING, "Clients from outside connect without TLS, and no proxy is trusted that could have it."
)
FORGED_ADDRESSES: Final = Check(
    "forged-addresses", _WARNING, "Headers of any peer are believed, so clients choose the address that is counted."
)
NO_ADDRESSES: Final = Check("no-addresses", _WARNING, "Peers of a UNIX socket have no address, so all are refused.")
ONE_WORKER: Final = Check(
    "one-worker", _WARNING, "The connections of a proxy cannot be spread over the workers as their limits need it."
)
UNKNOWN_HEADER: Final = Check("unknown-header", _WARNING, "The header with the client address may be misspelt.")
TRANSLATED_LIST: Final = Check("translated-list", _WARNING, "A listed network holds clients that count as IPv4.")
CERTIFICATE: Final = Check("certificate", _WARNING, "Clients refuse the certificate of an endpoint.")
CERTIFICATE_EXPIRES: Final = Check("certificate-expires", _NOTE, "A certificate expires within 14 days.")
UNUSED_CERTIFICATE: Final = Check("unused-certificate", _WARNING, "A certificate is given, and no endpoint speaks TLS.")
ACME_UNUSED: Final = Check("acme-unused", _WARNING, "No endpoint would use the certificate that `--acme` gets.")
ACME_LIBRARY: Final = Check("acme-library", _ERROR, "`--acme` needs the package `acme`, which is not installed.")
ACME_CACHE: Final = Check("acme-cache", _ERROR, "The folder of `--acme` cannot be used, or others can read its keys.")
CLUSTER_LIBRARY: Final = Check(
    "cluster-library", _ERROR, "`--cluster` needs the package `hiredis`, which is not installed."
)
CLUSTER_SERVER: Final = Check("cluster-server", _WARNING, "A server of `--cluster` cannot be used now.")
CLUSTER_CLOCK: Final = Check("cluster-clock", _WARNING, "The clock of a server of `--cluster` differs from this one.")
CLUSTER_PERMISSIONS: Final = Check(
    "cluster-permissions", _WARNING, "The user of `--cluster` may not use all commands that the relay needs."
)
CLUSTER_EVICTION: Final = Check(
    "cluster-eviction", _WARNING, "A server of `--cluster` may forget limits when its memory is full."
)
CLUSTER_ADVERTISE: Final = Check(
    "cluster-advertise", _WARNING, "A connection to `--cluster-advertise` does not come to `--cluster-listen`."
)
CLUSTER_EXPOSED: Final = Check(
    "cluster-exposed", _WARNING, "Others than the instances of a cluster can reach `--cluster-listen`, or listen in."
)
READABLE_SECRET: Final = Check("readable-secret", _WARNING, "Every user of this machine can read a file with a secret.")
UNWRITABLE: Final = Check("unwritable", _WARNING, "The relay's user may not write where files have to be written.")
JAIL_FILE: Final = Check("jail-file", _WARNING, "The file of the jail cannot be used, so a restart forgets bans.")
NATIVE: Final = Check("native", _WARNING, "A part in C is missing (unmasking, UTF-8 check), which costs CPU time.")
CLOCK: Final = Check(
    "clock", _WARNING, "The clock is not synchronised, so certificates and time stamps are judged wrongly."
)

CHECKS: Final = (
    NO_PROTOCOL,
    UNKNOWN_CHECK,
    TWISTD_FOLDER,
    ENDPOINT,
    ENDPOINT_HELD,
    ROOT,
    CAPABILITIES,
    OPEN_FILES,
    PLAIN_LISTENER,
    FORGED_ADDRESSES,
    NO_ADDRESSES,
    ONE_WORKER,
    UNKNOWN_HEADER,
    TRANSLATED_LIST,
    CERTIFICATE,
    CERTIFICATE_EXPIRES,
    UNUSED_CERTIFICATE,
    ACME_UNUSED,
    ACME_LIBRARY,
    ACME_CACHE,
    CLUSTER_LIBRARY,
    CLUSTER_SERVER,
    CLUSTER_CLOCK,
    CLUSTER_PERMISSIONS,
    CLUSTER_EVICTION,
    CLUSTER_ADVERTISE,
    CLUSTER_EXPOSED,
    READABLE_SECRET,
    UNWRITABLE,
    JAIL_FILE,
    NATIVE,
    CLOCK,
)


def found_by(check: Check, error: SettingsError) -> Finding:
    """Return the finding that an error about a setting is."""
    return Finding(check, f"--{error.option} (from {error.source})", error.problem, error.fix)
