# SPDX-License-Identifier: BSD-3-Clause
"""nbdkit with the plugin, as tests run and hurt it."""
import contextlib
import os
import resource
import signal
import subprocess
import time

from . import unixsocket


class Server:
    """nbdkit with the plugin on a Unix socket; parameters as on its command line."""

    def __init__(self, plugin, directory, *params, options=(), file_limit=None):
        self.socket = str(directory / "nbd.sock")
        self._log = open(directory / "nbdkit.log", "ab")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

        def limit():
            if file_limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        self.process = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, *options, str(plugin), *map(str, params)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log,
            preexec_fn=limit, restore_signals=False)
        self.log = directory / "nbdkit.log"
        deadline = time.monotonic() + 20
        while not unixsocket.listens(self.socket) and self.process.poll() is None:
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise RuntimeError("nbdkit does not listen")
            time.sleep(0.01)

    def connect(self):
        import nbd  # who has none skips its tests

        client = nbd.NBD()
        client.set_strict_mode(0)
        client.connect_unix(self.socket)
        return client

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        # nbdkit waits for its clients, which a failed test did not send home.
        self.stop(signal.SIGKILL if failed else signal.SIGTERM)
