"""Write a configuration for the benchmark into a folder and become the daemon.

``bench.py`` of the benchmark kit starts a peer from a command line with a port to listen on, a port of the sink to
relay to, a fresh folder and an RSA key; this is that command for arkrelay::

    BENCH_ARKRELAY_CMD='python tests/bench/peer.py {port} {sink} {dir} {key}'
"""

import os
import shutil
import sys
from pathlib import Path

SETTINGS = """\
hostname = "relay.test"
state_dir = "state"

[[listen]]
service = "submission"
address = "127.0.0.1:{port}"
tls = "none"
tenant = "bench"

[[listen]]
service = "http"
address = "127.0.0.1:{http}"
serve = ["api", "metrics"]

[[route]]
domain = "*"
host = "127.0.0.1:{sink}"
tls = "none"

[limits]
min_free_disk = "1MB"
connections_per_address = 0
connections_per_minute = 0
api_requests_per_s = 0

[log]
format = "json"
"""
TENANT = """\
name = "Bench"

[[credentials]]
name = "load"
type = "smtp"
secret = "bench-password-of-no-worth"
username = "user"

[[credentials]]
name = "rest"
type = "api"
secret = "{key}"

[[domains]]
name = "{domain}"
trusted = true

[[domains.dkim]]
selector = "bench"
private_key = "bench.pem"
"""
DOMAIN = "sender.test"  # what the load generator sends from
API_KEY = "ark_live_bench-key-of-no-worth"


def write(
    folder: Path, port: int, sink: int, key: Path, http: int = 0, more: str = "", more_tenant: str = ""
) -> Path:
    """Return the path of a configuration that relays everything to the sink, signed; ``more`` TOML may follow."""
    keys = folder / "state" / "keys"
    keys.mkdir(mode=0o700, parents=True)
    (folder / "state").chmod(0o700)
    shutil.copy(key, keys / "bench.pem")
    (keys / "bench.pem").chmod(0o600)
    (folder / "tenants").mkdir()
    tenant = folder / "tenants" / "bench.toml"
    tenant.write_text(TENANT.format(domain=DOMAIN, key=API_KEY) + more_tenant)
    tenant.chmod(0o600)
    config = folder / "arkrelay.toml"
    config.write_text(SETTINGS.format(port=port, sink=sink, http=http) + more)
    return config


def main(argv: list[str]) -> None:
    """Write the files, then run the daemon in this process."""
    port, sink, folder, key = argv
    config = write(Path(folder), int(port), int(sink), Path(key))
    os.execv(sys.executable, [sys.executable, "-m", "arkrelay", "serve", "-c", str(config)])


if __name__ == "__main__":
    main(sys.argv[1:])
