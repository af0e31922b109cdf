"""Restrict a process permanently before it runs a program. Needs no privileges.

Runs inside the sandbox with ``_harness`` and imports nothing from Waypost. `own_disk`,
`restrict_files` and `restrict_calls` return whether the system supports the restriction.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_MOUNT_FLAGS = 2 | 4 | 8  # nosuid, nodev, noexec

# Landlock: system calls (equal on all architectures) and rights, from linux/landlock.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_OWN_FOLDER = (
    _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE
    | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE
)  # fmt: skip
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Landlock ABI version -> number of its file rights."""
_NETWORK_ABI, _SCOPE_ABI = 4, 6
_READABLE = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo",
    "/sys/devices/system/cpu", "/etc/localtime", "/etc/ld.so.cache", "/dev/zero",
    "/dev/urandom", "/dev/random",
)  # fmt: skip

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120
libc = ctypes.CDLL(None, use_errno=True)


def limit(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Set hard limits on this process and its children."""
    wanted = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def hide_memory() -> None:
    """Deny other processes of the same user ``/proc/<pid>/mem`` and ptrace of this process."""
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def own_disk(size_bytes: int) -> bool:
    """Mount a small in-memory file system over the working directory.

    Requires a mount namespace of this process; without one the mount would affect all processes.
    """
    folder = os.getcwd()  # noqa: PTH109 - pathlib alone takes ten milliseconds to import
    options = f"size={size_bytes},nr_inodes=256,mode=700".encode()
    if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _MOUNT_FLAGS, options) != 0:
        return False
    os.chdir(folder)
    return True


def restrict_files(folder: str | None = ".") -> bool:
    """Allow reading of Python and system libraries only, and writing to ``folder`` (Landlock).

    Newer kernels also deny TCP, abstract sockets and signals to outside processes.
    """
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    rights = (1 << _RIGHTS_OF_ABI.get(abi, 16)) - 1
    numbers = [rights]
    if abi >= _NETWORK_ABI:
        numbers.append(3)  # bind and connect
    if abi >= _SCOPE_ABI:
        numbers.append(3)  # abstract sockets and signals
    attributes = struct.pack(f"={len(numbers)}Q", *numbers)
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    for path in (*_READABLE, *_python_folders()):
        _allow(rules, path, (_READ_FILE | _READ_DIR) & rights)
    _allow(rules, os.devnull, (_READ_FILE | _WRITE_FILE) & rights)
    if folder is not None:
        _allow(rules, folder, _OWN_FOLDER & rights)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done = int(libc.syscall(_RESTRICT_SELF, rules, 0)) == 0
    os.close(rules)
    return done


def _python_folders() -> list[str]:
    homes = (sys.prefix + os.sep, sys.base_prefix + os.sep)
    # Only entries of sys.path inside the interpreter: not the folders of editable installs.
    return [path for path in (_STANDARD_LIBRARY, *sys.path) if path.startswith(homes)]


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):  # noqa: PTH112
        rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
    libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, handle), 0)
    os.close(handle)


def restrict_calls() -> bool:
    """Deny the system calls that no test needs (seccomp); later threads inherit the filter.

    Denied are new processes and programs, sockets, signals to and inspection of other processes,
    new limits, owners and modes of files, namespaces, mounts and administration of the machine.
    Calls newer than 2019 fail with "no such call", except `_NEW_ALLOWED`.
    """
    machine = os.uname().machine
    if machine not in _CALLS or sys.byteorder != "little":
        return False
    audit, column = _CALLS[machine]
    numbers = {name: both[column] for name, both in _TABLE.items()}
    program = b"".join(_filter(audit, {name: n for name, n in numbers.items() if n is not None}))
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return int(libc.prctl(_PR_SET_SECCOMP, 2, described, 0, 0)) == 0


# Classic BPF, linux/bpf_common.h: load a word, jumps, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _DENY, _ABSENT = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_NEW_THREAD = 0x10000


def _filter(audit: int, calls: dict[str, int]) -> list[bytes]:
    pid = os.getpid()
    conditions = {
        "clone": _if_argument(0, (_ANY_BIT, _NEW_THREAD)),
        "kill": _if_argument(0, (_EQUAL, pid)),
        "tgkill": _if_argument(0, (_EQUAL, pid)),
        "prlimit64": _if_null(2),  # reading limits is harmless
        "sendto": _if_null(4),  # only without an address, for socket pairs
    }
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, audit, 1, 0), _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _FIRST_NEW, 0, 2 * len(_NEW_ALLOWED) + 1),
    ]  # fmt: skip
    for number in _NEW_ALLOWED:
        program += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    program.append(_step(_RETURN, _ABSENT))
    for name, number in calls.items():
        rule = conditions.get(name, [_step(_RETURN, _DENY)])
        program += [_step(_EQUAL, number, 0, len(rule)), *rule]
    return [*program, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _if_argument(place: int, test: tuple[int, int]) -> list[bytes]:
    return [
        _step(_LOAD, _ARGUMENTS + 8 * place), _step(*test, 1, 0),
        _step(_RETURN, _DENY), _step(_RETURN, _ALLOW),
    ]  # fmt: skip


def _if_null(place: int) -> list[bytes]:
    return [
        _step(_LOAD, _ARGUMENTS + 8 * place), _step(_EQUAL, 0, 0, 2),
        _step(_LOAD, _ARGUMENTS + 8 * place + 4), _step(_EQUAL, 0, 1, 0),
        _step(_RETURN, _DENY), _step(_RETURN, _ALLOW),
    ]  # fmt: skip


_FIRST_NEW = 425
"""From here on call numbers are equal on all architectures; those of x32 are higher, too."""
_NEW_ALLOWED = (436, 437, 439, 441, 449)  # close_range openat2 faccessat2 epoll_pwait2 futex_waitv

# name: numbers on x86_64 and aarch64 (None: no such call)
_TABLE: dict[str, tuple[int, int | None]] = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "setpgid": (109, 154), "setsid": (112, 157),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "prlimit64": (302, 261), "setrlimit": (160, 164),
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269), "bind": (49, 200),
    "listen": (50, 201),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setgroups": (116, 159), "setresuid": (117, 147), "setresgid": (119, 149),
    "setfsuid": (122, 151), "setfsgid": (123, 152), "capset": (126, 91),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "quotactl": (179, 60), "fanotify_init": (300, 262),
    "personality": (135, 92), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "syslog": (103, 116), "iopl": (172, None), "ioperm": (173, None), "setpriority": (141, 140),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
}  # fmt: skip
_CALLS = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> its AUDIT_ARCH number and its column of `_TABLE`."""
