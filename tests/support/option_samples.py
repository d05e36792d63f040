"""A value other than the default for each option."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.nostr_option_samples import NOSTR_SAMPLES

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet, Nat64Prefix
from pyryrelay.guard.rate.quota import ByteQuota, Quota

NETWORK = CidrSet(["192.0.2.0/24"])

# Option: (text, TOML value, field, value).
SAMPLES: Mapping[str, tuple[str, object, str, object]] = {
    "listen": ("tcp:1 tcp:2", ["tcp:1", "tcp:2"], "listen", ("tcp:1", "tcp:2")),
    "drain-over": ("2.5", 2.5, "drain_over_s", 2.5),
    "pyry": ("false", False, "pyry", False),
    "certificate": (
        "/etc/live/a /etc/b.pem:/etc/b.key",
        ["/etc/live/a", "/etc/b.pem:/etc/b.key"],
        "certificate",
        (CertificatePlace.parse("/etc/live/a"), CertificatePlace.parse("/etc/b.pem:/etc/b.key")),
    ),
    "host": ("A.example.org *.b.test", ["A.example.org", "*.b.test"], "host", ("a.example.org", "*.b.test")),
    "workers": ("4", 4, "workers", 4),
    "acme": ("a.example b.example", ["a.example", "b.example"], "acme", ("a.example", "b.example")),
    "acme-directory": ("https://ca.example/dir", "https://ca.example/dir", "acme_directory", "https://ca.example/dir"),
    "acme-cache": ("/var/acme", "/var/acme", "acme_cache", "/var/acme"),
    "acme-email": ("me@example.org", "me@example.org", "acme_email", "me@example.org"),
    "admin-listen": ("unix:/a", "unix:/a", "admin_listen", "unix:/a"),
    "admin-token-file": ("/t", "/t", "admin_token_file", "/t"),
    "admin-host": ("a.example b", ["a.example", "b"], "admin_host", ("a.example", "b")),
    "trust-x-forwarded-for": ("true", True, "trust_x_forwarded_for", True),
    "client-address-header": ("forwarded", "forwarded", "client_address_header", "forwarded"),
    "proxy-protocol": ("true", True, "proxy_protocol", True),
    "trusted-proxy": (
        "10.0.0.0/8 unix",
        ["10.0.0.0/8", "unix"],
        "trusted_proxy",
        TrustedProxies(CidrSet(["10.0.0.0/8"]), unix=True),
    ),
    "ipv6-prefix": ("56", 56, "ipv6_prefix", 56),
    "nat64-prefix": (
        "64:ff9b:1::/48 2001:db8:64::/96",
        ["64:ff9b:1::/48", "2001:db8:64::/96"],
        "nat64_prefix",
        (Nat64Prefix.parse("64:ff9b:1::/48"), Nat64Prefix.parse("2001:db8:64::/96")),
    ),
    "allow": ("192.0.2.0/24 ::1", ["192.0.2.0/24", "::1"], "allow", CidrSet(["192.0.2.0/24", "::1"])),
    "deny": ("192.0.2.0/24", ["192.0.2.0/24"], "deny", NETWORK),
    "allow-file": ("/a /b", ["/a", "/b"], "allow_file", ("/a", "/b")),
    "deny-file": ("a.txt", ["a.txt"], "deny_file", ("a.txt",)),
    "max-tracked": ("1000", 1000, "max_tracked", 1000),
    "refusal": (
        "unknown_path=drop denied=answer",
        {"unknown_path": "drop", "denied": "answer"},
        "refusal",
        {"unknown_path": "drop", "denied": "answer"},
    ),
    "upgrade-quota": ("3/second burst 9", "3/second burst 9", "upgrade_quota", Quota(3, 1.0, 9)),
    "prefix-quota": ("off", "off", "prefix_quota", None),
    "http-quota": ("3/second", "3/second", "http_quota", Quota(3, 1.0, 3)),
    "tls-quota": ("9/second", "9/second", "tls_quota", Quota(9, 1.0, 9)),
    "tls-prefix-quota": ("off", "off", "tls_prefix_quota", None),
    "frame-quota": ("off", "off", "frame_quota", None),
    "byte-quota": ("2 KiB/s burst 1 MiB", "2 KiB/s burst 1 MiB", "byte_quota", ByteQuota(2048, 1.0, 2**20)),
    "binary-frame-quota": ("3/5m", "3/5m", "binary_frame_quota", Quota(3, 300.0, 3)),
    "binary-byte-quota": ("1024/second", "1024/second", "binary_byte_quota", ByteQuota(1024, 1.0, 1024)),
    "dropped-envelope-quota": ("9/second", "9/second", "dropped_envelope_quota", Quota(9, 1.0, 9)),
    "ping-quota": ("OFF", "OFF", "ping_quota", None),
    "excess-timeout": ("12.5", 12.5, "excess_timeout_s", 12.5),
    "max-connections": ("100", 100, "max_connections", 100),
    "max-connections-per-address": ("10", 10, "max_connections_per_address", 10),
    "max-connections-per-prefix": ("off", "off", "max_connections_per_prefix", None),
    "max-binary-connections": ("7", 7, "max_binary_connections", 7),
    "max-phone-connections": ("8", 8, "max_phone_connections", 8),
    "max-binaries-per-address": ("off", "off", "max_binaries_per_address", None),
    "max-phones": ("2", 2, "max_phones", 2),
    "max-message-bytes": ("1024", 1024, "max_message_bytes", 1024),
    "grace": ("0.5", 0.5, "grace_s", 0.5),
    "ping-interval": ("55", 55, "ping_interval_s", 55.0),
    "jail-after": ("20/5m", "20/5m", "jail_after", Quota(20, 300.0, 20)),
    "jail-time": ("60", 60, "jail_time_s", 60.0),
    "jail-time-max": ("1000", 1000, "jail_time_max_s", 1000.0),
    "jail-file": ("/run/jail.sqlite", "/run/jail.sqlite", "jail_file", "/run/jail.sqlite"),
    "kernel-drop": ("true", True, "kernel_drop", True),
    "cluster": (
        "redis://a rediss://b:7000/1",
        ["redis://a", "rediss://b:7000/1"],
        "cluster",
        ("redis://a", "rediss://b:7000/1"),
    ),
    "cluster-name": ("eu-1", "eu-1", "cluster_name", "eu-1"),
    "cluster-secret-file": ("/s", "/s", "cluster_secret_file", "/s"),
    "cluster-kept-bytes": ("20000000", 20000000, "cluster_kept_bytes", 20_000_000),
    "cluster-listen": ("tcp:7000", "tcp:7000", "cluster_listen", "tcp:7000"),
    "cluster-advertise": ("[FD00::1]:7000", "[fd00::1]:7000", "cluster_advertise", "[fd00::1]:7000"),
    "cluster-peers": (
        "10.0.0.0/8 unix",
        ["10.0.0.0/8", "unix"],
        "cluster_peers",
        TrustedProxies(CidrSet(["10.0.0.0/8"]), unix=True),
    ),
    "cluster-on-outage": ("refuse", "refuse", "cluster_on_outage", "refuse"),
    "cluster-redirect": ("/hop/", "/hop/", "cluster_redirect", "/hop/"),
    "log-format": ("json", "json", "log_format", "json"),
    "log-max-bytes": ("off", "off", "log_max_bytes", None),
    "log-keep": ("3", 3, "log_keep", 3),
    "log-client-address": ("hashed", "hashed", "log_client_address", "hashed"),
    "production": ("true", True, "production", True),
    "accept-finding": ("clock root", ["clock", "root"], "accept_finding", ("clock", "root")),
    "push-credentials": ("env:FCM_KEY", "env:FCM_KEY", "push_credentials", "env:FCM_KEY"),
    "push-url": ("http://127.0.0.1:1", "http://127.0.0.1:1", "push_url", "http://127.0.0.1:1"),
    "push-feedback": ("true", True, "push_feedback", True),
    **NOSTR_SAMPLES,
}

# The other options that a sample needs to be valid.
COMPANIONS: Mapping[str, dict[str, object]] = {
    "trusted-proxy": {"trust-x-forwarded-for": True},
    "client-address-header": {"trust-x-forwarded-for": True},
    "proxy-protocol": {"trusted-proxy": ["10.0.0.0/8"]},
}
