"""What a container runtime does once it has namespaces: a root of its own, its volumes in it, and no more rights than it may have.

    python container_root.py hold SPEC      # the namespaces of a pod: its name, its volumes in memory; stays until it is ended
    python container_root.py run SPEC FD    # one container in them: makes its root, writes a byte and becomes its command

Run by running_pods.py as root, in namespaces that are private already; SPEC is a file of JSON (Hold or Run). The image is this machine's
own root with everything taken away but what programs are made of (KEPT), and the folders that the spec adds. It is an overlay: what is
missing (mount points, files of /etc) is made in a layer of memory, and what is read-only is so for everybody.

Not honoured: seccomp profiles, limits of CPU and memory, masked paths of /proc.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

KEPT = ("bin", "etc", "lib", "lib32", "lib64", "sbin", "usr")
"""Of this machine's root; every other folder of it is empty in the image."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SHM_BYTES = 64 * 1024**2
"""/dev/shm where no volume is mounted there: what container runtimes give."""
OPAQUE = "trusted.overlay.opaque"


class Memory(TypedDict):
    """A volume in memory, mounted once for all containers of a pod."""

    path: str
    bytes: int
    mode: int
    group: int


class Hold(TypedDict):
    hostname: str
    memory: list[Memory]


class Bind(TypedDict):
    """A folder or file of this machine in the container. without: names in it that the container does not see."""

    source: str
    target: str
    read_only: bool
    without: list[str]


class Run(TypedDict):
    scratch: str
    """An empty folder for the layers; nothing of it is left."""
    binds: list[Bind]
    files: dict[str, str]
    """Of /etc, with their text."""
    absent: list[str]
    """Paths of this machine's root that the image has not."""
    read_only: bool
    workdir: str
    privileges: list[str]
    """Arguments of setpriv."""
    argv: list[str]
    environment: dict[str, str]


def hold(spec: Hold) -> None:
    socket.sethostname(spec["hostname"])
    for volume in spec["memory"]:
        options = f"size={volume['bytes']},mode={volume['mode']:o},gid={volume['group']},nosuid,nodev"
        _mount("-t", "tmpfs", "-o", options, "volume", volume["path"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # where containers share its namespace of processes, it buries what they leave
    sys.stdout.write("holding\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def run(spec: Run, told: int) -> None:
    """Becomes the container's command; returns never."""
    scratch = Path(spec["scratch"])
    _mount("-t", "tmpfs", "-o", "mode=755", "layers", str(scratch))
    root = _image(scratch, spec)
    for number, bind in enumerate(sorted(spec["binds"], key=lambda bind: bind["target"])):
        _bind(bind, root, scratch / f"bind-{number}")
    _mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{root}/proc")
    _mount("--rbind", "-o", "ro", "/sys", f"{root}/sys")
    if spec["read_only"]:
        _mount("-o", "remount,ro", str(root))
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)  # the old root lies on top of the new one until it is unmounted
    subprocess.run(["umount", "--lazy", "."], check=True)
    os.chdir(spec["workdir"])
    os.umask(0o022)
    os.write(told, b"1")
    os.close(told)
    # Whose user changes forgets whose death shall be its own, so it is said again.
    rights = [*spec["privileges"], "--pdeathsig=KILL"]
    os.execve("/usr/bin/setpriv", ["setpriv", *rights, "--", *spec["argv"]], spec["environment"])


def _image(scratch: Path, spec: Run) -> Path:
    """An overlay over this machine's root in which the rest is hidden, and every mount point is there."""
    upper, work, root = scratch / "upper", scratch / "work", scratch / "root"
    for folder in (upper, work, root):
        folder.mkdir(mode=0o755)
    for name in os.listdir("/"):
        if name in KEPT:
            continue
        if stat.S_ISDIR(os.lstat(f"/{name}").st_mode):
            (upper / name).mkdir(mode=0o755)
            os.setxattr(upper / name, OPAQUE, b"y")
        else:
            _white(upper / name)
    for folder in ("dev", "proc", "sys", "tmp", "etc"):
        (upper / folder).mkdir(mode=0o755, exist_ok=True)
    for path in spec["absent"]:
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        _white(upper / path)
    for name, text in spec["files"].items():
        (upper / "etc" / name).write_text(text)
        (upper / "etc" / name).chmod(0o644)
    _devices(scratch / "dev")
    options = f"lowerdir=/,upperdir={upper},workdir={work}"
    _mount("-t", "overlay", "-o", options, "image", str(root))
    _mount("--rbind", str(scratch / "dev"), f"{root}/dev")
    for bind in sorted(spec["binds"], key=lambda bind: bind["target"]):
        _mount_point(root, bind)
    return root


def _devices(dev: Path) -> None:
    dev.mkdir(mode=0o755)
    _mount("-t", "tmpfs", "-o", "mode=755,size=64k", "dev", str(dev))
    for name in DEVICES:
        (dev / name).touch()
        _mount("--bind", f"/dev/{name}", str(dev / name))
    for name, link in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(link)
    (dev / "shm").mkdir()
    _mount("-t", "tmpfs", "-o", f"mode=1777,size={SHM_BYTES}", "shm", str(dev / "shm"))


def _mount_point(root: Path, bind: Bind) -> Path:
    """Made where it is missing, as a runtime makes it: root's, and nobody else writes there."""
    place = root / bind["target"].lstrip("/")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        if Path(bind["source"]).is_dir():
            place.mkdir()
        else:
            place.touch()
    return place


def _bind(bind: Bind, root: Path, layers: Path) -> None:
    place = _mount_point(root, bind)  # below a volume that was mounted a moment ago, it may be missing again
    if bind["without"]:
        _overlay_without(bind, place, layers)
        return
    _mount("--rbind", bind["source"], str(place))
    if bind["read_only"]:
        _mount("-o", "remount,bind,ro,nosuid,nodev", str(place))


def _overlay_without(bind: Bind, place: Path, layers: Path) -> None:
    """The folder with some of its names away; read-only, having only a second lower layer and no upper one."""
    gone = layers / "gone"
    for name in bind["without"]:
        (gone / name).parent.mkdir(parents=True, exist_ok=True)
        _white(gone / name)
    _mount("-t", "overlay", "-o", f"ro,lowerdir={gone}:{bind['source']}", "image", str(place))


def _white(path: Path) -> None:
    """A name that hides what the layers below have under it."""
    os.mknod(path, stat.S_IFCHR, 0)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main() -> None:
    what, path, *told = sys.argv[1:]
    spec = json.loads(Path(path).read_text())
    if what == "hold":
        hold(spec)
    else:
        run(spec, int(told[0]))


if __name__ == "__main__":
    main()
