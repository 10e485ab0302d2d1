"""A cluster on hosts of this machine, as its user sees it: the project's own file, with other
addresses in it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.hosts import ROOT, Host, hosts, wait_for

NAME = "distvae-lab"
SHARED = "/mnt/shared"
MEMBERS = ("head", "one", "two")
ENVIRONMENT = "root/distvae-env"
"""Where the file installs; once, for it takes a processor a minute or two."""
LEND = """
python3.11 -m venv ~/distvae-env
echo /mnt/lent/lib/python3.11/site-packages > ~/distvae-env/lib/python3.11/site-packages/lent.pth
for script in ray mlflow uvicorn gunicorn; do
    sed "1s|.*|#!$HOME/distvae-env/bin/python|" /mnt/lent/bin/$script > ~/distvae-env/bin/$script
    chmod +x ~/distvae-env/bin/$script
done
"""
"""Makes an environment that sees the packages of the tests."""
LIMITS = " --num-cpus=1 --object-store-memory=150000000 --memory=4000000000"
"""Of each host, for each sees all that this machine has."""


@dataclass
class Lab:
    """Hosts, and the machine from which somebody works with them."""

    hosts: dict[str, Host]
    home: Path
    """Of whoever works with them."""
    file: Path
    """For `ray up`."""

    def ray(self, *words: str, timeout: float = 900) -> "subprocess.CompletedProcess[str]":
        """Ray's own command line, from the checkout."""
        return subprocess.run(
            [str(Path(sys.executable).parent / "ray"), *words],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Of a person with a token."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        auth = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.home / ".ray" / "distvae" / "auth_token"),
        }
        return kept | auth | {"HOME": str(self.home), "RAY_USAGE_STATS_ENABLED": "0"}

    def up(self) -> None:
        """Make a cluster of the hosts."""
        done = self.ray("up", "-y", "--no-config-cache", str(self.file))
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def up_from_nothing(self, lent: bool) -> None:
        """Do the same without an installation: the workers are switched on with a copy of the
        head's installation. What is lent is not installed.
        """
        if lent:
            self.hosts["head"].does(LEND)
        others = [self.hosts[name] for name in MEMBERS[1:]]
        for host in others:
            host.power_off()
        self.up()
        for host in others:
            host.copy(self.hosts["head"], ENVIRONMENT)
            host.start()

    def submit(
        self, script: str, *words: str, timeout: float = 900
    ) -> "subprocess.CompletedProcess[str]":
        """An entry script, to its end."""
        return self.ray(
            "submit", str(self.file), str(ROOT / "cluster" / script), "--", *words, timeout=timeout
        )

    def members(self) -> set[str]:
        """The hosts that Ray has, by its dashboard: asking Ray itself takes the processor of those
        who join.
        """
        answer = self.hosts["head"].ssh(
            "printf 'Authorization: Bearer %s' $(cat ~/.distvae_secrets/auth_token) | "
            "curl -sf -H @- 'http://127.0.0.1:8265/nodes?view=hostNameList'"
        )
        return (
            set(json.loads(answer.stdout)["data"]["hostNameList"])
            if answer.returncode == 0
            else set()
        )

    def whole(self, seconds: float = 600) -> None:
        """Wait until all hosts are members."""
        wait_for(
            lambda: self.members() == set(MEMBERS),
            seconds,
            f"not all hosts joined: {self.members()}",
            5,
        )

    def shared_file(self, path: str) -> Path:
        """A file that all hosts see."""
        return self.home.parent / "shared" / path


def write(file: Path, hosts: dict[str, Host], key: Path) -> None:
    """Write the project's file for these hosts: with the edits that it asks for, and with less
    memory than this machine has.
    """
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "cluster.yaml").read_text())
    config["cluster_name"] = NAME
    config["provider"] |= {
        "head_ip": hosts["head"].address,
        "worker_ips": [hosts[n].address for n in MEMBERS[1:]],
    }
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config["initialization_commands"] = [f"echo 'DISTVAE_STORAGE={SHARED}' > ~/.distvae_storage"]
    for role in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[role] = [f"{line}{LIMITS}" if "ray start" in line else line for line in config[role]]
    file.write_text(yaml.safe_dump(config, sort_keys=False))


@contextmanager
def lab(folder: Path, wheels: Path) -> Iterator[Lab]:
    """Hosts that are no cluster yet, and a person with a token; nothing is left of any of it."""
    home = folder / "home"
    token = home / ".ray" / "distvae" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text(os.urandom(32).hex())
    token.chmod(0o600)
    with hosts(folder, wheels) as made:
        write(home / "cluster.yaml", made, folder / "key")
        try:
            yield Lab(made, home, home / "cluster.yaml")
        finally:
            for path in Path("/tmp/ray").glob(f"cluster-{NAME}.*"):
                path.unlink()


def download(folder: Path, lent: bool) -> Path:
    """Wheels of what builds the project and, unless they are lent, of all that the lock names."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pip += ["download", "-d", str(folder)]
    lock = ["-c", str(ROOT / "requirements.lock"), "--find-links", str(folder)]
    builders = ["setuptools", "wheel"]
    for what in [builders] if lent else [["torch", "numpy"], [*builders, f"{ROOT}[all]"]]:
        subprocess.run([*pip, *lock, *what], check=True)
    for other in folder.glob("distvae*"):
        other.unlink()
    return folder
