"""The desktop in the browser: TigerVNC with XFCE behind noVNC, where the image has them.

The published server's has no password, so whoever reaches the port has the machine. Ours has one, which is in the URL.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from service.errors import Unavailable
from service.runner.bash.process import command_environment
from service.runner.programs.ports import require_free, wait_listening
from service.settings import Settings

_PROXY = "/usr/share/novnc/utils/novnc_proxy"
_FIRST_VNC_PORT = 5900
_PASSWORD_CHARACTERS = 8
"""More are ignored (RFC 6143, 7.2.2: a DES key)."""
_RUN_SECONDS = 20.0
_SESSION = """#!/bin/sh
unset SESSION_MANAGER DBUS_SESSION_BUS_ADDRESS
exec startxfce4
"""


class Desktop:
    """A `Program` (`service.runner.programs.host_program`)."""

    name = "desktop"

    def __init__(self, settings: Settings) -> None:
        self.port = settings.novnc_port
        self._display = settings.vnc_display
        self._geometry = settings.vnc_geometry
        self._web = settings.novnc_web

    def command(self, token: str) -> list[str]:
        """As `Program`; the X server is started anew, with a password."""
        server, passwords = (shutil.which(name) for name in ("vncserver", "vncpasswd"))
        proxy = shutil.which("novnc_proxy") or _PROXY
        if server is None or passwords is None or not Path(proxy).exists():
            raise Unavailable("vncserver, vncpasswd and novnc_proxy are not all installed")
        require_free(self.port)
        folder = self._prepare_home(passwords, password_of(token))
        self.clean_up()
        options = ["-geometry", self._geometry, "-depth", "24", "-localhost", "yes"]
        _run(server, self._display, *options, "-SecurityTypes", "VncAuth", "-rfbauth", str(folder / "passwd"))
        vnc_port = _FIRST_VNC_PORT + int(self._display.removeprefix(":"))
        return [proxy, "--listen", f"0.0.0.0:{self.port}", "--vnc", f"127.0.0.1:{vnc_port}", "--web", self._web]

    def clean_up(self) -> None:
        """As `Program`: the X server is a daemon, which the proxy's end does not end."""
        if (server := shutil.which("vncserver")) is not None:
            _run(server, "-kill", self._display, check=False)

    async def wait_ready(self, lines: AsyncIterator[str]) -> None:
        """As `Program`."""
        await wait_listening(self.port)

    def _prepare_home(self, passwords: str, password: str) -> Path:
        home = Path.home()
        folder = home / ".vnc"
        for directory in (folder, home / ".config", home / "Downloads"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        session = folder / "xstartup"
        if not session.exists():
            session.write_text(_SESSION)
            session.chmod(0o755)
        hidden = _run(passwords, "-f", text=password)
        with os.fdopen(os.open(folder / "passwd", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(hidden)
        return folder


def password_of(token: str) -> str:
    """The part of a token that VNC can take."""
    return token[:_PASSWORD_CHARACTERS]


def _run(*command: str, text: str = "", check: bool = True) -> bytes:
    """What a program prints. Raises OSError when it fails or does not end, unless not to be checked."""
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=_RUN_SECONDS,
            env=command_environment(),
        )
    except subprocess.TimeoutExpired:
        if check:
            raise OSError(f"{command[0]} has not ended within {_RUN_SECONDS:g} s") from None
        return b""
    if check and done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.decode('utf-8', 'replace').strip()[-500:]}")
    return done.stdout
