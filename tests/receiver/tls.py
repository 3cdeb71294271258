# SPDX-License-Identifier: BSD-3-Clause
"""Certificates of a test's own, and an nginx that stands before the receiver with them."""
import pathlib
import socket
import subprocess

from lab import die_with_parent, wait_for


def run(*argv, **kwargs):
    return subprocess.run([str(arg) for arg in argv], check=True, capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=60, **kwargs).stdout


class Authority:
    """A certificate authority, in directory."""

    def __init__(self, directory, name="ca"):
        self.dir = pathlib.Path(directory)
        self.cert = self.dir / f"{name}.pem"
        self.key = self.dir / f"{name}.key"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "30", "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)

    def issue(self, name, san="IP:127.0.0.1,DNS:localhost", days=30):
        """(certificate, key) of that name, valid for so many days (negative: expired)."""
        cert, key, request = (self.dir / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
            f"/CN={name}", "-keyout", key, "-out", request)
        extension = self.dir / f"{name}.ext"
        extension.write_text(f"subjectAltName={san}\n")
        run("openssl", "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial",
            "-days", days, "-extfile", extension, "-out", cert)
        return cert, key


def pin_of(cert):
    """The pinned_key of a certificate, by openssl's command line."""
    public = run("openssl", "x509", "-in", cert, "-pubkey", "-noout")
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=public, capture_output=True,
                         check=True).stdout
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-binary"], input=der, capture_output=True,
                            check=True).stdout
    text = subprocess.run(["openssl", "base64", "-A"], input=digest, capture_output=True, check=True).stdout
    return "sha256//" + text.decode()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Nginx:
    """Listens with TLS and passes requests on to the receiver's port."""

    def __init__(self, directory, backend, cert, key, listen="ssl", more=""):
        self.dir = pathlib.Path(directory) / "nginx"
        self.dir.mkdir(exist_ok=True)
        self.port = free_port()
        self.log = self.dir / "access.log"
        (self.dir / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {self.dir}/pid; error_log {self.dir}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format said '$server_protocol $ssl_protocol $ssl_client_verify $status $http_content_encoding';
  access_log {self.dir}/access.log said;
  client_body_temp_path {self.dir}/body; proxy_temp_path {self.dir}/proxy; client_max_body_size 64m;
  fastcgi_temp_path {self.dir}/f; uwsgi_temp_path {self.dir}/u; scgi_temp_path {self.dir}/s;
  server {{
    listen 127.0.0.1:{self.port} {listen};
    ssl_certificate {cert}; ssl_certificate_key {key};
    {more}
    location / {{ proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1; }}
  }}
}}
""")
        self.process = subprocess.Popen(["nginx", "-p", self.dir, "-c", self.dir / "nginx.conf"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=open(self.dir / "stderr", "wb"), preexec_fn=die_with_parent)
        wait_for(self.listens, what="nginx")

    def listens(self):
        assert self.process.poll() is None, (self.dir / "stderr").read_text() + (self.dir / "error.log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def said(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.process.kill()
        self.process.wait()
