"""On what kind of disk a path is. Linux alone tells; elsewhere every disk is taken for one of this machine."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# Locks and shared memory there are no promises: two machines, and in the end one, ruin a database.
NETWORK = re.compile(r"nfs4?|cifs|smb3|smbfs|afs|ceph|lustre|fuse\.(sshfs|glusterfs|s3fs|rclone)")


def network_disk(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of network disk that this absolute path is on, `nfs4`; None when it is on none."""
    place, kind = Path("/"), ""
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        mount, _, disk = line.partition(" - ")
        # The kernel writes a space in a name as \040.
        point = Path(re.sub(r"\\(\d{3})", lambda hit: chr(int(hit[1], 8)), mount.split()[4]))
        # A later mount on the same place covers the earlier one.
        if path.is_relative_to(point) and point.is_relative_to(place):
            place, kind = point, disk.split()[0]
    return kind if NETWORK.fullmatch(kind) else None
