"""What kind of file system a ledger's file is on."""

import os
from pathlib import Path

__all__ = ["MOUNTS", "file_system", "is_network"]

#: Linux's table of mounts.
MOUNTS = Path("/proc/self/mountinfo")
#: Kinds on which SQLite's locks and shared memory cannot be relied upon between hosts.
_NETWORK = ("nfs", "cifs", "smb", "fuse", "lustre", "afs", "9p", "beegfs", "gpfs", "ceph", "gluster")


def file_system(path: Path, mounts: Path | None = None) -> str:
    """Name the kind of file system that a path is on.

    Args:
        path: Any path; it need not exist.
        mounts: Linux's table of mounts, by default its own.

    Returns:
        e.g. `ext4` or `nfs4`; empty where nobody can tell (no Linux).

    Source:
        The fields are described in proc_pid_mountinfo(5).

    Example:
        >>> file_system(Path("/"), Path("/no/such/table"))
        ''
    """
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real, best, kind = os.path.realpath(path), -1, ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ") if fields.count(" ") >= 4 else ""
        inside = point in {"/", real} or real.startswith(point + "/")
        # A later mount on the same point hides the earlier one.
        if point and inside and len(point) >= best:
            best, kind = len(point), rest.split(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether a kind of file system is shared between machines.

    Example:
        >>> is_network("nfs4"), is_network("ext4")
        (True, False)
    """
    return kind.startswith(_NETWORK)
