"""nginx as docs/ops/nginx.conf has it, before real processes."""

import shutil
import subprocess
import time
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
import pytest

from tests.certificates import Authority
from tests.serving import ROOT, Server, free_port

CONF = ROOT / "docs" / "ops" / "nginx.conf"
SITE = "app.example.org"
INSTALL = "apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light"
# What a whole configuration has around the file, in a folder of its own.
AROUND = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{conf}
}}
"""


def program():
    """Where nginx is; installed, if that can be."""
    where = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    if not shutil.which("nginx", path=where) and shutil.which("apt-get"):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["sh", "-c", INSTALL], capture_output=True, timeout=240)
    found = shutil.which("nginx", path=where)
    return found or pytest.fail(
        "nginx is missing, and apt-get can't install it: nginx-light, please"
    )


class Behind(Server):
    """A process whose origin is that of the proxy."""

    def _listen_on(self, port, env):
        super()._listen_on(port, env)
        self.env |= {"BASE_URL": f"https://{SITE}", "TRUSTED_PROXIES": "127.0.0.1"}


class Proxy:
    """`client` speaks to it as a browser that was led to SITE."""

    def __init__(self, folder, ports):
        self.folder, self.port, self.plain = folder, free_port(), free_port()
        folder.mkdir(mode=0o755, exist_ok=True)
        authority = Authority(folder)
        authority.server(SITE)
        own = {
            "    listen 443 ssl;\n": f"    listen 127.0.0.1:{self.port} ssl;\n",
            "    listen [::]:443 ssl;\n": "",
            "    listen 80;\n": f"    listen 127.0.0.1:{self.plain};\n",
            "    listen [::]:80;\n": "",
            "/etc/ssl/app.example.org.pem": str(folder / f"{SITE}30.pem"),
            "/etc/ssl/app.example.org.key": str(folder / f"{SITE}30.key"),
            "127.0.0.1:5001": f"127.0.0.1:{ports[0]}",
            "127.0.0.1:5002": f"127.0.0.1:{ports[1]}",
        }
        conf = CONF.read_text()
        for there, here in own.items():
            assert conf.count(there) == 1, there
            conf = conf.replace(there, here)
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder, conf=conf))
        self.trust = authority.client()
        self.trust.check_hostname = (
            False  # the name in the certificate is the site's, and we are on loopback
        )
        self.url = f"https://127.0.0.1:{self.port}"
        nothing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.client = httpx2.Client(
            base_url=self.url,
            headers={"Host": SITE},
            cookies=nothing,
            verify=self.trust,
            trust_env=False,
            timeout=40,
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=64),
        )

    def __enter__(self):
        command = [program(), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        with (self.folder / "out").open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(httpx2.HTTPError):
                self.client.get("/healthz")
                return self
            time.sleep(0.02)
        raise RuntimeError((self.folder / "out").read_text() + self.errors)

    def __exit__(self, *_):
        self.client.close()
        self.process.terminate()
        self.process.wait(10)

    @property
    def errors(self):
        log = self.folder / "error.log"
        return log.read_text() if log.exists() else ""
