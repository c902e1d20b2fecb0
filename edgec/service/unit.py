"""The systemd unit of the service: no rights that serving a model does not need."""

from __future__ import annotations

NAME = "edgec-agent.service"
#: What a bundle's copy of the unit says; `install` writes the real one.
EXAMPLE_ROOT = "/opt/edgec"

_UNIT = """\
# Serves the current release of {root}. `edgec flash --service` installs it; by hand:
#   cp edgec-agent.service /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now edgec-agent
[Unit]
Description=edgec: inference with the current release of {root}
After=local-fs.target
ConditionPathExists={root}/current/serve.pyz

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} {root}/current/serve.pyz serve --root {root} --port {port}
# A minimal Debian has no /bin/kill; every shell has one.
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
# Its children are ended by the service itself, after the requests that they answer.
KillMode=mixed
TimeoutStartSec=330
TimeoutStopSec=30
Restart=on-failure
RestartSec=2

# A user that exists while it runs, and sees of the disk what it reads: the system and the releases.
DynamicUser=yes
ProtectSystem=strict
ProtectHome=tmpfs
BindReadOnlyPaths={root}
PrivateTmp=yes
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
{devices}
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# Loopback only; to be reached from elsewhere, put a proxy before it, or change these two and give a token.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
IPAddressDeny=any
IPAddressAllow=localhost
# MemoryDenyWriteExecute is left out: OpenVINO writes the code of its kernels at run time.
TasksMax=256
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""

_ACCELERATOR = """\
SupplementaryGroups=render
DevicePolicy=closed
DeviceAllow=char-drm rw
DeviceAllow=char-accel rw"""


def unit_text(root: str, *, python: str = "/usr/bin/python3", port: int = 8093, engine: str = "") -> str:
    """The unit for a root folder on the device. `engine` says whether the model needs a GPU or NPU."""
    accelerated = engine.startswith("openvino:")
    devices = _ACCELERATOR if accelerated else "PrivateDevices=yes"
    return _UNIT.format(root=root, python=python, port=port, devices=devices)
