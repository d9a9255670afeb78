"""The Linux calls that Python has no function for: namespaces, mounts, Landlock, seccomp, capabilities."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Mapping

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
CLONE_NEWANY = 0x7E020080
"""Every CLONE_NEW* flag that `clone` takes."""
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *args: object) -> int:
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _libc.syscall(ctypes.c_long(number), *wide)


def _prctl(option: int, *args: object) -> int:
    wide = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    return _libc.prctl(ctypes.c_int(option), *wide, *[ctypes.c_ulong(0)] * (4 - len(args)))


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace `fd` refers to."""
    _check(_libc.setns(fd, ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    encoded = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount away; it ends when its last user does."""
    _check(_libc.umount2(target.encode(), 2), f"umount {target}")


def new_user_namespace(flags: int = 0) -> None:
    """Become the only user of a new user namespace, under the same ids, with all capabilities over what it owns."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def die_with_parent(signal: int = 9) -> None:
    """Have the kernel send `signal` to this process when its parent ends."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal), "prctl(PR_SET_PDEATHSIG)")


def children() -> list[int]:
    """The processes whose parent is this one."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, so that they are found beneath this process."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1), "prctl(PR_SET_CHILD_SUBREAPER)")


def use_huge_pages() -> None:
    """Put this process's writable memory into pages of 2 MiB where that can be done.

    Forking it then takes half of the time, as there are fewer entries to copy. A child that writes still copies 4 KiB.
    """
    size, collapse = 2 * 2**20, 25
    with open("/proc/self/maps") as file:
        lines = [line.split() for line in file]
    for addresses, rights, *rest in lines:
        if rights.startswith("rw") and rest[3:] in ([], ["[heap]"]):
            begin, end = (int(number, 16) for number in addresses.split("-"))
            begin, end = -(-begin // size) * size, end // size * size
            if end > begin:  # it may fail, on an older kernel for one, and nothing is lost
                _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_int(collapse))


def no_new_privileges() -> None:
    """Setuid programs give nothing any more; unprivileged seccomp and Landlock need it."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "prctl(PR_SET_NO_NEW_PRIVS)")


def drop_capabilities() -> None:
    """Give up every capability for good. Without any to begin with this does nothing."""
    for capability in range(64):
        if _prctl(_PR_CAPBSET_DROP, capability) < 0:
            break
    header = struct.pack("<Ii", 0x20080522, 0)
    number = {"x86_64": 126, "aarch64": 91}[platform.machine()]
    _check(_syscall(number, ctypes.c_char_p(header), ctypes.c_char_p(bytes(24))), "capset")


# Landlock -----------------------------------------------------------------------------------------------------------

FS_EXECUTE, FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR = 1, 2, 4, 8
READ = FS_EXECUTE | FS_READ_FILE | FS_READ_DIR
READ_WRITE_FILE = FS_READ_FILE | FS_WRITE_FILE | 1 << 14
_FILE_ONLY = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | 1 << 14 | 1 << 15
_DEVICE_NODES = 1 << 6 | 1 << 9 | 1 << 11  # make char device, socket, block device
_BEGIN_FS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
EVERYTHING = (1 << 16) - 1


def landlock_abi() -> int:
    """The Landlock version of this kernel; 0 without it. 4 knows TCP, 6 knows signals and abstract sockets."""
    return max(0, _syscall(_LANDLOCK_CREATE, 0, 0, 1))


def landlock(rules: Mapping[str, int]) -> None:
    """Allow beneath each path what its value says, and nothing else; no TCP; no signal out of here."""
    abi = landlock_abi()
    handled = _BEGIN_FS[max(version for version in _BEGIN_FS if version <= abi)]
    attributes = struct.pack("<QQQ", handled, 3, 3)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _syscall(_LANDLOCK_CREATE, ctypes.c_char_p(attributes), len(attributes), 0)
    _check(ruleset, "landlock_create_ruleset")
    try:
        for path, access in rules.items():
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                allowed = access & handled & ~_DEVICE_NODES
                if not os.path.isdir(path):
                    allowed &= _FILE_ONLY
                beneath = struct.pack("<Qi", allowed, fd)
                _check(_syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.c_char_p(beneath), 0), f"landlock {path}")
            finally:
                os.close(fd)
        _check(_syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


# seccomp ------------------------------------------------------------------------------------------------------------

# name: (x86_64, aarch64); -1 where the architecture has no such call
_NUMBERS: dict[str, tuple[int, int]] = {
    # talking to anything but one's own children
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242),
    # building a world of one's own
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "mknod": (133, -1), "mknodat": (259, 33),
    # reaching into other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "move_pages": (279, 239), "migrate_pages": (256, 238),
    # parts of the kernel that code for a sum does not need, and where its bugs have been
    "bpf": (321, 280), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "personality": (135, 92), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "lookup_dcookie": (212, 18), "memfd_secret": (447, 447), "vhangup": (153, 58),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "acct": (163, 89), "swapon": (167, 224),
    "swapoff": (168, 225), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "syslog": (103, 116),
    "quotactl": (179, 60), "quotactl_fd": (443, 443),
    # memory that no process need have mapped, so that nobody sees whose it is
    "memfd_create": (319, 279),
    # System V and POSIX message objects, which outlive a process
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip
_TO_CONFINE = ("unshare", "setns", "mount", "pidfd_open")
_LEAVE_GROUP = {"setsid": (112, 157), "setpgid": (109, 154)}
# What Landlock lets a process do to others of its user, where they are in sight; and which names it may watch appear.
_TO_OTHERS = {"ioprio_set": (251, 30), "inotify_add_watch": (254, 27)}
_TO_ITSELF: dict[tuple[int, int], tuple[int, ...]] = {
    (302, 261): (0,),  # prlimit64
    (203, 122): (0,),  # sched_setaffinity
    (144, 119): (0,),  # sched_setscheduler
    (142, 118): (0,),  # sched_setparam
    (314, 274): (0,),  # sched_setattr
    (141, 140): (0, 1),  # setpriority
}
"""Which arguments must be 0, "this process"."""
_CLONE, _CLONE3, _IOCTL, _SOCKETPAIR, _PRCTL = (56, 220), (435, 435), (16, 29), (53, 199), (157, 167)
_TIOCSTI, _TIOCLINUX, _SOCK_STREAM, _SOCK_SEQPACKET = 0x5412, 0x541C, 1, 5
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050000 | 38
_END = (_RET, 0, 0, _ALLOW)


def supported_machine() -> bool:
    """True where the tables above hold."""
    return platform.machine() in _AUDIT_ARCH


def seccomp_programs(*, shared_pids: bool) -> tuple[bytes, bytes]:
    """The filter as BPF, a deny-list with EPERM, in two parts: what a zygote denies itself and so its children, and
    what it must do before it can deny its children that too. `shared_pids`: the session has no pid namespace of its
    own, so it is also denied leaving its process group and changing limits, priority or processors of other processes.

    In two parts, as the kernel tries a new filter on every system call there is: 0.3 ms for the whole one.
    """
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    later = {name: _NUMBERS[name] for name in _TO_CONFINE} | (_LEAVE_GROUP | _TO_OTHERS if shared_pids else {})
    at_once = {name: numbers for name, numbers in _NUMBERS.items() if name not in later}
    begin = [(_LD, 0, 0, 4), (_JEQ, 1, 0, _AUDIT_ARCH[platform.machine()]), (_RET, 0, 0, _KILL), (_LD, 0, 0, 0)]
    return (
        _assembled([*begin, *_denying(at_once, column), *_looking_at_arguments(column)]),
        _assembled([*begin, *_denying(later, column), *(_only_itself(column) if shared_pids else ()), _END]),
    )


def _denying(calls: Mapping[str, tuple[int, int]], column: int) -> list[tuple[int, int, int, int]]:
    code: list[tuple[int, int, int, int]] = []
    for number in sorted(pair[column] for pair in calls.values() if pair[column] >= 0):
        code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _EPERM)]
    return code


def _looking_at_arguments(column: int) -> list[tuple[int, int, int, int]]:
    """The end of a filter: calls that are denied with some arguments only, and all that is allowed."""
    code: list[tuple[int, int, int, int]] = []
    if column == 0:
        code += [(_JGE, 0, 1, 0x40000000), (_RET, 0, 0, _EPERM)]  # the x32 calls
    code += [(_JEQ, 0, 1, _CLONE3[column]), (_RET, 0, 0, _ENOSYS)]  # its flags are in memory: glibc falls back to clone
    code += [(_JEQ, 0, 4, _CLONE[column]), (_LD, 0, 0, 16), (_JSET, 0, 1, CLONE_NEWANY), (_RET, 0, 0, _EPERM)]
    code += [(_RET, 0, 0, _ALLOW)]
    code += [(_JEQ, 0, 5, _IOCTL[column]), (_LD, 0, 0, 24), (_JEQ, 1, 0, _TIOCSTI), (_JEQ, 0, 1, _TIOCLINUX)]
    code += [(_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)]
    # A datagram pair, which is also what "raw" makes, could still send to any Unix socket by its path.
    code += [(_JEQ, 0, 5, _SOCKETPAIR[column]), (_LD, 0, 0, 24), (_AND, 0, 0, 15)]
    return [*code, (_JEQ, 2, 0, _SOCK_STREAM), (_JEQ, 1, 0, _SOCK_SEQPACKET), (_RET, 0, 0, _EPERM), _END]


def _only_itself(column: int) -> list[tuple[int, int, int, int]]:
    """Calls that may name no other process; and a session goes on adopting its orphans, or nobody would count them."""
    code: list[tuple[int, int, int, int]] = []
    for numbers, arguments in _TO_ITSELF.items():
        code.append((_JEQ, 0, 3 * len(arguments) + 1, numbers[column]))
        for argument in arguments:
            code += [(_LD, 0, 0, 16 + 8 * argument), (_JEQ, 1, 0, 0), (_RET, 0, 0, _EPERM)]
        code.append(_END)
    code += [(_JEQ, 0, 4, _PRCTL[column]), (_LD, 0, 0, 16), (_JEQ, 0, 1, _PR_SET_CHILD_SUBREAPER)]
    return [*code, (_RET, 0, 0, _EPERM), _END]


def _assembled(code: Iterable[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def seccomp(program: bytes) -> None:
    """Install a filter on this thread and all it starts."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _check(_prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(header)), "prctl(PR_SET_SECCOMP)")


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor but these."""
    start = 0
    for fd in sorted(set(keep)):
        if fd > start:  # an empty range that starts at 0 closes everything
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 65536)
